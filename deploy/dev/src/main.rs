//! `signet-dev`: a whole trust domain on one machine, without Kubernetes and without root.
//!
//! Server, agent and a fake Kubernetes API run as processes of their own: this program starts itself again in each role,
//! so that `cargo run --bin signet-dev` builds everything it needs. It plays kubelet's part towards the agent's CSI
//! driver for a few demo pods, which are directories.

mod child;
mod cli;
mod configs;
mod demo;
mod domain;
mod kube;
mod layout;
mod names;
mod pods;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
