//! Which anchors count. Pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::SystemTime;

use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::id::TrustDomain;
use signet_certs::link::walk;
use signet_certs::time::rfc3339;
use signet_certs::verify::TrustedAuthority;

use crate::server_client::trust::Departed;
/// Anchors that a message tells of one by one.
const MOST_TOLD: usize = 4;

/// Removed authorities that are remembered; years of rotations.
const MAX_RETIRED: usize = 256;

/// Most anchors that come of what a server names, or of links; many times what a trust domain has.
pub(super) const MAX_ANCHORS: usize = 64;

/// The anchors in force, and where they come from.
#[derive(Debug)]
pub(super) struct State {
    pub(super) anchors: Vec<TrustedAuthority>,
    /// Anchors that ended, and gave way to configured ones. Nothing is verified by them; links may lead from them.
    pub(super) ended: Vec<AuthorityCertificate>,
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

    /// The anchors for people, those that end last first: which, and when each ends or has.
    pub(super) fn told(&self) -> String {
        let mut all: Vec<_> = self.anchors.iter().map(|anchor| &anchor.certificate).collect();
        all.extend(&self.ended);
        all.sort_by_key(|certificate| Reverse(certificate.not_after()));
        let tell = |certificate: &&AuthorityCertificate| {
            format!(
                "{} (its end: {})",
                certificate.id(),
                rfc3339(certificate.not_after())
            )
        };
        let mut told: Vec<_> = all.iter().take(MOST_TOLD).map(tell).collect();
        match all.len().saturating_sub(MOST_TOLD) {
            0 if told.is_empty() => "none that may be used".to_owned(),
            0 => told.join(", "),
            more => {
                told.push(format!("and {more} that end earlier"));
                told.join(", ")
            }
        }
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
        self.ended.clear();
    }

    /// With these as well, but for those that left in distrust. Where there are too many, the oldest give way.
    pub(super) fn add(&mut self, certificates: Vec<AuthorityCertificate>) {
        for certificate in certificates {
            let held = self.anchors.iter().any(|held| held.certificate == certificate);
            if !held && !self.departed.contains(&certificate.id()) {
                let crl = None;
                self.anchors.push(TrustedAuthority { certificate, crl });
            }
        }
        let excess = self.anchors.len().saturating_sub(MAX_ANCHORS);
        self.anchors.drain(..excess);
    }

    /// Authorities that are no anchors yet and to which links lead from what is there: from the anchors that live, and only where
    /// none does from those that have ended. Nothing leads from or to what the server has removed, for whatever reason.
    pub(super) fn linked(
        &self,
        links: &[AuthorityCertificate],
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Vec<AuthorityCertificate> {
        let held = self.anchors.iter().map(|anchor| &anchor.certificate);
        let living = |certificate: &&AuthorityCertificate| certificate.is_valid_at(now);
        let starts: Vec<_> = if self.one_lives(now) {
            held.clone().filter(living).cloned().collect()
        } else {
            held.clone().chain(&self.ended).cloned().collect()
        };
        let refused = |id: &AuthorityId| self.retired.contains(id) || self.departed.contains(id);
        let mut found = walk(&starts, links, trust_domain, refused, now);
        found.retain(|found| held.clone().all(|held| held.id() != found.id()));
        found
    }

    /// These anchors that live, and the configured ones that the server has not removed. Removed ones are taken only
    /// where nothing else would be left, and those that left in distrust not even then.
    pub(super) fn joined(&self, configured: Self, now: SystemTime) -> Self {
        let living = |anchor: &TrustedAuthority| anchor.certificate.is_valid_at(now);
        let (mut anchors, dead): (Vec<_>, Vec<_>) = self.anchors.iter().cloned().partition(living);
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
        let mut ended = self.ended.clone();
        for dead in dead.into_iter().map(|dead| dead.certificate) {
            if !ended.contains(&dead) {
                ended.push(dead);
            }
        }
        let mut joined = Self {
            anchors,
            ended,
            source: configured.source,
            retired: self.retired.clone(),
            departed: self.departed.clone(),
        };
        joined.drop_departed();
        joined
    }

    /// Those that may not come back go, whoever named them, the last anchor too: an agent that hears nobody until an admin gives it other
    /// anchors is better than one that hears whoever has that key.
    pub(super) fn drop_departed(&mut self) {
        self.anchors
            .retain(|anchor| !self.departed.contains(&anchor.certificate.id()));
    }
}

/// The same authorities with the same CRLs.
pub(super) fn same(left: &[TrustedAuthority], right: &[TrustedAuthority]) -> bool {
    let equal =
        |(a, b): (&TrustedAuthority, &TrustedAuthority)| a.certificate == b.certificate && a.crl == b.crl;
    left.len() == right.len() && left.iter().zip(right).all(equal)
}
