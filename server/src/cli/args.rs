//! Commands and their options.

mod audit;
mod ca;
mod revoke;
mod rule;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use signet_runtime::{
    cli::{self, OutputArgs},
    environment::{ADMIN_SOCKET, SERVER_CONFIG},
};

pub(super) use self::{
    audit::{AuditCommand, AuditTailArgs, AuditVerifyArgs},
    ca::{Algorithm, CaCommand, WaitArgs},
    revoke::{AllowArgs, BanArgs, DenialsArgs, RevokeArgs},
    rule::{DeleteRuleArgs, RuleCommand, SetRuleArgs, TestRuleArgs},
};

/// SPIFFE identity issuer: the certificate authority of one trust domain.
#[derive(Debug, Parser)]
#[command(name = "signet-server", version, propagate_version = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server until SIGTERM or SIGINT.
    Run(ConfigArgs),
    /// Check a configuration file, and that what it names can be used on this machine, and exit.
    Validate(ValidateArgs),
    /// Exit 0 if a pod that comes now gets a usable certificate.
    Healthcheck(HealthcheckArgs),
    /// What the server is doing.
    Status(AdminArgs),
    /// Certificate authorities.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Issued certificates.
    #[command(subcommand)]
    Svid(SvidCommand),
    /// Revoke a certificate, an identity, a pod, a node, or more; returns once the published lists contain it.
    Revoke(RevokeArgs),
    /// Lift a denial.
    Allow(AllowArgs),
    /// Who is denied: identities, prefixes, pods and nodes.
    Denials(DenialsArgs),
    /// Why a pod gets what it gets, or who could have an identity and what stands in the way. Changes nothing.
    Explain(ExplainArgs),
    /// Certificate revocation lists.
    #[command(subcommand)]
    Crl(CrlCommand),
    /// Rules: who gets which identity.
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Node agents.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// What time the server thinks it is.
    #[command(subcommand)]
    Clock(ClockCommand),
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// Configuration file (YAML).
    #[arg(long, env = SERVER_CONFIG, default_value = "/etc/signet/server.yaml")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    pub(super) how: cli::TrialArgs,
}

#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// Admin socket of the running server.
    #[arg(
        long,
        env = ADMIN_SOCKET,
        default_value = "/run/signet-server/admin.sock"
    )]
    pub(super) admin_socket: PathBuf,
    #[command(flatten)]
    pub(super) answer: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// Ask only whether what the server gives is true, as an exec probe does.
    #[arg(long)]
    pub(super) serving: bool,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum SvidCommand {
    /// List issued certificates, newest first.
    List(SvidListArgs),
}

#[derive(Debug, Args)]
pub(super) struct SvidListArgs {
    /// SPIFFE ID or prefix of whole segments: /ns/shop does not match /ns/shop-admin.
    #[arg(long)]
    pub(super) id: Option<String>,
    /// namespace/name or UID.
    #[arg(long)]
    pub(super) pod: Option<String>,
    /// Node name or UID.
    #[arg(long)]
    pub(super) node: Option<String>,
    /// Only certificates that are neither expired nor revoked.
    #[arg(long)]
    pub(super) live: bool,
    /// At most this many (up to 10000).
    #[arg(long, default_value_t = 1000)]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Debug, Args)]
#[group(id = "about", required = true, multiple = false, args = ["pod", "spiffe_id"])]
pub(super) struct ExplainArgs {
    /// The pod, as its cluster has it now.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(super) pod: Option<String>,
    /// A SPIFFE ID, or its path.
    #[arg(long)]
    pub(super) spiffe_id: Option<String>,
    /// With --pod: the cluster, where there are several.
    #[arg(long, requires = "pod")]
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum CrlCommand {
    /// The lists as they are published now.
    Show(AdminArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Agents that have attested.
    List(AdminArgs),
    /// Shut an agent out: its certificates are revoked, and it is given no other until `allow` lifts that.
    Ban(BanArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum ClockCommand {
    /// How the machine's clock, elapsed time and the API servers' clocks stand to each other.
    Show(AdminArgs),
    /// Say that the machine's clock is right, where no second clock does. Ends this one disagreement.
    Confirm(ConfirmClockArgs),
}

#[derive(Debug, Args)]
pub(super) struct ConfirmClockArgs {
    /// The time now by another clock, as 2026-11-26T09:00:00Z.
    pub(super) time: String,
    /// Though the API servers tell another time: theirs is wrong.
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}
