//! The server's gRPC doors.

pub(crate) mod access;
pub(crate) mod admin;
pub(crate) mod admin_calls;
pub(crate) mod admin_listener;
pub(crate) mod agent;
pub(crate) mod allowance;
mod guarded;
pub(crate) mod listener;
pub(crate) mod opening;
mod refusals;
mod retry;
