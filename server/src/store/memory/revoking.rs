//! Revocations, denials, and what a list has to name.

use std::collections::BTreeSet;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::crl::{RevocationReason, RevokedEntry};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::kept::{Kept, Revocation};
use crate::audit_event::RevokedSerial;
use crate::store::{
    Denial, RevokeError, RevokeRequest, RevokeTarget, Revoked, RevokedSet, RevokedSvid, StoreError,
};

/// What shall be on a list.
struct Entry {
    svid: RevokedSvid,
    not_after: Option<SystemTime>,
}

impl Kept {
    pub(super) fn revoke(&mut self, request: &RevokeRequest, epoch: u64) -> Result<Revoked, RevokeError> {
        request.check()?;
        let entries = self.entries(request)?;
        let (fresh, known): (Vec<Entry>, Vec<Entry>) = entries
            .into_iter()
            .partition(|entry| !self.revocations.contains_key(&key(&entry.svid)));
        self.check_room(request, &fresh)?;
        self.record(request, &fresh);
        let (denial, is_new) = self.deny(request, epoch);
        if !fresh.is_empty() || is_new {
            let serial = |entry: &Entry| RevokedSerial {
                authority: entry.svid.authority,
                serial: entry.svid.serial,
            };
            let serials: Vec<_> = fresh.iter().map(serial).collect();
            self.audit(request.audit_events(&serials, denial.as_ref().filter(|_| is_new)));
        }
        let mut svids: Vec<_> = fresh.into_iter().chain(known).map(|entry| entry.svid).collect();
        svids.sort_by_key(|svid| svid.serial);
        Ok(Revoked {
            svids,
            denial,
            revision: self.revision,
        })
    }

    fn entries(&self, request: &RevokeRequest) -> Result<Vec<Entry>, RevokeError> {
        match &request.target {
            RevokeTarget::SpiffeId(id) => Ok(self.of_id(id, request.now)),
            RevokeTarget::Serial {
                serial,
                authority,
                expires_by,
            } => {
                let entry = self.of_serial(*serial, *authority, *expires_by, request.now)?;
                Ok(vec![entry])
            }
        }
    }

    fn of_id(&self, id: &SpiffeId, now: SystemTime) -> Vec<Entry> {
        self.rows
            .iter()
            .filter(|row| row.workload.spiffe_id == *id && row.not_after > now)
            .map(|row| Entry {
                svid: RevokedSvid {
                    serial: row.serial,
                    authority: row.authority,
                    spiffe_id: Some(id.clone()),
                },
                not_after: Some(row.not_after),
            })
            .collect()
    }

    fn of_serial(
        &self,
        serial: SerialNumber,
        authority: Option<AuthorityId>,
        expires_by: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<Entry, RevokeError> {
        if let Some(unknown) = authority.filter(|named| !self.authorities.contains(named)) {
            return Err(RevokeError::UnknownAuthority(unknown));
        }
        let found = self.rows.iter().find(|row| row.serial == serial);
        if let Some(row) = found.filter(|row| authority.is_none_or(|named| named == row.authority)) {
            if row.not_after <= now {
                return Err(RevokeError::Expired(row.not_after));
            }
            return Ok(Entry {
                svid: RevokedSvid {
                    serial,
                    authority: row.authority,
                    spiffe_id: Some(row.workload.spiffe_id.clone()),
                },
                not_after: Some(row.not_after),
            });
        }
        Ok(Entry {
            svid: RevokedSvid {
                serial,
                authority: authority.ok_or(RevokeError::UnknownSerial)?,
                spiffe_id: None,
            },
            not_after: expires_by,
        })
    }

    fn check_room(&self, request: &RevokeRequest, fresh: &[Entry]) -> Result<(), RevokeError> {
        let authorities: BTreeSet<_> = fresh.iter().map(|entry| entry.svid.authority).collect();
        for authority in authorities {
            let listed = self.unlisted(authority).count();
            let added = fresh.iter().filter(|entry| entry.svid.authority == authority);
            request.check_room(authority, listed + added.count())?;
        }
        Ok(())
    }

    fn record(&mut self, request: &RevokeRequest, fresh: &[Entry]) {
        if fresh.is_empty() {
            return;
        }
        self.revision += 1;
        for entry in fresh {
            let revocation = Revocation {
                revoked_at: request.now,
                reason: request.reason,
                not_after: entry.not_after,
                revision: self.revision,
                listed: false,
            };
            self.revocations.insert(key(&entry.svid), revocation);
        }
    }

    /// See [`MemoryStore::revoke_all`](super::MemoryStore::revoke_all).
    pub(super) fn revoke_all(
        &mut self,
        authority: AuthorityId,
        serials: impl IntoIterator<Item = SerialNumber>,
        now: SystemTime,
    ) -> u64 {
        self.revision += 1;
        for serial in serials {
            let revocation = Revocation {
                revoked_at: now,
                reason: RevocationReason::Superseded,
                not_after: None,
                revision: self.revision,
                listed: false,
            };
            self.revocations.insert((authority, serial), revocation);
        }
        self.revision
    }

    /// The denial that follows from the request, and whether it is new. One in force that lasts as long is enough.
    fn deny(&mut self, request: &RevokeRequest, epoch: u64) -> (Option<Denial>, bool) {
        let Some(id) = request.denies() else {
            return (None, false);
        };
        if let Some(denial) = self.denials_of(id).find(|denial| denial.satisfies(request)) {
            return (Some(denial.clone()), false);
        }
        let number = self.denials.keys().next_back().map_or(1, |last| last + 1);
        let denial = Denial::ordered(request, id, epoch, number);
        self.denials.insert(number, denial.clone());
        (Some(denial), true)
    }

    pub(super) fn allow(&mut self, id: &str, by: &str, now: SystemTime) -> Result<Denial, StoreError> {
        let missing = || StoreError::NotFound {
            what: "denial",
            id: id.to_owned(),
        };
        let mut denials = self.denials.values_mut();
        let denial = denials.find(|denial| denial.id == id).ok_or_else(missing)?;
        if denial.lifted.is_some() {
            return Ok(denial.clone());
        }
        let event = denial.lift(by, now);
        let lifted = denial.clone();
        self.audit(vec![event]);
        Ok(lifted)
    }

    pub(super) fn denials(&self, include_lifted: bool, now: SystemTime) -> Vec<Denial> {
        let wanted = |denial: &&Denial| include_lifted || denial.is_active(now);
        self.denials.values().filter(wanted).cloned().collect()
    }

    fn unlisted(&self, authority: AuthorityId) -> impl Iterator<Item = (SerialNumber, &Revocation)> {
        let of_authority = self
            .revocations
            .iter()
            .filter(move |((whose, _), _)| *whose == authority);
        of_authority
            .filter(|(_, entry)| !entry.listed)
            .map(|((_, serial), entry)| (*serial, entry))
    }

    pub(super) fn to_list(&self, authority: AuthorityId) -> RevokedSet {
        let entries = self.unlisted(authority).map(|(serial, entry)| RevokedEntry {
            serial,
            revoked_at: entry.revoked_at,
            reason: entry.reason,
        });
        RevokedSet {
            entries: entries.collect(),
            revision: self.revision,
        }
    }
}

fn key(svid: &RevokedSvid) -> (AuthorityId, SerialNumber) {
    (svid.authority, svid.serial)
}
