//! Which anchors count. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::id::TrustDomain;
use signet_certs::link::walk;
use signet_certs::time::rfc3339;
use signet_certs::verify::TrustedAuthority;

use super::error::{AnchorsError, MAX_ANCHORS};
use crate::server_client::trust::{Departed, FileWord, Said};

/// Anchors that a message tells of one by one.
const MOST_TOLD: usize = 4;

/// Removed authorities that are remembered; years of rotations.
const MAX_RETIRED: usize = 256;

/// The anchors in force, and where they come from.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) anchors: Vec<TrustedAuthority>,
    /// Anchors that ended, and gave way to configured ones. Nothing is verified by them; links may lead from them.
    pub(super) ended: Vec<AuthorityCertificate>,
    /// SHA-256 of the configured file that the anchors descend from.
    pub(super) source: [u8; 32],
    /// Over whose connection each of the anchors became known that the configured file does not hold.
    pub(super) said: BTreeMap<AuthorityId, Said>,
    /// Authorities that the server no longer names, and which server that was.
    pub(super) retired: BTreeMap<AuthorityId, Said>,
    /// Authorities that may not come back, as the trust state says.
    pub(super) departed: Departed,
    /// What the configured file says, as last read.
    pub(super) file: FileWord,
    /// SHA-256 of it, as last read by who looks at it for ever.
    pub(super) looked_at: [u8; 32],
    /// Why it is of no use as it is; empty when it is.
    pub(super) problem: String,
}

/// The configured file.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) certificates: Vec<AuthorityCertificate>,
    pub(super) word: FileWord,
    /// SHA-256 of it.
    pub(super) source: [u8; 32],
}

/// A configured file that cannot be used.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) error: AnchorsError,
    /// Whom it distrusts all the same, so far as that can be read.
    pub(super) distrusted: BTreeSet<AuthorityId>,
}

impl State {
    /// With nothing but the configured file.
    pub(super) fn configured(configured: Configured) -> Self {
        Self {
            anchors: configured.certificates.into_iter().map(without_list).collect(),
            source: configured.source,
            looked_at: configured.source,
            file: configured.word,
            ..Self::default()
        }
    }

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

    /// No anchor, whoever names it: the file distrusts it, it left in distrust, or only those vouch for it whom the file distrusts.
    pub(super) fn refuses(&self, id: &AuthorityId) -> bool {
        let is_void = |said: &Said| self.file.voids(said) && !self.file.stands_by(id);
        self.file.distrusts(id)
            || self.departed.contains(id, &self.file)
            || self.said.get(id).is_some_and(is_void)
    }

    /// It is one that counts.
    pub(super) fn holds(&self, id: &AuthorityId) -> bool {
        self.anchors.iter().any(|anchor| anchor.certificate.id() == *id)
    }

    /// The file was read. One that cannot be used takes nothing back, and distrusts whom it can be read to.
    pub(super) fn hear(&mut self, read: &Result<Configured, Broken>) {
        let (word, problem) = match read {
            Ok(configured) => (configured.word.clone(), String::new()),
            Err(broken) => {
                let mut word = self.file.clone();
                word.distrusted.extend(&broken.distrusted);
                word.listed.retain(|id| !broken.distrusted.contains(id));
                (word, broken.error.to_string())
            }
        };
        self.problem = problem;
        self.take_word(word);
    }

    /// From now on the file says this.
    fn take_word(&mut self, word: FileWord) {
        if self.file == word {
            return;
        }
        self.file = word;
        let file = &self.file;
        self.retired
            .retain(|id, said| !file.voids(said) && !file.stands_by(id));
        self.drop_refused();
    }

    /// What a verified server pushed; the rest is retired.
    pub(super) fn replace(&mut self, anchors: Vec<TrustedAuthority>, said: &Said) {
        let before = std::mem::replace(&mut self.anchors, anchors);
        self.ended.clear();
        self.drop_refused();
        let is_held = |held: &[TrustedAuthority], id: &AuthorityId| {
            held.iter().any(|held| held.certificate.id() == *id)
        };
        for id in before.iter().map(|anchor| anchor.certificate.id()) {
            if !is_held(&self.anchors, &id) {
                self.retired.insert(id, said.clone());
                self.said.remove(&id);
            }
        }
        let now: Vec<_> = self
            .anchors
            .iter()
            .map(|anchor| anchor.certificate.id())
            .collect();
        for id in now {
            self.retired.remove(&id);
            if !is_held(&before, &id) {
                self.vouch(id, said);
            }
        }
        while self.retired.len() > MAX_RETIRED {
            self.retired.pop_first();
        }
    }

    fn vouch(&mut self, id: AuthorityId, said: &Said) {
        if !self.file.listed.contains(&id) && !said.is_empty() {
            self.said.insert(id, said.clone());
        }
    }

