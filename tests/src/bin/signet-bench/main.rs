//! `signet-bench`: measures a real server process under load, and the cryptographic limit of the same machine.
//!
//! A program, never a timed test: its figures depend on the machine. One JSON object on standard output.

mod domain;
mod fleet;
mod issue;
mod limit;
mod process;
mod report;
mod streams;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use signet_runtime::cli::{Answer, OutputArgs, Program};
use signet_tests::part;

const PROGRAM: Program = Program("signet-bench");

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
    /// One revocation pushed to a fleet of simulated agents: the server's CPU time, when nearly all have it, its memory.
    Fleet(FleetArgs),
    /// Idle streams on the workload sockets of one agent: the memory of each, and when a new list is with all of them.
    Streams(StreamsArgs),
}

#[derive(Debug, clap::Args)]
struct StreamsArgs {
    #[command(flatten)]
    answer: OutputArgs,
    /// Streams over the sockets of 20 pods, half of the Workload API and half of Envoy's secret discovery.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
}

#[derive(Debug, clap::Args)]
struct FleetArgs {
    #[command(flatten)]
    answer: OutputArgs,
    /// Agents that are connected.
    #[arg(long, default_value_t = 5_000)]
    agents: usize,
    /// Certificates on the list whose memory is measured, which are revoked by their identity; each takes 53 bytes. Identities have
    /// three quarters of the room for lists.
    #[arg(long, default_value_t = 42_000)]
    listed: usize,
}

#[derive(Debug, clap::Args)]
struct IssueArgs {
    #[command(flatten)]
    answer: OutputArgs,
    /// Chooses which pod each request is for.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of each of the three measurements, which take turns in slices.
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
    if let Some(code) = part::play() {
        return code;
    }
    match PROGRAM.parse(std::env::args_os()) {
        Ok(Cli {
            command: Command::Issue(args),
        }) => PROGRAM.ask(args.answer.output, issue(&args)),
        Ok(Cli {
            command: Command::Fleet(args),
        }) => PROGRAM.ask(args.answer.output, fleet::measure(&args)),
        Ok(Cli {
            command: Command::Streams(args),
        }) => PROGRAM.ask(args.answer.output, streams::measure(&args)),
        Err(code) => code,
    }
}

async fn issue(args: &IssueArgs) -> anyhow::Result<Answer> {
    let report = issue::measure(args).await?;
    Ok(Answer::new(report.json(), report.table()))
}
