//! Programs that nobody here wrote, as sidecar proxies: they load, rotate and enforce revocation. `.ci/step proxies` installs and runs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "test code"
)]

mod envoy;
mod stranger;
