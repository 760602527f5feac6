//! Which anchors count. Pure.

use std::collections::BTreeSet;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::verify::TrustedAuthority;

use crate::server_client::trust::Departed;

/// Removed authorities that are remembered; years of rotations.
const MAX_RETIRED: usize = 256;

/// The anchors in force, and where they come from.
#[derive(Debug)]
pub(super) struct State {
    pub(super) anchors: Vec<TrustedAuthority>,
    /// SHA-256 of the configured file that the anchors descend from.
    pub(super) source: [u8; 32],
    /// Authorities that the server no longer names.
    pub(super) retired: BTreeSet<AuthorityId>,
    /// Authorities that may not come back, as the trust state says.
    pub(super) departed: Departed,
}

impl State {
    pub(super) fn one_lives(&self, now: SystemTime) -> bool {
        self.anchors
            .iter()
            .any(|anchor| anchor.certificate.is_valid_at(now))
    }

    /// What a verified server pushed; the rest is retired.
    pub(super) fn replace(&mut self, anchors: Vec<TrustedAuthority>) {
        let before = self.anchors.iter().map(|anchor| anchor.certificate.id());
        self.retired.extend(before);
        for anchor in &anchors {
            self.retired.remove(&anchor.certificate.id());
        }
        while self.retired.len() > MAX_RETIRED {
            self.retired.pop_first();
        }
        self.anchors = anchors;
    }

    /// These anchors that live, and the configured ones that the server has not removed. Removed ones are taken only
    /// where nothing else would be left.
    pub(super) fn joined(&self, configured: Self, now: SystemTime) -> Self {
        let living = |anchor: &&TrustedAuthority| anchor.certificate.is_valid_at(now);
        let mut anchors: Vec<_> = self.anchors.iter().filter(living).cloned().collect();
        for anchor in &configured.anchors {
            let id = anchor.certificate.id();
            let held = anchors.iter().any(|held| held.certificate.id() == id);
            if !held && !self.retired.contains(&id) {
                anchors.push(anchor.clone());
            }
        }
        if anchors.is_empty() {
            anchors = configured.anchors;
        }
        let mut joined = Self {
            anchors,
            source: configured.source,
            retired: self.retired.clone(),
            departed: self.departed.clone(),
        };
        joined.drop_departed();
        joined
    }

    /// Those that may not come back go, whoever named them; but for the last anchor, without which nobody could be heard.
    pub(super) fn drop_departed(&mut self) {
        let departed = |anchor: &TrustedAuthority| self.departed.contains(&anchor.certificate.id());
        if !self.anchors.iter().all(departed) {
            self.anchors
                .retain(|anchor| !self.departed.contains(&anchor.certificate.id()));
        }
    }
}

/// The same authorities with the same CRLs.
pub(super) fn same(left: &[TrustedAuthority], right: &[TrustedAuthority]) -> bool {
    let equal =
        |(a, b): (&TrustedAuthority, &TrustedAuthority)| a.certificate == b.certificate && a.crl == b.crl;
    left.len() == right.len() && left.iter().zip(right).all(equal)
}
