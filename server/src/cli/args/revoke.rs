//! Revocations and denials.

use clap::Args;
use signet_runtime::config::HumanDuration;

use super::AdminArgs;

#[derive(Debug, Args)]
#[group(id = "target", required = true, multiple = false,
        args = ["serial", "spiffe_id", "prefix", "pod", "node", "issued_by"])]
pub(in crate::cli) struct RevokeArgs {
    /// Serial number, hex: that certificate's key leaked; its holder re-keys at once.
    #[arg(long)]
    pub(in crate::cli) serial: Option<String>,
    /// SPIFFE ID: all its certificates, and none from now on.
    #[arg(long)]
    pub(in crate::cli) spiffe_id: Option<String>,
    /// SPIFFE ID or path: the same of it and of all below it, by whole segments: /ns/shop does not hit /ns/shop-admin.
    #[arg(long)]
    pub(in crate::cli) prefix: Option<String>,
    /// The same of a pod, whatever its identities; by its name also what pods of that name had before. One that comes after it is another pod.
    #[arg(long, value_name = "NAMESPACE/NAME|UID")]
    pub(in crate::cli) pod: Option<String>,
    /// The same of a node: its agent, and all that runs on it now or later.
    #[arg(long, value_name = "NAME|UID")]
    pub(in crate::cli) node: Option<String>,
    /// All that an authority has signed. Nobody is denied by it: holders get others by another authority.
    #[arg(long, value_name = "AUTHORITY-ID")]
    pub(in crate::cli) issued_by: Option<String>,
    /// With --serial: the authority, for a certificate the ledger does not know.
    #[arg(long, requires = "serial")]
    pub(in crate::cli) authority: Option<String>,
    /// With --pod or --node: name or UID of the cluster, where there are several.
    #[arg(long, conflicts_with_all = ["serial", "spiffe_id", "prefix", "issued_by"])]
    pub(in crate::cli) cluster: Option<String>,
    /// unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn.
    #[arg(long, default_value = "unspecified")]
    pub(in crate::cli) reason: String,
    /// Since when its holder is not to be believed, as 2026-11-26T09:00:00Z: invalidityDate on the lists, where such an entry takes the
    /// room of two.
    #[arg(long, value_name = "RFC3339")]
    pub(in crate::cli) invalid_since: Option<String>,
    /// Kept with the denial and in the audit log.
    #[arg(long, default_value = "")]
    pub(in crate::cli) comment: String,
    /// The denial ends by itself after this time, for instance 24h.
    #[arg(long, conflicts_with_all = ["serial", "issued_by"])]
    pub(in crate::cli) expires: Option<HumanDuration>,
    /// Revoke what exists and go on issuing.
    #[arg(long, conflicts_with_all = ["serial", "issued_by"])]
    pub(in crate::cli) keep_issuing: bool,
    /// Allow a target below /signet/ (agents and the server itself), and a pod or node that nobody has heard of.
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Tell what would be revoked and who denied, and change nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Go on until every agent has reported the lists, naming those that have not. Ctrl-C leaves; what is done stays done.
    #[arg(long, conflicts_with = "dry_run")]
    pub(in crate::cli) wait: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BanArgs {
    /// Its SPIFFE ID, or the name or UID of its node.
    #[arg(value_name = "ID|NODE")]
    pub(in crate::cli) agent: String,
    /// As with `revoke`.
    #[arg(long, default_value = "unspecified")]
    pub(in crate::cli) reason: String,
    /// Kept with the denial and in the audit log.
    #[arg(long, default_value = "")]
    pub(in crate::cli) comment: String,
    /// The ban ends by itself after this time, for instance 24h.
    #[arg(long)]
    pub(in crate::cli) expires: Option<HumanDuration>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AllowArgs {
    /// Id of the denial, from `denials`.
    pub(in crate::cli) denial: String,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DenialsArgs {
    /// Lifted and ended ones too.
    #[arg(long)]
    pub(in crate::cli) all: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}
