//! The command line of `signet-server`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use signet_runtime::{exit, limits};

use crate::{
    app,
    client::{AdminClient, Answer},
    config::Config,
};

/// SPIFFE identity issuer: the certificate authority of one trust domain.
#[derive(Debug, Parser)]
#[command(name = "signet-server", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until SIGTERM or SIGINT.
    Run(ConfigArgs),
    /// Check a configuration file and exit.
    Validate(ConfigArgs),
    /// Exit 0 if the running server is ready (for exec probes).
    Healthcheck(AdminArgs),
    /// What the server is doing.
    Status(AdminArgs),
    /// Certificate authorities.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Issued certificates.
    #[command(subcommand)]
    Svid(SvidCommand),
    /// Revoke a certificate or an identity; returns once the published list contains it.
    Revoke(RevokeArgs),
    /// Lift a denial.
    Allow(AllowArgs),
    /// Identities that are denied.
    Denials(DenialsArgs),
    /// Certificate revocation lists.
    #[command(subcommand)]
    Crl(CrlCommand),
    /// Node agents.
    #[command(subcommand)]
    Agent(AgentCommand),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file (YAML).
    #[arg(long, env = "SIGNET_SERVER_CONFIG", default_value = "/etc/signet/server.yaml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// Admin socket of the running server.
    #[arg(
        long,
        env = "SIGNET_ADMIN_SOCKET",
        default_value = "/run/signet-server/admin.sock"
    )]
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
enum CaCommand {
    /// List the authorities with their states.
    Show(AdminArgs),
    /// Prepare a new authority, let it spread, activate it. Nothing breaks: the old one stays trusted until its last certificate has expired.
    Rotate(RotateArgs),
}

#[derive(Debug, Args)]
struct RotateArgs {
    /// Which authority.
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// Activate at once, though agents have not reported the new bundle. Connections may fail until they have.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Kind {
    /// Signs workload certificates.
    #[default]
    X509,
    /// Signs agent and server certificates.
    Control,
}

#[derive(Debug, Subcommand)]
enum SvidCommand {
    /// List issued certificates, newest first.
    List(SvidListArgs),
}

