//! One kind of authority with its keys and its journal: carries out the machine's effects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};
use signet_certs::authority::{
    AuthorityCertificate, AuthorityId, AuthorityKind, AuthorityProfile, X509Authority, create_authority,
};
use signet_certs::id::TrustDomain;
use signet_certs::serial::SerialNumber;
use signet_certs::signer::AuthoritySigner;

use super::audited;
use super::journal::{self, JournalError};
use super::links::Link;
use super::policy::LifePolicy;
use super::spread::{SpreadReports, SpreadStatus};
use super::state::{
    Activation, AuthorityRecord, AuthoritySet, Context, Effect, Event, Moment, NewAuthority, Refused,
    Transition,
};
use super::view::{KindView, ViewedAuthority};
use crate::key_manager::{KeyManager, KeyManagerError, NewKey};
use crate::store::{KeyChanges, KeyPurpose, SealedKey, Store, StoreError};

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

/// What both kinds use.
pub(super) struct Tools {
    pub(super) trust_domain: TrustDomain,
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Arc<KeyManager>,
    pub(super) random: SystemRandom,
}

/// One kind.
pub(super) struct Lifecycle {
    pub(super) kind: AuthorityKind,
    policy: LifePolicy,
    set: AuthoritySet,
    revision: u64,
    authorities: Vec<X509Authority>,
    visible: bool,
}

/// A key that was made and waits for its journal entry.
struct Fresh {
    authority: X509Authority,
    sealed: SealedKey,
}

impl Lifecycle {
    /// Reads the journal and opens the keys it names.
    pub(super) async fn load(
        kind: AuthorityKind,
        policy: LifePolicy,
        tools: &Tools,
    ) -> Result<Self, LifecycleError> {
        let mut lifecycle = Self {
            kind,
            policy,
            set: AuthoritySet::default(),
            revision: 0,
            authorities: Vec::new(),
            visible: false,
        };
        lifecycle.reload(tools).await?;
        Ok(lifecycle)
    }

    async fn reload(&mut self, tools: &Tools) -> Result<(), LifecycleError> {
        let Some(stored) = tools.store.load_journal(self.kind).await? else {
            return Ok(());
        };
        let set = journal::decode(&stored.body)?;
        let sealed = tools.store.load_keys().await?;
        let purpose = KeyPurpose::Authority(self.kind);
        let mut authorities = Vec::new();
        for record in set.authorities() {
            let found = sealed
                .iter()
                .find(|key| key.authority_id == record.id() && key.purpose == purpose);
            let missing = LifecycleError::MissingKey {
                kind: self.kind,
                authority: record.id(),
            };
            let signer = tools.keys.unseal(found.ok_or(missing)?)?;
            let certificate = self.certificate(record)?;
            authorities.push(self.join(certificate, signer)?);
        }
        if let Some(link) = set.links().iter().find(|link| link.certificate().is_none()) {
            let problem = "the link to it is not the one the journal describes";
            return Err(self.unusable(link.to, problem.to_owned()));
        }
        (self.set, self.revision, self.authorities, self.visible) = (set, stored.revision, authorities, true);
        Ok(())
    }

    fn certificate(&self, record: &AuthorityRecord) -> Result<AuthorityCertificate, LifecycleError> {
        let unusable = |problem| self.unusable(record.id(), problem);
        let certificate = AuthorityCertificate::from_der(&record.certificate.certificate)
            .map_err(|error| unusable(error.to_string()))?;
        let agrees = certificate.id() == record.id()
            && certificate.not_before() == record.certificate.not_before
            && certificate.not_after() == record.certificate.not_after;
        if agrees {
            Ok(certificate)
        } else {
            Err(unusable("it is not the one the journal describes".to_owned()))
        }
    }

    fn join(
        &self,
        certificate: AuthorityCertificate,
        signer: Arc<dyn AuthoritySigner>,
    ) -> Result<X509Authority, LifecycleError> {
        let id = certificate.id();
        X509Authority::new(certificate, signer).map_err(|error| self.unusable(id, error.to_string()))
    }

    fn unusable(&self, authority: AuthorityId, problem: String) -> LifecycleError {
        LifecycleError::Certificate {
            kind: self.kind,
            authority,
            problem,
        }
    }

