//! `signet-bench`: measures a real server process under load, and the cryptographic limit of the same machine.
//!
//! A program, never a timed test: its figures depend on the machine. One JSON object on standard output.

mod domain;
mod issue;
mod limit;
mod report;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};
use signet_runtime::cli::{Answer, OutputArgs, Program};

const PROGRAM: Program = Program("signet-bench");

/// First argument by which this program starts itself as the server.
pub(crate) const AS_SERVER: &str = "--as-signet-server";

/// Benchmarks of Signet.
#[derive(Debug, Parser)]
#[command(name = "signet-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Certificates per second, 64 and 1 a request, against one CSR verified and one certificate signed on all cores.
    Issue(IssueArgs),
}

#[derive(Debug, clap::Args)]
struct IssueArgs {
    #[command(flatten)]
    answer: OutputArgs,
    /// Chooses which pod each request is for.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of each of the three measurements.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Requests of 64 certificates under way at once.
    #[arg(long, default_value_t = 8)]
    batches: usize,
    /// Requests of one certificate under way at once.
    #[arg(long, default_value_t = 64)]
    singles: usize,
}

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == AS_SERVER) {
        args.remove(1);
        return signet_server::cli::run_with(args);
    }
    match PROGRAM.parse(args) {
        Ok(Cli {
            command: Command::Issue(args),
        }) => PROGRAM.ask(args.answer.output, issue(&args)),
        Err(code) => code,
    }
}

async fn issue(args: &IssueArgs) -> anyhow::Result<Answer> {
    let report = issue::measure(args).await?;
    Ok(Answer::new(report.json(), report.table()))
}
