//! One authority's list: what is known of it, and the next one.

use std::time::{Duration, SystemTime};

use signet_certs::authority::X509Authority;
use signet_certs::crl::{Crl, CrlError, CrlNumber, RevokedEntry, sign_crl};
use tokio::time::Instant;

use super::plan;
use crate::authority::ViewedAuthority;
use crate::store::StoreError;

/// A list of more entries is signed off the async threads.
const LARGE: usize = 2000;

/// Why something is not published. What was published before stays.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("a list could not be signed, or did not pass its check")]
    Crl(#[from] CrlError),
    #[error("the list would have {entries} entries and more than {limit} bytes: rotate the authority")]
    TooLarge { entries: usize, limit: usize },
    #[error("the signing thread stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

/// What is known of one authority's list.
#[derive(Default)]
pub(super) struct List {
    pub(super) crl: Option<Crl>,
    pub(super) number: Option<CrlNumber>,
    pub(super) revision: u64,
    /// When the revoked set was last read; not yet in this process means that revocations may be waiting.
    pub(super) checked: Option<Instant>,
}

impl List {
    /// Whether it was compared with the store less than `age` ago, and revocation number `wanted` was then there.
    pub(super) fn is_checked(&self, wanted: u64, age: Duration) -> bool {
        let recent = self.checked.is_some_and(|checked| checked.elapsed() < age);
        recent && self.revision >= wanted
    }
}

/// A list about to be signed.
pub(super) struct Draft {
    entries: Vec<RevokedEntry>,
    pub(super) number: CrlNumber,
    this_update: SystemTime,
    next_update: SystemTime,
}

impl Draft {
    /// Neither `thisUpdate` (CRL-28) nor `nextUpdate` (CRL-07) ever goes back.
    pub(super) fn new(
        viewed: &ViewedAuthority,
        list: &List,
        entries: Vec<RevokedEntry>,
        clock_skew: Duration,
        now: SystemTime,
    ) -> Self {
        let backdated = now.checked_sub(clock_skew).unwrap_or(SystemTime::UNIX_EPOCH);
        let older = list.crl.as_ref();
        let this_update = older.map_or(backdated, |older| older.this_update().max(backdated));
        let end = now + plan::crl_life(viewed.longest_leaf_ttl);
        Self {
            entries: plan::dated(entries, clock_skew, this_update),
            number: CrlNumber::next(list.number, now),
            this_update,
            next_update: older.map_or(end, |older| older.next_update().max(end)),
        }
    }

    pub(super) async fn sign(self, authority: X509Authority) -> Result<Crl, PublishError> {
        let large = self.entries.len() > LARGE;
        let sign = move || {
            sign_crl(
                &authority,
                &self.entries,
                self.number,
                self.this_update,
                self.next_update,
            )
        };
        let signed = if large {
            tokio::task::spawn_blocking(sign).await?
        } else {
            sign()
        };
        Ok(signed?)
    }
}
