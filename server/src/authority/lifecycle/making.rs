//! Makes what an authority is to be: a key where keys live, and its certificate by whoever signs it. Either may be another machine,
//! so neither is waited for longer than [`MAKING`].

use std::error::Error;
use std::time::{Duration, SystemTime};

use ring::rand::SecureRandom as _;
use signet_certs::authority::{AuthorityCertificate, AuthorityId, AuthorityProfile};
use signet_certs::serial::SerialNumber;
use signet_certs::signer::SignatureAlgorithm;
use tokio::time::Instant;

use super::{Lifecycle, LifecycleError, Tools};
use crate::authority::journal;
use crate::authority::links::{self, Link};
use crate::authority::material::{Held, Material};
use crate::authority::state::{Activation, NewAuthority};
use crate::key_manager::{NewKey, off_thread};
use crate::store::SealedKey;

/// How long whoever makes a key or a certificate is waited for.
const MAKING: Duration = Duration::from_secs(30);

/// An authority that was made and waits for its journal entry.
pub(super) struct Fresh {
    pub(super) authority: NewAuthority,
    pub(super) held: Held,
    pub(super) sealed: Option<SealedKey>,
    /// What the acting one says of its key.
    pub(super) link: Option<Link>,
}

/// The answer of `asked`, if it comes in time.
pub(super) async fn answered<T>(
    who: &'static str,
    asked: impl Future<Output = T>,
) -> Result<T, LifecycleError> {
    let answer = tokio::time::timeout(MAKING, asked).await;
    answer.map_err(|_| LifecycleError::NoAnswer {
        who,
        seconds: MAKING.as_secs(),
    })
}

/// Destroys a key that no journal names. It signs nothing, so that what fails is told and no more.
pub(super) async fn discard(id: AuthorityId, tools: &Tools) {
    let outcome = answered("whoever keeps the keys", tools.keys.destroy(id)).await;
    if let Err(error) = outcome.and_then(|destroyed| Ok(destroyed?)) {
        tracing::warn!(
            authority = %id, error = &error as &dyn Error,
            "a key that is of no more use could not be destroyed"
        );
    }
}

impl Lifecycle {
    /// A key with its certificate, and the link to it. A key that nobody certified is destroyed.
    pub(super) async fn make(
        &self,
        algorithm: SignatureAlgorithm,
        activation: Activation,
        now: SystemTime,
        tools: &Tools,
    ) -> Result<Fresh, LifecycleError> {
        let asked = tools.keys.generate(self.kind, algorithm);
        let begun = Instant::now();
        let key = answered("whoever makes keys", asked).await??;
        let id = key.authority_id;
        let mut made = self.certified(key, (now, begun), tools).await;
        // What a stolen key says of another is worth nothing.
        if activation != Activation::InEmergency
            && let Ok(made) = &mut made
        {
            made.link = self.link(made.held.x509().certificate(), now, tools).await;
        }
        if made.is_err() {
            discard(id, tools).await;
        }
        made
    }

    async fn certified(
        &self,
        key: NewKey,
        (now, begun): (SystemTime, Instant),
        tools: &Tools,
    ) -> Result<Fresh, LifecycleError> {
        let NewKey {
            authority_id,
            signer,
            sealed,
        } = key;
        let policy = self.policy();
        let profile = AuthorityProfile {
            trust_domain: tools.trust_domain.clone(),
            kind: self.kind,
            not_before: now
                .checked_sub(policy.clock_skew())
                .unwrap_or(SystemTime::UNIX_EPOCH),
            not_after: now + policy.authority_ttl(),
            serial: self.serial(authority_id, now, tools)?,
        };
        let asked = tools.source.certify(&profile, &signer);
        let chain = answered("whoever signs authorities", asked)
            .await?
            .map_err(|source| LifecycleError::Source {
                kind: self.kind,
                source,
            })?;
        let unusable = |problem: String| self.unusable(authority_id, problem);
        let certificate = chain.own();
        profile
            .check(certificate, signer.as_ref(), now + begun.elapsed())
            .map_err(|error| unusable(error.to_string()))?;
        let material = Material::of_chain(&chain);
        let authority = NewAuthority {
            id: certificate.id(),
            algorithm: signer.algorithm(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            signs_list: material.signs_list(),
            material,
        };
        let held = authority
            .material
            .join(signer)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Fresh {
            authority,
            held,
            sealed,
            link: None,
        })
    }

    /// A key whose journal entry was not written. Where nobody can tell whether it was, it stays: a journal that names a key which is
    /// gone is worse than a key that no journal names.
    pub(super) async fn discard_unsaved(&self, id: AuthorityId, tools: &Tools) {
        let stored = tools.store.load_journal(self.kind).await;
        let unsaved = stored.is_ok_and(|stored| {
            let body = stored.map(|stored| journal::decode(&stored.body));
            body.is_none_or(|set| set.is_ok_and(|set| set.get(id).is_none()))
        });
        if unsaved {
            discard(id, tools).await;
        }
    }

    /// Destroys keys that nobody is shown any more. What the store has of them is gone already; what is elsewhere may be left behind by a
    /// crash, or where nobody answers: no journal names it then, and it signs nothing.
    pub(in crate::authority) async fn destroy_forgotten(&mut self, tools: &Tools) {
        for id in std::mem::take(&mut self.forgotten) {
            discard(id, tools).await;
        }
    }

    fn serial(
        &self,
        authority: AuthorityId,
        now: SystemTime,
        tools: &Tools,
    ) -> Result<SerialNumber, LifecycleError> {
        let mut random = [0; 13];
        let filled = tools.random.fill(&mut random);
        filled.map_err(|_| self.unusable(authority, "the system has no randomness".to_owned()))?;
        Ok(SerialNumber::generate(now, &random))
    }

    /// What the active authority says of its successor's key, where its kind has links; an old one says nothing.
    async fn link(&self, successor: &AuthorityCertificate, now: SystemTime, tools: &Tools) -> Option<Link> {
        if !links::has_links(self.kind) {
            return None;
        }
        let acting = self.acting()?.clone();
        let by = acting.certificate().id();
        let serial = self.serial(by, now, tools).ok()?;
        let (signer, not_before) = (acting.signer().clone(), successor.not_before());
        let to = successor.clone();
        let make = move || Link::make(&acting, &to, serial, not_before);
        let made: Result<Link, Box<dyn Error + Send + Sync>> =
            async { Ok(off_thread(signer.as_ref(), false, make).await??) }.await;
        // A rotation does not fail for it: agents that know the active authority need no link.
        made.inspect_err(|error| {
            let error = error.as_ref() as &dyn Error;
            tracing::warn!(authority = %by, successor = %successor.id(), error, "no link to the successor");
        })
        .ok()
    }
}
