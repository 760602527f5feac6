//! What can go wrong, as far as callers branch on it.

use std::path::PathBuf;

use signet_certs::authority::AuthorityId;
use signet_certs::dates::OutsideDates;

/// Why a method of [`Store`](super::Store) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// Disk full, I/O error, shutting down. Nothing was acknowledged; the same call may be made again.
    #[error("the store is unavailable: {message}; the request can be repeated")]
    Unavailable {
        /// The cause, for the log.
        message: String,
    },
    /// The stored data cannot be understood. Needs a person.
    #[error("the store is damaged: {message}; stop the server and restore a backup")]
    Corrupt {
        /// What could not be read.
        message: String,
    },
    /// A compare-and-swap lost: load again and decide anew.
    #[error("the journal is at revision {stored}, not {expected}: somebody else has written it")]
    Conflict {
        /// The revision the caller had loaded.
        expected: u64,
        /// The revision that is stored.
        stored: u64,
    },
    /// A CRL that is not newer than the stored one.
    #[error("CRL of authority {authority} not stored: its {what} is {offered}, the stored one has {stored}")]
    NotNewer {
        /// Whose CRL.
        authority: AuthorityId,
        /// What did not grow: number or revision.
        what: &'static str,
        /// As stored.
        stored: u64,
        /// As offered.
        offered: u64,
    },
    /// There is no such thing.
    #[error("no {what} {id} in the store")]
    NotFound {
        /// What was asked for.
        what: &'static str,
        /// The id asked for.
        id: String,
    },
    /// The caller broke a bound.
    #[error("request refused by the store: {message}")]
    Invalid {
        /// Which one.
        message: String,
    },
}

/// Why [`Revocations::revoke`](super::Revocations::revoke) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RevokeError {
    /// The ledger lacks the serial and the request names no authority.
    #[error("no certificate with that serial is recorded; name its authority to revoke it all the same")]
    UnknownSerial,
    /// The request names an authority that this server never had.
    #[error("authority {0} never belonged to this server")]
    UnknownAuthority(AuthorityId),
    /// Nothing to revoke any more.
    #[error("that certificate {0}: there is nothing to revoke")]
    Expired(OutsideDates),
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store could not be opened. All are fatal at start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another process has it open.
    #[error(
        "the store {path} is in use by another process; stop that server, or give this one another data directory"
    )]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// A file or directory cannot be made or opened.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Everybody on the host may write to the directory.
    #[error("the data directory {path} is writable by everybody; run `chmod o-w {path}`")]
    Exposed {
        /// The directory.
        path: PathBuf,
    },
    /// The store belongs to another trust domain.
    #[error(
        "the store {path} belongs to trust domain {stored}, but {configured} is configured; a renamed trust domain needs a new data directory"
    )]
    WrongTrustDomain {
        /// The store.
        path: PathBuf,
        /// Its trust domain.
        stored: String,
        /// The configured one.
        configured: String,
    },
    /// A newer release has written it.
    #[error(
        "the store {path} has schema version {found}, this release knows {known}; run the newer release again"
    )]
    NewerSchema {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest this build understands.
        known: i64,
    },
    /// The disk is full.
    #[error(
        "{cause}: the disk of {dir} is full. Free at least {missing} bytes there and start again: nothing that was acknowledged is lost"
    )]
    DiskFull {
        /// The data directory.
        dir: PathBuf,
        /// What is missing for the store to recover its log and write.
        missing: u64,
        /// What could not be done.
        cause: Box<Self>,
    },
    /// The disk cannot be written to.
    #[error(
        "{cause}: the disk of {dir} is read only, and the server records every certificate before it is signed. Mount it for writing, \
         or set `data_dir` to a folder that can be written"
    )]
    ReadOnly {
        /// The data directory.
        dir: PathBuf,
        /// What could not be done.
        cause: Box<Self>,
    },
    /// The database refuses.
    #[error("cannot open the store {path}: {message}")]
    Database {
        /// The store.
        path: PathBuf,
        /// What the database says.
        message: String,
    },
}
