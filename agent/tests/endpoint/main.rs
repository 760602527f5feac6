//! The agent's workload sockets from outside: real Unix sockets, scripted source, well and badly behaved clients.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "helpers of tests fail like tests"
)]

mod bounds;
mod clients;
mod differential;
mod ending;
mod filter;
mod header;
mod http2;
mod kubelet;
mod lists;
mod oracle;
mod sds;
mod sockets;
mod support;
mod workload_api;
