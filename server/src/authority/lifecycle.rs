//! One kind of authority with its keys and its journal: carries out the machine's effects.

mod making;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use ring::rand::SystemRandom;
use signet_certs::authority::{AuthorityId, AuthorityKind, X509Authority};
use signet_certs::id::TrustDomain;
use signet_certs::signer::AuthoritySigner;

use self::making::{Fresh, MAKING, answered, discard};
use super::audited;
use super::journal::{self, JournalError};
use super::material::Held;
use super::policy::LifePolicy;
use super::source::{AuthoritySource, SourceError};
use super::spread::{SpreadReports, SpreadStatus};
use super::state::{AuthorityRecord, AuthoritySet, Context, Effect, Event, Moment, Refused, Transition};
use super::view::{KindView, ViewedAuthority};
use crate::key_manager::{KeyManager, KeyManagerError};
use crate::store::{KeyChanges, Store, StoreError};

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
    /// Nobody certified a new key.
    #[error("no certificate was made for a new {kind} authority")]
    Source {
        /// Its kind.
        kind: AuthorityKind,
        /// Why.
        source: SourceError,
    },
    /// Whoever makes keys or certificates did not answer.
    #[error("no answer within {} s from {who}: the next try follows by itself", MAKING.as_secs())]
    NoAnswer {
        /// Who was asked.
        who: &'static str,
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

/// What all kinds use.
pub(super) struct Tools {
    pub(super) trust_domain: TrustDomain,
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Arc<dyn KeyManager>,
    pub(super) source: Arc<dyn AuthoritySource>,
    pub(super) random: SystemRandom,
}

/// One kind.
pub(super) struct Lifecycle {
    pub(super) kind: AuthorityKind,
    policy: LifePolicy,
    set: AuthoritySet,
    revision: u64,
    held: BTreeMap<AuthorityId, Held>,
    visible: bool,
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
            held: BTreeMap::new(),
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
        let mut held = BTreeMap::new();
        for record in set.authorities() {
            let id = record.id();
            let kept = sealed.iter().find(|key| key.authority_id == id);
            let opening = tools.keys.open(self.kind, id, kept);
            let signer = answered("whoever keeps the keys", opening).await??;
            let signer = signer.ok_or(LifecycleError::MissingKey {
                kind: self.kind,
                authority: id,
            })?;
            held.insert(id, self.join(record, signer)?);
        }
        if let Some(link) = set.links().iter().find(|link| link.certificate().is_none()) {
            let problem = "the link to it is not the one the journal describes";
            return Err(self.unusable(link.to, problem.to_owned()));
        }
        (self.set, self.revision, self.held, self.visible) = (set, stored.revision, held, true);
        Ok(())
    }

    /// The record with its key, if what it says of itself is what its material says.
    fn join(
        &self,
        record: &AuthorityRecord,
        signer: Arc<dyn AuthoritySigner>,
    ) -> Result<Held, LifecycleError> {
        let described = &record.authority;
        let unusable = |problem| self.unusable(record.id(), problem);
        let held = described
            .material
            .join(signer)
            .map_err(|error| unusable(error.to_string()))?;
        let authority = held.x509();
        let certificate = authority.certificate();
        let agrees = certificate.id() == described.id
            && authority.signer().algorithm() == described.algorithm
            && certificate.not_before() == described.not_before
            && certificate.not_after() == described.not_after;
        if agrees {
            Ok(held)
        } else {
            Err(unusable("it is not the one the journal describes".to_owned()))
        }
    }

    pub(super) fn unusable(&self, authority: AuthorityId, problem: String) -> LifecycleError {
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
                    Effect::DeleteKey(id) => self.forget(id, tools).await,
                    Effect::CheckLastLeaf(id) => events.push_back(last_leaf(id, at, tools).await?),
                    Effect::GenerateKey {
                        algorithm,
                        activation,
                        author,
                    } => {
                        let made = self.make(algorithm, now, tools).await?;
                        let (authority, link) = (made.authority.clone(), made.link.clone());
                        fresh = Some(made);
                        events.push_back(Event::Prepared {
                            authority,
                            activation,
                            author,
                            link,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// The key is of no more use. What the store has of it is gone already; what is elsewhere may be left behind by a crash, or where
    /// nobody answers: no journal names it then, and it signs nothing.
    async fn forget(&mut self, id: AuthorityId, tools: &Tools) {
        self.held.remove(&id);
        discard(id, tools).await;
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
        let added = fresh.take_if(|fresh| next.get(fresh.authority.id).is_some());
        let (added, sealed) = added
            .map(|added| ((added.authority.id, added.held), added.sealed))
            .unzip();
        let removed = transition.effects.iter().filter_map(|effect| match effect {
            Effect::DeleteKey(id) => Some(*id),
            _ => None,
        });
        let keys = KeyChanges {
            add: Option::flatten(sealed).into_iter().collect(),
            remove: removed.collect(),
        };
        let audit = audited::changes(self.kind, &self.set, next, forced, now);
        let body = journal::encode(next)?;
        let saved = tools
            .store
            .save_journal(self.kind, self.revision, body, keys, audit);
        match saved.await {
            Ok(revision) => self.revision = revision,
            Err(error) => {
                if let Some((id, _)) = added {
                    discard(id, tools).await;
                }
                if matches!(error, StoreError::Conflict { .. }) {
                    self.reload(tools).await?;
                }
                return Err(error.into());
            }
        }
        self.set = transition.next.clone();
        self.held.extend(added);
        Ok(())
    }

    /// The key and certificates of the authority that signs leaves.
    pub(super) fn acting(&self) -> Option<&X509Authority> {
        let active = self.set.active()?.id();
        self.held.get(&active).map(Held::x509)
    }

    /// Settings.
    pub(super) fn policy(&self) -> LifePolicy {
        self.policy
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
            Some(ViewedAuthority {
                held: self.held.get(&record.id())?.clone(),
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
