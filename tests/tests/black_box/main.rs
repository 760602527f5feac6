//! Black-box tests: the real binaries against a fake cluster, and nothing but what a stranger could see of them.
//!
//! One program with a module for each theme, because every further test program links both binaries' libraries again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "test code"
)]

mod admin_rules;
mod agents;
mod audit;
mod audit_files;
mod audit_tail;
mod authority;
mod bad_csr;
mod bad_grpc;
mod bad_tokens;
mod clock;
mod commands;
mod config;
mod disk;
mod distrust;
mod doors;
mod emergency;
mod explain;
mod few_files;
mod files;
mod full_lists;
mod golden;
mod greedy;
mod handed;
mod hello;
mod hybrid;
mod kept_files;
mod limits;
mod links;
mod live_rules;
mod many_pods;
mod mentions;
mod namespaces;
mod notify;
mod outage;
mod places;
mod push;
mod put_back;
mod readiness;
mod readme;
mod renewal;
mod restart;
mod revocation;
mod rotation;
mod shutdown;
mod stories;
mod support;
mod svid;
mod taken;
mod thief;
mod traffic;
mod unread;
mod workload;