#[derive(Debug, Args)]
struct SvidListArgs {
    /// SPIFFE ID or prefix of whole segments: /ns/shop does not match /ns/shop-admin.
    #[arg(long)]
    id: Option<String>,
    /// namespace/name or UID.
    #[arg(long)]
    pod: Option<String>,
    /// Node name or UID.
    #[arg(long)]
    node: Option<String>,
    /// Only certificates that are neither expired nor revoked.
    #[arg(long)]
    live: bool,
    /// At most this many (up to 10000).
    #[arg(long, default_value_t = 1000)]
    limit: u32,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
#[group(id = "target", required = true, multiple = false, args = ["serial", "spiffe_id"])]
struct RevokeArgs {
    /// Serial number, hex: that certificate's key leaked; its holder re-keys at once.
    #[arg(long)]
    serial: Option<String>,
    /// SPIFFE ID: all its certificates, and none from now on.
    #[arg(long)]
    spiffe_id: Option<String>,
    /// With --serial: the authority, for a certificate the ledger does not know.
    #[arg(long, requires = "serial")]
    authority: Option<String>,
    /// unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn.
    #[arg(long, default_value = "unspecified")]
    reason: String,
    /// Kept with the denial and in the audit log.
    #[arg(long, default_value = "")]
    comment: String,
    /// The denial ends by itself after this time, for instance 24h.
    #[arg(long, conflicts_with = "serial")]
    expires: Option<signet_runtime::config::HumanDuration>,
    /// Revoke what exists and go on issuing.
    #[arg(long, conflicts_with = "serial")]
    keep_issuing: bool,
    /// Allow a target below /signet/ (agents and the server itself).
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct AllowArgs {
    /// Id of the denial, from `denials`.
    denial: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct DenialsArgs {
    /// Lifted and ended ones too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum CrlCommand {
    /// The lists as they are published now.
    Show(AdminArgs),
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Agents that have attested.
    List(AdminArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// Runs a command line; `args` begins with the program's name. Other binaries that embed the server call this.
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
        Command::Run(args) => with_config(&args.config, |config| {
            finish(
                signet_runtime::telemetry::init_logging(config.raw.log.format)
                    .map_err(Into::into)
                    .and_then(|()| {
                        let (raised, forbidden) = (limits::raise_open_files(), limits::forbid_core_files());
                        if let Err(error) = raised.and(forbidden) {
                            tracing::warn!(%error, "the limits of this process stay as they are");
                        }
                        let runtime = runtime()?;
                        let result = runtime.block_on(app::run(config));
                        // A blocked thread must not hold up the exit that was asked for.
                        runtime.shutdown_timeout(Duration::from_secs(2));
                        result
                    }),
            )
        }),
        Command::Validate(args) => with_config(&args.config, |_| {
            println!("{}: ok", args.config.display());
            ExitCode::SUCCESS
        }),
        command => finish(runtime().and_then(|runtime| runtime.block_on(admin(command)))),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn with_config(path: &Path, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::load(path) {
        Ok(config) => then(config),
        Err(error) => {
            eprintln!("signet-server: {error:#}");
            ExitCode::from(exit::CONFIG)
        }
    }
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signet-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn admin(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(_) | Command::Validate(_) => Ok(()),
        Command::Healthcheck(args) => {
            AdminClient::connect(&args.admin_socket)
                .await?
                .healthcheck()
                .await
        }
        Command::Status(args) => show(
            &args,
            AdminClient::connect(&args.admin_socket).await?.status().await?,
        ),
        Command::Ca(CaCommand::Show(args)) => show(
            &args,
            AdminClient::connect(&args.admin_socket)
                .await?
                .authorities()
                .await?,
        ),
        Command::Ca(CaCommand::Rotate(args)) => rotate(&args).await,
        Command::Svid(SvidCommand::List(args)) => {
            let mut client = AdminClient::connect(&args.admin.admin_socket).await?;
            let answer = client
                .svids(args.id, args.pod, args.node, args.live, args.limit)
                .await?;
            show(&args.admin, answer)
        }
        Command::Revoke(args) => revoke(args).await,
        Command::Allow(args) => {
            let mut client = AdminClient::connect(&args.admin.admin_socket).await?;
            show(&args.admin, client.allow(args.denial).await?)
        }
        Command::Denials(args) => {
            let mut client = AdminClient::connect(&args.admin.admin_socket).await?;
            show(&args.admin, client.denials(args.all).await?)
        }
        Command::Crl(CrlCommand::Show(args)) => show(
            &args,
            AdminClient::connect(&args.admin_socket).await?.crls().await?,
        ),
        Command::Agent(AgentCommand::List(args)) => show(
            &args,
            AdminClient::connect(&args.admin_socket).await?.agents().await?,
        ),
    }
}

async fn rotate(args: &RotateArgs) -> anyhow::Result<()> {
    let kind = match args.kind {
        Kind::X509 => "x509",
        Kind::Control => "control",
    };
    let mut client = AdminClient::connect(&args.admin.admin_socket).await?;
    // Progress goes to standard error, so that standard output stays one object.
    let answer = client
        .rotate(kind, args.force, |line| eprintln!("{line}"))
        .await?;
    show(&args.admin, answer)
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let mut client = AdminClient::connect(&args.admin.admin_socket).await?;
    let answer = client
        .revoke(crate::client::Revoke {
            serial: args.serial,
            spiffe_id: args.spiffe_id,
            authority: args.authority,
            reason: args.reason,
            comment: args.comment,
            expires: args.expires.map(|expires| expires.get()),
            keep_issuing: args.keep_issuing,
            force: args.force,
        })
        .await?;
    let not_published = answer.problem.clone();
    show(&args.admin, answer)?;
    not_published.map_or(Ok(()), |problem| {
        Err(anyhow::anyhow!("recorded, not yet published: {problem}"))
    })
}

fn show(args: &AdminArgs, answer: Answer) -> anyhow::Result<()> {
    match args.output {
        Output::Table => print!("{}", answer.text),
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer.json)?),
    }
    Ok(())
}
