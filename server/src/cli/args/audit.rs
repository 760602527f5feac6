//! Commands on the audit log.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::AdminArgs;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// Check files of the log: whether lines were removed, changed or moved, or the end cut off. Exits 0 when it is whole, 1 when it
    /// is not, and 2 when it cannot be read.
    Verify(AuditVerifyArgs),
    /// Print the last lines of the log as they were emitted, one a line; with --follow also those that come.
    Tail(AuditTailArgs),
    /// Print the key by which the log is verified, PEM.
    Key(AdminArgs),
    /// Print the newest signed head, one line. Kept elsewhere and given to `verify` as a file, it shows an end that was cut off.
    Head(AdminArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditVerifyArgs {
    /// Files of the log, rotated ones too, in any order.
    #[arg(required = true, value_name = "FILE")]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// Only heads signed by this key count: the output of `audit key`, kept where the log cannot be changed. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) key: Vec<PathBuf>,
    /// Only heads signed by a key of this id count: hex of the SHA-256 of its SPKI. May be repeated.
    #[arg(long, value_name = "HEX")]
    pub(in crate::cli) key_id: Vec<String>,
    /// Ask the running server for its key, and how far its log must reach.
    #[arg(long)]
    pub(in crate::cli) server: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditTailArgs {
    /// Go on with the lines that come, until Ctrl-C.
    #[arg(long, short)]
    pub(in crate::cli) follow: bool,
    /// So many of the lines before, up to 10000: those that are in memory, and before them those in the files of the log.
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 10)]
    pub(in crate::cli) last: u32,
    /// Only lines about this SPIFFE ID, or its path: issued to it, asked by it, revoked by its name or by a prefix that
    /// covers it.
    #[arg(long)]
    pub(in crate::cli) spiffe_id: Option<String>,
    /// Only lines about this pod.
    #[arg(long, value_name = "NAMESPACE/NAME|UID")]
    pub(in crate::cli) pod: Option<String>,
    /// Only lines about the certificate of this serial number, hex.
    #[arg(long)]
    pub(in crate::cli) serial: Option<String>,
    /// Only what this one ordered: uid:0, timer, source, start.
    #[arg(long)]
    pub(in crate::cli) author: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}
