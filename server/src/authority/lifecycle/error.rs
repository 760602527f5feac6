//! Why authorities stand as before.

use signet_certs::authority::{AuthorityId, AuthorityKind};

use crate::authority::journal::JournalError;
use crate::authority::source::SourceError;
use crate::authority::state::Refused;
use crate::key_manager::KeyManagerError;
use crate::store::StoreError;

/// Why a step could not be taken. Whatever it is, the authorities stand as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LifecycleError {
    /// The machine said no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The journal could not be read or written.
    #[error("the authority journal could not be kept")]
    Store(#[from] StoreError),
    /// What the store holds makes no sense.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A key could not be made, sealed or opened.
    #[error("the key of an authority is not usable")]
    Key(#[from] KeyManagerError),
    /// The journal names an authority whose key is gone.
    #[error(
        "no key is stored for {kind} authority {authority}: restore the whole store, and the key-encryption key it was \
         sealed with"
    )]
    MissingKey {
        /// Its kind.
        kind: AuthorityKind,
        /// Which.
        authority: AuthorityId,
    },
    /// Nobody certified a new key.
    #[error("no certificate was made for a new {kind} authority")]
    Source {
        /// Its kind.
        kind: AuthorityKind,
        /// Why.
        source: SourceError,
    },
    /// Whoever makes keys or certificates did not answer.
    #[error(
        "no answer within {seconds} s from {who}: see that it runs and can be reached; what the clock began is tried again by \
         itself, a command has to be given again"
    )]
    NoAnswer {
        /// Who was asked.
        who: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// Nobody has settings for it.
    #[error("this server has no {0} authorities")]
    NoSuchKind(AuthorityKind),
    /// A certificate could not be made or read.
    #[error("the certificate of {kind} authority {authority} is not usable: {problem}")]
    Certificate {
        /// Its kind.
        kind: AuthorityKind,
        /// Which.
        authority: AuthorityId,
        /// Why.
        problem: String,
    },
}