    /// With these as well, but for those that are refused. Where there are too many, the oldest give way.
    pub(super) fn add(&mut self, certificates: Vec<(AuthorityCertificate, Said)>) {
        for (certificate, said) in certificates {
            let held = self.anchors.iter().any(|held| held.certificate == certificate);
            if !held && !self.file.voids(&said) && !self.refuses(&certificate.id()) {
                if !self.holds(&certificate.id()) {
                    self.vouch(certificate.id(), &said);
                }
                self.anchors.push(without_list(certificate));
            }
        }
        let excess = self.anchors.len().saturating_sub(MAX_ANCHORS);
        self.anchors.drain(..excess);
    }

    /// Authorities that are no anchors yet and to which links lead from what is there, each with those that vouch for it: from the
    /// anchors that live, and only where none does from those that have ended. Nothing leads from or to what the server has removed, for
    /// whatever reason, nor from, over or to what is refused.
    pub(super) fn linked(
        &self,
        links: &[AuthorityCertificate],
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Vec<(AuthorityCertificate, Said)> {
        let held = self.anchors.iter().map(|anchor| &anchor.certificate);
        let living = |certificate: &&AuthorityCertificate| certificate.is_valid_at(now);
        let starts: Vec<_> = if self.one_lives(now) {
            held.clone().filter(living).collect()
        } else {
            held.clone().chain(&self.ended).collect()
        };
        let refused = |id: &AuthorityId| self.retired.contains_key(id) || self.refuses(id);
        let mut linked: Vec<(AuthorityCertificate, Said)> = Vec::new();
        for start in starts {
            let mut said = Said::by(start.id(), self.said.get(&start.id()));
            for found in walk(std::slice::from_ref(start), links, trust_domain, refused, now) {
                let vouched = said.clone();
                said = Said::by(found.id(), Some(&said));
                let is_known = held.clone().any(|held| held.id() == found.id())
                    || linked.iter().any(|(known, _)| known.id() == found.id());
                if !is_known {
                    linked.push((found, vouched));
                }
            }
        }
        linked
    }

    /// These anchors that live, and those of the configured file, whose word was taken, that the server has not removed. Removed ones are taken only
    /// where nothing else would be left, and those that are refused not even then.
    pub(super) fn joined(&self, configured: Configured, now: SystemTime) -> Self {
        let living = |anchor: &TrustedAuthority| anchor.certificate.is_valid_at(now);
        let (mut anchors, dead): (Vec<_>, Vec<_>) = self.anchors.iter().cloned().partition(living);
        for certificate in &configured.certificates {
            let id = certificate.id();
            let held = anchors.iter().any(|held| held.certificate.id() == id);
            if !held && !self.retired.contains_key(&id) {
                anchors.push(without_list(certificate.clone()));
            }
        }
        if anchors.is_empty() {
            anchors = configured.certificates.into_iter().map(without_list).collect();
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
            said: self.said.clone(),
            retired: self.retired.clone(),
            departed: self.departed.clone(),
            file: self.file.clone(),
            looked_at: self.looked_at,
            problem: self.problem.clone(),
        };
        joined.drop_refused();
        joined
    }

    /// Those that are refused go, whoever named them, the last anchor too: an agent that hears nobody until an admin gives it other
    /// anchors is better than one that hears whoever has that key.
    pub(super) fn drop_refused(&mut self) {
        let stay = |state: &Self, id: AuthorityId| !state.refuses(&id);
        let anchors = std::mem::take(&mut self.anchors).into_iter();
        self.anchors = anchors
            .filter(|anchor| stay(self, anchor.certificate.id()))
            .collect();
        let ended = std::mem::take(&mut self.ended).into_iter();
        self.ended = ended.filter(|ended| stay(self, ended.id())).collect();
        let known: Vec<_> = self
            .anchors
            .iter()
            .map(|anchor| anchor.certificate.id())
            .collect();
        let ended: Vec<_> = self.ended.iter().map(AuthorityCertificate::id).collect();
        // Whom the file vouches for needs nobody else.
        let listed = &self.file.listed;
        self.said
            .retain(|id, _| !listed.contains(id) && (known.contains(id) || ended.contains(id)));
    }
}

fn without_list(certificate: AuthorityCertificate) -> TrustedAuthority {
    TrustedAuthority {
        certificate,
        crl: None,
    }
}

/// The same authorities with the same CRLs.
pub(super) fn same(left: &[TrustedAuthority], right: &[TrustedAuthority]) -> bool {
    let equal =
        |(a, b): (&TrustedAuthority, &TrustedAuthority)| a.certificate == b.certificate && a.crl == b.crl;
    left.len() == right.len() && left.iter().zip(right).all(equal)
}
