//! What a list proves, and for how long. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::AuthorityId;
use signet_certs::crl::{Crl, CrlNumber};
use signet_certs::serial::SerialNumber;
use signet_runtime::sync::Mutex;

use crate::publisher::CRL_MAX_BYTES;
use crate::store::ListProof;
use crate::trust::{PublishedAuthority, TrustSnapshot};

/// Numbers that the next lists have to pass, by authority.
pub(crate) type Floors = BTreeMap<AuthorityId, CrlNumber>;

/// A list that an agent says it holds and that this store lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Whose.
    pub authority: AuthorityId,
    /// Its number.
    pub number: CrlNumber,
    /// The number of our newest.
    pub own: CrlNumber,
    /// SHA-256 of its DER.
    pub sha256: [u8; 32],
}

/// A kept list, read once its authority is published.
#[derive(Debug)]
pub(crate) struct Proof {
    /// As kept.
    pub stored: ListProof,
    crl: OnceLock<Option<Crl>>,
    over: Mutex<Over>,
}

/// What of a proven list this store has let go of itself, as of its own list of this number.
#[derive(Debug, Default)]
struct Over {
    asked: Option<CrlNumber>,
    serials: BTreeSet<SerialNumber>,
}

impl Proof {
    pub(super) fn new(stored: ListProof) -> Self {
        Self {
            stored,
            crl: OnceLock::new(),
            over: Mutex::default(),
        }
    }

    /// What the store has to be asked about: what our newest list lacks, once for each list of ours.
    pub(super) fn in_question(&self, lack: &Lack) -> Vec<SerialNumber> {
        if self.over.lock().asked == Some(lack.own) {
            return Vec::new();
        }
        lack.missing.clone()
    }

    /// Of what was in question these have ended and left our own lists.
    pub(super) fn answered(&self, lack: &Lack, over: Vec<SerialNumber>) {
        let mut known = self.over.lock();
        known.asked = Some(lack.own);
        known.serials.extend(over);
    }

    /// The list, if it still verifies.
    fn crl(&self, published: &PublishedAuthority) -> Option<&Crl> {
        let read = || Crl::verify(&self.stored.der, &published.certificate).ok();
        self.crl.get_or_init(read).as_ref()
    }
}

/// What is left to do about a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    /// The number of our newest list.
    pub own: CrlNumber,
    /// How many certificates the proven list names.
    pub entries: usize,
    /// Those that our newest list does not name.
    pub missing: Vec<SerialNumber>,
}

/// A proof stands until our own list has a higher number and names all that it names, save what it named once and has let go of. What a
/// list names has ended with the list itself, for none ends before the certificates that it covers; by `removing`, the time by
/// which something may be let go. `None`: it is over, or its authority has left.
pub(super) fn standing(
    proof: &Proof,
    snapshot: &TrustSnapshot,
    removing: Option<SystemTime>,
) -> Option<Lack> {
    let published = snapshot.get(proof.stored.authority)?;
    let crl = proof.crl(published)?;
    let has_ended = removing.is_some_and(|now| now > crl.next_update());
    let over = proof.over.lock();
    let lacks = |serial: &SerialNumber| {
        !has_ended && !published.crl.is_revoked(serial) && !over.serials.contains(serial)
    };
    let missing: Vec<_> = crl.entries().map(|entry| entry.serial).filter(lacks).collect();
    let own = published.crl.number();
    (own <= proof.stored.number || !missing.is_empty()).then_some(Lack {
        own,
        entries: crl.entry_count(),
        missing,
    })
}

/// What our next lists have to pass. A list that lacks what an agent's names may not take the place of that: its number passes only when
/// nothing is missing.
pub(super) fn floors(standing: &[(Arc<Proof>, Lack)]) -> Floors {
    let mut floors = Floors::new();
    let mut lacking = BTreeSet::new();
    for (proof, lack) in standing {
        let ListProof {
            authority, number, ..
        } = proof.stored;
        if lack.missing.is_empty() {
            let floor = floors.entry(authority).or_insert(number);
            *floor = number.max(*floor);
        } else {
            lacking.insert(authority);
        }
    }
    floors.retain(|authority, _| !lacking.contains(authority));
    floors
}

/// The list that was handed over, if the authority has signed it.
pub(super) fn verified(
    held: &[Bytes],
    published: &PublishedAuthority,
    now: SystemTime,
) -> Result<Crl, String> {
    let Some(der) = held.first() else {
        return Err("it hands over no list".to_owned());
    };
    if der.len() > CRL_MAX_BYTES {
        return Err(format!("what it hands over has more than {CRL_MAX_BYTES} bytes"));
    }
    let crl = Crl::verify(der, &published.certificate).map_err(|error| error.to_string())?;
    crl.check_not_ahead(now).map_err(|error| error.to_string())?;
    Ok(crl)
}

/// What stands, for people.
pub(super) fn words(standing: &[(Arc<Proof>, Lack)]) -> Option<String> {
    let words = |(proof, stands): &(Arc<Proof>, Lack)| {
        let ListProof {
            authority,
            number,
            agent,
            ..
        } = &proof.stored;
        let Lack {
            own,
            entries,
            missing,
        } = stands;
        format!(
            "authority {authority} has signed list {number}, which {agent} holds and this store lacks: its newest is {own}, \
             and {} of {entries} certificates are on that list alone",
            missing.len()
        )
    };
    let all: Vec<_> = standing.iter().map(words).collect();
    (!all.is_empty()).then(|| all.join("; "))
}
