//! What the tests share.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

pub mod agent;
pub mod line;
pub mod message;
