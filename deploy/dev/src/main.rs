//! `signet-dev`: a whole trust domain on one machine, without Kubernetes and without root.
//!
//! Server and agent run as processes of their own: this program starts itself again in each part, so that
//! `cargo run --bin signet-dev` builds everything it needs. It is the fake Kubernetes API, and plays kubelet's part towards
//! the agent's CSI driver for a few demo pods, which are directories.

mod cli;
mod demo;
mod domain;
mod layout;
mod voice;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
