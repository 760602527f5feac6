//! One authority's list: what is known of it, and the next one.

use std::time::{Duration, SystemTime};

use signet_certs::authority::X509Authority;
use signet_certs::crl::{Crl, CrlError, CrlNumber, RevokedEntry, sign_crl};
use tokio::time::Instant;

use super::plan;
use crate::authority::ViewedAuthority;
use crate::clock::Time;
use crate::key_manager::{Stopped, off_thread};
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
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What is known of one authority's list.
#[derive(Default)]
pub(super) struct List {
    pub(super) crl: Option<Crl>,
    pub(super) number: Option<CrlNumber>,
    pub(super) revision: u64,
    /// The next list has to have a higher number than this.
    pub(super) floor: Option<CrlNumber>,
    /// When the revoked set was last read; not yet in this process means that revocations may be waiting.
    pub(super) checked: Option<Instant>,
}

impl List {
    /// Whether it was compared with the store less than `age` ago, and revocation number `wanted` was then there.
    pub(super) fn is_checked(&self, wanted: u64, age: Duration) -> bool {
        let recent = self.checked.is_some_and(|checked| checked.elapsed() < age);
        recent && self.revision >= wanted
    }

    /// Whether readers hold a list that this one does not replace.
    pub(super) fn is_behind(&self) -> bool {
        self.floor.is_some_and(|floor| self.number <= Some(floor))
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
    /// Neither `thisUpdate` (CRL-28) nor `nextUpdate` (CRL-07) goes back, but from a list that was dated by a clock far
    /// ahead: nobody who knows the time has taken that one. While the time is not known, what changed is listed at once under
    /// the dates of the list before it. A reader's rule against rollback is not applied to what we sign ourselves: a number
    /// grows by one, and that is all.
    pub(super) fn new(
        viewed: &ViewedAuthority,
        list: &List,
        entries: Vec<RevokedEntry>,
        clock_skew: Duration,
        time: Time,
    ) -> Self {
        let now = time.now;
        let begin = now.checked_sub(clock_skew).unwrap_or(SystemTime::UNIX_EPOCH);
        let end = now + plan::crl_life(viewed.longest_leaf_ttl);
        let older = list.crl.as_ref().filter(|crl| !plan::is_of_the_future(crl, now));
        let (this_update, next_update) = match (time.adding(), list.crl.as_ref()) {
            (Err(_), Some(before)) => (before.this_update(), before.next_update()),
            _ => (
                older.map_or(begin, |older| older.this_update().max(begin)),
                older.map_or(end, |older| older.next_update().max(end)),
            ),
        };
        Self {
            entries: plan::dated(entries, clock_skew, this_update),
            number: CrlNumber::next(list.number.max(list.floor)),
            this_update,
            next_update,
        }
    }

    pub(super) async fn sign(self, authority: X509Authority) -> Result<Crl, PublishError> {
        let large = self.entries.len() > LARGE;
        let signer = authority.signer().clone();
        let sign = move || {
            sign_crl(
                &authority,
                &self.entries,
                self.number,
                self.this_update,
                self.next_update,
            )
        };
        Ok(off_thread(signer.as_ref(), large, sign).await??)
    }
}
