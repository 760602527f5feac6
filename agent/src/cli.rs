//! The command line of `signet-agent`.

mod fetch;
mod files;
mod local;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use signet_runtime::config::{HumanDuration, load_valid, validate};
use signet_runtime::drain::Drain;
use signet_runtime::signal::shutdown_signal;
use signet_runtime::{exit, limits};

use crate::app;
use crate::config::{Config, DEFAULT_ADMIN_SOCKET};

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
    /// Check a configuration file and exit.
    Validate(ValidateArgs),
    /// Exit 0 if the running agent is ready (for exec probes).
    Healthcheck(AdminArgs),
    /// What the running agent is doing.
    Status(AdminArgs),
    /// Fetch what a workload is given, as the workload that calls this command.
    #[command(subcommand)]
    Fetch(FetchCommand),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file (YAML).
    #[arg(long, env = "SIGNET_AGENT_CONFIG", default_value = "/etc/signet/agent.yaml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct ValidateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Lines for people or one JSON object for programs.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// Admin socket of the running agent.
    #[arg(long, env = "SIGNET_AGENT_ADMIN_SOCKET", default_value = DEFAULT_ADMIN_SOCKET)]
    admin_socket: PathBuf,
    /// Tables for people or one JSON object for programs.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum FetchCommand {
    /// X.509-SVIDs, trust bundle and revocation lists.
    X509(FetchX509Args),
}

#[derive(Debug, Args)]
struct FetchX509Args {
    /// Workload API, for instance unix:///run/signet-agent/public/api.sock.
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET")]
    socket: String,
    /// Write svid.pem, svid_key.pem (mode 0600), bundle.pem and crl.pem of the default identity into this directory.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// How long to wait for an identity.
    #[arg(long, default_value = "30s")]
    timeout: HumanDuration,
    /// Tables for people or one JSON object for programs.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// What a command prints.
struct Answer {
    /// For programs.
    json: serde_json::Value,
    /// For people, with a line end.
    text: String,
    /// The command fails after printing.
    problem: Option<String>,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// Runs a command line; `args` begins with the program's name. Other binaries that embed the agent call this.
pub fn run_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A failed write to a closed terminal leaves nothing better to do.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    match cli.command {
        Command::Run(args) => run(&args.config),
        Command::Validate(args) => check(&args),
        Command::Healthcheck(args) => print(args.output, block_on(local::healthcheck(&args.admin_socket))),
        Command::Status(args) => print(args.output, block_on(local::status(&args.admin_socket))),
        Command::Fetch(FetchCommand::X509(args)) => {
            let fetched = fetch::x509(&args.socket, args.write.as_deref(), args.timeout.get());
            print(args.output, block_on(fetched))
        }
    }
}

fn run(path: &Path) -> ExitCode {
    let (config, warnings) = match load_valid::<Config>(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("signet-agent: {error}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    let logging = signet_runtime::telemetry::init_logging(config.log.format);
    for warning in warnings {
        tracing::warn!(%warning, "configuration");
    }
    let (raised, forbidden) = (limits::raise_open_files(), limits::forbid_core_files());
    if let Err(error) = raised.and(forbidden) {
        tracing::warn!(%error, "the limits of this process stay as they are");
    }
    let result = logging.map_err(Into::into).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let result = runtime.block_on(run_until_signal(path, config));
        // A blocked thread must not hold up the exit that was asked for.
        runtime.shutdown_timeout(Duration::from_secs(2));
        result
    });
    finish(result)
}

async fn run_until_signal(path: &Path, config: Config) -> anyhow::Result<()> {
    let signal = shutdown_signal();
    let agent = app::build(config)
        .await
        .with_context(|| path.display().to_string())?;
    let drain = Drain::new();
    let stop = drain.clone();
    let watching = tokio::spawn(async move {
        let signal = signal.await;
        tracing::info!(signal, "ending");
        stop.start();
    });
    let result = agent.run(drain).await;
    watching.abort();
    result
}

fn check(args: &ValidateArgs) -> ExitCode {
    let report = validate::<Config>(&args.config.config);
    match args.output {
        Output::Json => println!("{}", report.to_json()),
        Output::Table if report.is_ok() => print!("{report}"),
        Output::Table => eprint!("{report}"),
    }
    ExitCode::from(report.exit_code())
}

fn block_on(work: impl Future<Output = anyhow::Result<Answer>>) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

fn print(output: Output, answer: anyhow::Result<Answer>) -> ExitCode {
    finish(answer.and_then(|answer| {
        match output {
            Output::Table => print!("{}", answer.text),
            Output::Json => println!("{:#}", answer.json),
        }
        answer
            .problem
            .map_or(Ok(()), |problem| Err(anyhow::anyhow!(problem)))
    }))
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signet-agent: {error:#}");
            ExitCode::from(exit::FAILURE)
        }
    }
}
