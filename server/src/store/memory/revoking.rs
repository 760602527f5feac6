//! Revocations, denials, and what a list has to name.

use std::collections::BTreeSet;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::crl::{RevocationReason, RevokedEntry};
use signet_certs::dates::{OutsideDates, WhoseClock};
use signet_certs::serial::SerialNumber;
use signet_certs::time::from_unix_millis;

use super::kept::{Kept, Revocation};
use crate::audit_event::RevokedSerial;
use crate::store::room::{Class, Room, Waiting, weight};
use crate::store::{
    Denial, ListRoom, NewIssuance, RevokeError, RevokeRequest, RevokeTarget, Revoked, RevokedSet,
    RevokedSvid, StoreError,
};

/// What shall be on a list.
pub(super) struct Entry {
    pub(super) svid: RevokedSvid,
}

/// What names a revocation.
pub(super) type Key = (AuthorityId, SerialNumber);

impl Kept {
    pub(super) fn revoke(&mut self, request: &RevokeRequest, epoch: u64) -> Result<Revoked, RevokeError> {
        request.check()?;
        let entries = self.entries(request)?;
        let (fresh, known): (Vec<Entry>, Vec<Entry>) = entries
            .into_iter()
            .partition(|entry| !self.revocations.contains_key(&key(&entry.svid)));
        self.revoke_agents(request, fresh.iter().chain(&known).map(|entry| entry.svid.serial));
        if request.reason == RevocationReason::KeyCompromise {
            self.compromise(fresh.iter().chain(&known));
        }
        let (denial, is_new) = self.deny(request, epoch);
        self.record(request, &fresh);
        self.raise(request.class(), &known);
        let left: Vec<Key> = self.admit(&request.rooms, request.earliest).concat();
        if !fresh.is_empty() || is_new {
            let serial = |entry: &Entry| RevokedSerial {
                authority: entry.svid.authority,
                serial: entry.svid.serial,
            };
            let serials: Vec<_> = fresh.iter().map(serial).collect();
            self.audit(request.audit_events(&serials, denial.as_ref().filter(|_| is_new)));
        }
        let new = fresh.len();
        let svid = |entry: Entry| RevokedSvid {
            waits: left.contains(&key(&entry.svid)),
            ..entry.svid
        };
        let mut svids: Vec<_> = fresh.into_iter().chain(known).map(svid).collect();
        svids.sort_by_key(|svid| svid.serial);
        Ok(Revoked {
            svids,
            fresh: new,
            denial,
            revision: self.revision,
        })
    }

    pub(super) fn entries(&self, request: &RevokeRequest) -> Result<Vec<Entry>, RevokeError> {
        match &request.target {
            RevokeTarget::Serial {
                serial,
                authority,
                expires_by,
            } => {
                let entry = self.of_serial(*serial, *authority, *expires_by, request.earliest)?;
                Ok(vec![entry])
            }
            RevokeTarget::IssuedBy(unknown) if !self.authorities.contains(unknown) => {
                Err(RevokeError::UnknownAuthority(*unknown))
            }
            RevokeTarget::IssuedBy(authority) => {
                Ok(self.of(request.earliest, |row| row.authority == *authority))
            }
            RevokeTarget::SpiffeId(_)
            | RevokeTarget::Prefix(_)
            | RevokeTarget::Pod(_)
            | RevokeTarget::PodsNamed(_)
            | RevokeTarget::Node(_) => {
                Ok(self.of(request.earliest, |row| request.target.hits(&row.workload)))
            }
        }
    }

    /// Those of these that may be unexpired.
    fn of(&self, earliest: SystemTime, wanted: impl Fn(&NewIssuance) -> bool) -> Vec<Entry> {
        let rows = self
            .rows
            .iter()
            .filter(|row| row.not_after > earliest && wanted(row));
        rows.map(|row| Entry {
            svid: RevokedSvid {
                serial: row.serial,
                authority: row.authority,
                spiffe_id: Some(row.workload.spiffe_id.clone()),
                not_after: Some(row.not_after),
                waits: false,
            },
        })
        .collect()
    }

    fn of_serial(
        &self,
        serial: SerialNumber,
        authority: Option<AuthorityId>,
        expires_by: Option<SystemTime>,
        earliest: SystemTime,
    ) -> Result<Entry, RevokeError> {
        if let Some(unknown) = authority.filter(|named| !self.authorities.contains(named)) {
            return Err(RevokeError::UnknownAuthority(unknown));
        }
        let found = self.rows.iter().find(|row| row.serial == serial);
        if let Some(row) = found.filter(|row| authority.is_none_or(|named| named == row.authority)) {
            if row.not_after <= earliest {
                return Err(RevokeError::Expired(OutsideDates {
                    not_before: row.not_before,
                    not_after: row.not_after,
                    now: earliest,
                    clock: WhoseClock::Server,
                }));
            }
            return Ok(Entry {
                svid: RevokedSvid {
                    serial,
                    authority: row.authority,
                    spiffe_id: Some(row.workload.spiffe_id.clone()),
                    not_after: Some(row.not_after),
                    waits: false,
                },
            });
        }
        Ok(Entry {
            svid: RevokedSvid {
                serial,
                authority: authority.ok_or(RevokeError::UnknownSerial)?,
                spiffe_id: None,
                not_after: expires_by,
                waits: false,
            },
        })
    }

