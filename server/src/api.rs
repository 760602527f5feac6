//! The server's gRPC doors.

pub mod access;
pub mod admin;
pub mod agent;
pub mod listener;
pub mod opening;