    /// Takes one step and all that follow from it at once.
    pub(super) async fn handle(
        &mut self,
        event: Event,
        at: Moment,
        reports: &SpreadReports,
        tools: &Tools,
    ) -> Result<(), LifecycleError> {
        let now = at.now;
        let mut events = VecDeque::from([event]);
        let mut fresh = None;
        while let Some(event) = events.pop_front() {
            let policy = self.policy;
            let context = Context {
                at,
                policy: &policy,
                reports,
            };
            let open = self
                .set
                .spread_status(&context)
                .is_some_and(|status| status.is_open(now));
            let transition = self.set.apply(event, &context)?;
            for effect in transition.effects.clone() {
                match effect {
                    Effect::SaveJournal => self.save(&transition, &mut fresh, !open, now, tools).await?,
                    Effect::Publish => self.visible = true,
                    Effect::DeleteKey(id) => self.authorities.retain(|held| held.certificate().id() != id),
                    Effect::CheckLastLeaf(id) => events.push_back(last_leaf(id, at, tools).await?),
                    Effect::GenerateKey { activation, author } => {
                        let (event, made) = self.generate(activation, author, now, tools)?;
                        fresh = Some(made);
                        events.push_back(event);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes `transition.next`, the keys that come and go with it, and its audit lines, in one transaction; only then
    /// does this value change.
    async fn save(
        &mut self,
        transition: &Transition,
        fresh: &mut Option<Fresh>,
        forced: bool,
        now: SystemTime,
        tools: &Tools,
    ) -> Result<(), LifecycleError> {
        let next = &transition.next;
        let added = fresh.take_if(|fresh| next.get(fresh.authority.certificate().id()).is_some());
        let (authority, sealed) = added.map(|added| (added.authority, added.sealed)).unzip();
        let removed = transition.effects.iter().filter_map(|effect| match effect {
            Effect::DeleteKey(id) => Some(*id),
            _ => None,
        });
        let keys = KeyChanges {
            add: sealed.into_iter().collect(),
            remove: removed.collect(),
        };
        let audit = audited::changes(self.kind, &self.set, next, forced, now);
        let body = journal::encode(next)?;
        match tools
            .store
            .save_journal(self.kind, self.revision, body, keys, audit)
            .await
        {
            Ok(revision) => self.revision = revision,
            Err(conflict @ StoreError::Conflict { .. }) => {
                self.reload(tools).await?;
                return Err(conflict.into());
            }
            Err(error) => return Err(error.into()),
        }
        self.set = transition.next.clone();
        self.authorities.extend(authority);
        Ok(())
    }

    fn generate(
        &self,
        activation: Activation,
        author: Arc<str>,
        now: SystemTime,
        tools: &Tools,
    ) -> Result<(Event, Fresh), LifecycleError> {
        let NewKey {
            authority_id,
            signer,
            sealed,
        } = tools.keys.generate(self.kind)?;
        let unusable = |problem| self.unusable(authority_id, problem);
        let serial = || {
            let random = fresh_random(tools);
            random.map_err(|_| unusable("the system has no randomness".to_owned()))
        };
        let not_before = now
            .checked_sub(self.policy.clock_skew())
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let profile = AuthorityProfile {
            trust_domain: tools.trust_domain.clone(),
            kind: self.kind,
            not_before,
            not_after: now + self.policy.authority_ttl(),
            serial: SerialNumber::generate(now, &serial()?),
        };
        let certificate =
            create_authority(&profile, signer.as_ref()).map_err(|error| unusable(error.to_string()))?;
        let new = NewAuthority {
            id: certificate.id(),
            certificate: certificate.der().into(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        };
        let link = self.link(&certificate, SerialNumber::generate(now, &serial()?), not_before);
        let authority = self.join(certificate, signer)?;
        Ok((
            Event::Prepared {
                certificate: new,
                activation,
                author,
                link,
            },
            Fresh { authority, sealed },
        ))
    }

    /// What the active control authority says of its successor's key; an old one, and one for workloads, says nothing.
    fn link(
        &self,
        successor: &AuthorityCertificate,
        serial: SerialNumber,
        not_before: SystemTime,
    ) -> Option<Link> {
        let active = self
            .set
            .active()
            .filter(|_| self.kind == AuthorityKind::Control)?
            .id();
        let acting = self
            .authorities
            .iter()
            .find(|held| held.certificate().id() == active)?;
        let made = Link::make(acting, successor, serial, not_before);
        // A rotation does not fail for it: agents that know the active authority need no link.
        made.inspect_err(|error| {
            tracing::warn!(authority = %active, successor = %successor.id(), %error, "no link to the successor");
        })
        .ok()
    }

    /// The state as journalled.
    pub(super) fn set(&self) -> &AuthoritySet {
        &self.set
    }

    /// How far the prepared authority has spread.
    pub(super) fn spread_status(&self, at: Moment, reports: &SpreadReports) -> Option<SpreadStatus> {
        self.set.spread_status(&Context {
            at,
            policy: &self.policy,
            reports,
        })
    }

    /// When to come back.
    pub(super) fn next_deadline(&self, at: Moment, reports: &SpreadReports) -> Option<SystemTime> {
        self.set.next_deadline(&Context {
            at,
            policy: &self.policy,
            reports,
        })
    }

    /// Whether there is something to show since the last call.
    pub(super) fn take_visible(&mut self) -> bool {
        std::mem::take(&mut self.visible)
    }

    /// What others see.
    pub(super) fn view(&self) -> KindView {
        let viewed = self.set.authorities().iter().filter_map(|record| {
            let authority = self
                .authorities
                .iter()
                .find(|held| held.certificate().id() == record.id())?;
            Some(ViewedAuthority {
                authority: authority.clone(),
                state: record.state,
                longest_leaf_ttl: record.longest_leaf_ttl,
            })
        });
        KindView {
            authorities: viewed.collect(),
            links: self.set.links().clone(),
        }
    }
}

async fn last_leaf(authority: AuthorityId, at: Moment, tools: &Tools) -> Result<Event, StoreError> {
    let now = at.settled.unwrap_or(at.now);
    let uses = tools.store.live_counts(now).await?;
    let last = uses
        .iter()
        .find(|usage| usage.authority == authority)
        .map(|usage| usage.latest_not_after);
    Ok(match last {
        Some(not_after) if not_after >= now => Event::LeafOutlives { authority, not_after },
        _ => Event::LastLeafExpired { authority },
    })
}

/// The random part of a serial.
fn fresh_random(tools: &Tools) -> Result<[u8; 13], ring::error::Unspecified> {
    let mut random = [0; 13];
    tools.random.fill(&mut random)?;
    Ok(random)
}
