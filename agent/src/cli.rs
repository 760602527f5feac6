//! The command line of `signet-agent`.

mod explain;
mod fetch;
mod layout;
mod local;
mod papers;
mod watch;
mod write;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use signet_runtime::cli::{self, OutputArgs, Program};
use signet_runtime::config::HumanDuration;
use signet_runtime::environment::{AGENT_ADMIN_SOCKET, AGENT_CONFIG, ENDPOINT_SOCKET};

use crate::app::{self, Agent, DRAIN_LIMIT, trials};
use crate::config::{Config, DEFAULT_ADMIN_SOCKET};

const PROGRAM: Program = Program("signet-agent");

/// SPIFFE identities for the workloads of one node.
#[derive(Debug, Parser)]
#[command(name = "signet-agent", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until SIGTERM or SIGINT.
    Run(ConfigArgs),
    /// Check a configuration file, and that what it names can be used on this machine, and exit.
    Validate(ValidateArgs),
    /// Exit 0 if a workload that comes now gets its identity.
    Healthcheck(HealthcheckArgs),
    /// What the running agent is doing.
    Status(AdminArgs),
    /// Why the workload that calls this command has an identity or none: every step from the socket on, and what to do about the
    /// first that fails. Exits 1 where one does, and 2 where there is no answer.
    Explain(ExplainArgs),
    /// Fetch what a workload is given, as the workload that calls this command.
    #[command(subcommand)]
    Fetch(FetchCommand),
    /// Keep an identity as files for a program that reads files, and tell it of each new set.
    Write(Box<write::WriteArgs>),
    /// Tell what is in files of identities, and what is wrong with it.
    Show(papers::ShowArgs),
    /// Whether a leaf verifies against a bundle and its lists, as for a peer: status 0, or 1 with the reason why not.
    Verify(papers::VerifyArgs),
    /// Print each change of what the Workload API gives to whoever calls this command, until Ctrl-C.
    Watch(watch::WatchArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file (YAML).
    #[arg(long, env = AGENT_CONFIG, default_value = "/etc/signet/agent.yaml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct ValidateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    how: cli::TrialArgs,
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// Admin socket of the running agent.
    #[arg(long, env = AGENT_ADMIN_SOCKET, default_value = DEFAULT_ADMIN_SOCKET)]
    admin_socket: PathBuf,
    #[command(flatten)]
    answer: OutputArgs,
}

#[derive(Debug, Args)]
struct HealthcheckArgs {
    /// Ask only whether the sockets serve, as an exec probe does.
    #[arg(long)]
    serving: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// Workload API, for instance unix:///spiffe/spiffe.sock.
    #[arg(long, env = ENDPOINT_SOCKET)]
    socket: Option<String>,
    /// How long to wait for an identity.
    #[arg(long, default_value = "5s")]
    timeout: HumanDuration,
    #[command(flatten)]
    answer: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum FetchCommand {
    /// X.509-SVIDs, trust bundle and revocation lists.
    X509(FetchX509Args),
}

#[derive(Debug, Args)]
struct FetchX509Args {
    /// Workload API, for instance unix:///run/signet-agent/public/api.sock.
    #[arg(long, env = ENDPOINT_SOCKET)]
    socket: String,
    /// Write the default identity into this directory, as `write --once` does. What is opened through DIR/..data, resolved once, fits
    /// together.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    #[command(flatten)]
    layout: layout::LayoutArgs,
    /// How long to wait for an identity.
    #[arg(long, default_value = "30s")]
    timeout: HumanDuration,
    #[command(flatten)]
    answer: OutputArgs,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// The command line itself, for who wants to look at it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs a command line; `args` begins with the program's name. Other binaries that embed the agent call this.
pub fn run_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli: Cli = match PROGRAM.parse(args) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Run(args) => PROGRAM.serve(&args.config, DRAIN_LIMIT, trials, app::build, Agent::run),
        Command::Validate(args) => PROGRAM.validate::<Config>(&args.how, trials, &args.config.config),
        Command::Healthcheck(args) => PROGRAM.ask(
            args.admin.answer.output,
            local::healthcheck(&args.admin.admin_socket, args.serving),
        ),
        Command::Status(args) => PROGRAM.ask(args.answer.output, local::status(&args.admin_socket)),
        Command::Explain(args) => {
            let explained = explain::explain(args.socket.as_deref(), args.timeout.get());
            PROGRAM.judge(args.answer.output, explained)
        }
        Command::Fetch(FetchCommand::X509(args)) => {
            let fetched = fetch::x509(
                &args.socket,
                args.write.as_deref(),
                &args.layout,
                args.timeout.get(),
            );
            PROGRAM.ask(args.answer.output, fetched)
        }
        Command::Write(args) => write::write(PROGRAM, *args),
        Command::Show(args) => PROGRAM.ask(args.answer.output, papers::show(&args)),
        Command::Verify(args) => PROGRAM.judge(args.answer.output, papers::verify(&args)),
        Command::Watch(args) => PROGRAM.run(watch::watch(&args)),
    }
}
