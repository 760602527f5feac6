//! The manifests of `deploy/kubernetes`, and the pod of the examples: each program starts in the root that they describe, with what is in its image and in
//! the ConfigMap and nothing else.
//!
//! A root takes mounts, so these tests need root, `unshare`, `nsenter`, `ip` and `curl`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "test code"
)]

mod agent;
mod files;
mod root;
mod running;
mod server;
mod shape;
