//! The units of `deploy/systemd` and of the examples, docs/systemd.md: how much they leave open, and whether systemd runs with them what they are for.
//!
//! What runs them boots a systemd of its own, with namespaces for processes, mounts, control groups and the network.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "test code"
)]

mod csi;
mod exposure;
mod files;
mod machine;
mod page;
mod shape;
mod trouble;
