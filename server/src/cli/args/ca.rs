//! `ca`: commands about authorities.

use clap::{Args, Subcommand, ValueEnum};

use super::AdminArgs;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CaCommand {
    /// List the authorities with their states, what happens next and when, and what is under way.
    Show(AdminArgs),
    /// Print the certificates by which agents recognise this server, PEM, and whom they are never to trust: what their trust.anchors_file holds.
    Anchors(AdminArgs),
    /// Make a successor and let it spread. It takes over when it is asked to, or when its time comes.
    Prepare(PrepareArgs),
    /// The successor takes over. Refused before it has spread.
    Activate(ActivateArgs),
    /// Prepare a new authority, let it spread, activate it. Nothing breaks: the old one stays trusted until its last certificate has expired.
    Rotate(RotateArgs),
    /// A key is stolen: another authority takes over at once, and all before it leave every bundle after authority.emergency_grace, whoever has
    /// reported. Workloads and agents that are connected replace what they have in that time; others are refused until they do.
    Emergency(EmergencyArgs),
    /// What this authority has signed is replaced everywhere, at once. Not of the one that signs: rotate first.
    Taint(TaintArgs),
    /// Take a tainted authority out of every bundle. Refused while certificates of it are in use.
    Revoke(RevokeAuthorityArgs),
    /// Follow one of these until it is done, and tell how it goes on. Begins nothing; one that has ended is told at once.
    Wait(WaitForArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WaitForArgs {
    /// Its id, as it was printed or from `ca show`.
    pub(in crate::cli) operation: String,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

/// Whether a command stays until what it asks for is true everywhere.
#[derive(Debug, Args)]
pub(in crate::cli) struct WaitArgs {
    /// Wait until it is true everywhere, and tell how it goes on. That is what happens anyway.
    #[arg(long, conflicts_with = "no_wait")]
    pub(in crate::cli) wait: bool,
    /// Return as soon as it is recorded. It goes on; `ca wait` with the id that is printed follows it.
    #[arg(long)]
    pub(in crate::cli) no_wait: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PrepareArgs {
    /// Which authority.
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) kind: Kind,
    /// What the new authority's key signs with. Default: authority.algorithm, else as the one before.
    #[arg(long, value_enum)]
    pub(in crate::cli) algorithm: Option<Algorithm>,
    #[command(flatten)]
    pub(in crate::cli) wait: WaitArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ActivateArgs {
    /// Which authority.
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) kind: Kind,
    /// Though agents have not reported the new bundle. Connections may fail until they have.
    #[arg(long)]
    pub(in crate::cli) force: bool,
    #[command(flatten)]
    pub(in crate::cli) wait: WaitArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RotateArgs {
    /// Which authority.
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) kind: Kind,
    /// Activate at once, though agents have not reported the new bundle. Connections may fail until they have.
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// What the new authority's key signs with. Default: authority.algorithm, else as the one before.
    #[arg(long, value_enum)]
    pub(in crate::cli) algorithm: Option<Algorithm>,
    /// Then have everything the old one has signed replaced, and take it out of every bundle once nobody uses it.
    #[arg(long)]
    pub(in crate::cli) retire: bool,
    #[command(flatten)]
    pub(in crate::cli) wait: WaitArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EmergencyArgs {
    /// Whose key: that of workloads' authorities, or that of agents' and servers'.
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) kind: Kind,
    /// What the new authority's key signs with. Default: authority.algorithm, else as the one before.
    #[arg(long, value_enum)]
    pub(in crate::cli) algorithm: Option<Algorithm>,
    #[command(flatten)]
    pub(in crate::cli) wait: WaitArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TaintArgs {
    /// Its id, from `ca show`.
    pub(in crate::cli) authority: String,
    #[command(flatten)]
    pub(in crate::cli) wait: WaitArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RevokeAuthorityArgs {
    /// Its id, from `ca show`.
    pub(in crate::cli) authority: String,
    /// Though certificates of it are in use, or some agents have not said: they are refused until they have others.
    #[arg(long)]
    pub(in crate::cli) force: bool,
    #[command(flatten)]
    pub(in crate::cli) wait: WaitArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// ECDSA on P-384 with SHA-384.
    P384,
}

impl Algorithm {
    /// On the wire.
    pub(in crate::cli) const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(in crate::cli) enum Kind {
    /// Signs workload certificates.
    #[default]
    X509,
    /// Signs agent and server certificates.
    Control,
}

impl Kind {
    /// On the wire.
    pub(in crate::cli) const fn name(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Control => "control",
        }
    }
}
