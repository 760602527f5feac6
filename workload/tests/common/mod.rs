//! What the tests share.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod agent;
pub mod ca;