    /// No list names what is new before it was let in.
    fn record(&mut self, request: &RevokeRequest, fresh: &[Entry]) {
        for Entry { svid } in fresh {
            let revocation = Revocation {
                revoked_at: request.now,
                reason: request.reason,
                invalid_since: request.invalid_since,
                not_after: svid.not_after,
                revision: 0,
                class: request.class(),
                entered: false,
                listed: false,
            };
            self.revocations.insert(key(svid), revocation);
        }
    }

    /// What waits and was asked for again enters by the better of its classes.
    fn raise(&mut self, class: Class, known: &[Entry]) {
        for Entry { svid } in known {
            if let Some(entry) = self.revocations.get_mut(&key(svid)) {
                entry.class = entry.class.min(class);
            }
        }
    }

    /// Lets in what fits, and returns what goes on waiting, by room.
    pub(super) fn admit(&mut self, rooms: &[ListRoom], earliest: SystemTime) -> Vec<Vec<Key>> {
        let mut entering = Vec::new();
        let left = rooms.iter().map(|room| {
            let inside = |key: &Key| room.authorities.contains(&key.0);
            let (enters, stays) = self.used(room).admit(self.waiting(earliest, inside));
            entering.extend(enters.into_iter().map(|one| one.key));
            stays.into_iter().map(|one| one.key).collect()
        });
        let left = left.collect();
        let outside = |key: &Key| rooms.iter().all(|room| !room.authorities.contains(&key.0));
        entering.extend(self.waiting(earliest, outside).into_iter().map(|one| one.key));
        if !entering.is_empty() {
            self.revision += 1;
        }
        for key in entering {
            if let Some(entry) = self.revocations.get_mut(&key) {
                (entry.entered, entry.revision) = (true, self.revision);
            }
        }
        left
    }

    pub(super) fn waiting(&self, earliest: SystemTime, which: impl Fn(&Key) -> bool) -> Vec<Waiting<Key>> {
        let waiting = self.revocations.iter().filter(|(_, entry)| !entry.entered);
        let waiting = waiting.filter(|(key, _)| which(key)).map(|(key, entry)| Waiting {
            key: *key,
            class: entry.class,
            not_after: entry.not_after.unwrap_or_else(|| from_unix_millis(i64::MAX)),
            weight: weight(entry.invalid_since.is_some()),
        });
        waiting.filter(|one| one.not_after > earliest).collect()
    }

    pub(super) fn used(&self, room: &ListRoom) -> Room {
        let mut used = Room::of(room.capacity);
        for authority in &room.authorities {
            self.unlisted(*authority)
                .for_each(|(_, entry)| used.count(entry.class, weight(entry.invalid_since.is_some())));
        }
        used
    }

    fn compromise<'e>(&mut self, entries: impl Iterator<Item = &'e Entry>) {
        let keys: BTreeSet<_> = entries.map(|entry| key(&entry.svid)).collect();
        let rows = self.rows.iter();
        let leaked = rows.filter(|row| keys.contains(&(row.authority, row.serial)));
        self.compromised.extend(leaked.map(|row| row.spki_sha256));
    }

    /// See [`MemoryStore::revoke_all`](super::MemoryStore::revoke_all).
    #[cfg(test)]
    pub(super) fn revoke_all(
        &mut self,
        authority: AuthorityId,
        serials: impl IntoIterator<Item = SerialNumber>,
        now: SystemTime,
    ) -> u64 {
        for serial in serials {
            let revocation = Revocation {
                revoked_at: now,
                reason: RevocationReason::Superseded,
                invalid_since: None,
                not_after: None,
                revision: 0,
                class: Class::Identity,
                entered: false,
                listed: false,
            };
            self.revocations.insert((authority, serial), revocation);
        }
        self.revision + 1
    }

    /// The denial that follows from the request, and whether it is new. One in force that lasts as long is enough.
    fn deny(&mut self, request: &RevokeRequest, epoch: u64) -> (Option<Denial>, bool) {
        let Some(target) = request.denies() else {
            return (None, false);
        };
        let mut present = self.denials.values().filter(|denial| denial.target == target);
        if let Some(denial) = present.find(|denial| denial.satisfies(request)) {
            return (Some(denial.clone()), false);
        }
        let number = self.denials.keys().next_back().map_or(1, |last| last + 1);
        let denial = Denial::ordered(request, target, epoch, number);
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

    pub(super) fn denials(&self, include_lifted: bool, earliest: SystemTime) -> Vec<Denial> {
        let wanted = |denial: &&Denial| include_lifted || denial.is_active(earliest);
        self.denials.values().filter(wanted).cloned().collect()
    }

    fn unlisted(&self, authority: AuthorityId) -> impl Iterator<Item = (SerialNumber, &Revocation)> {
        let of_authority = self
            .revocations
            .iter()
            .filter(move |((whose, _), _)| *whose == authority);
        of_authority
            .filter(|(_, entry)| entry.entered && !entry.listed)
            .map(|((_, serial), entry)| (*serial, entry))
    }

    pub(super) fn to_list(&self, authority: AuthorityId) -> RevokedSet {
        let entries = self.unlisted(authority).map(|(serial, entry)| RevokedEntry {
            serial,
            revoked_at: entry.revoked_at,
            reason: entry.reason,
            invalid_since: entry.invalid_since,
        });
        RevokedSet {
            entries: entries.collect(),
            revision: self.revision,
        }
    }
}

pub(super) fn key(svid: &RevokedSvid) -> Key {
    (svid.authority, svid.serial)
}
