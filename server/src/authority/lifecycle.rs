//! One kind of authority with its keys and its journal: carries out the machine's effects.

mod error;
mod making;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use ring::rand::SystemRandom;
use signet_certs::authority::{AuthorityId, AuthorityKind, X509Authority};
use signet_certs::id::TrustDomain;
use signet_certs::signer::AuthoritySigner;

pub(super) use self::error::LifecycleError;
use self::making::{Fresh, answered, discard};
use super::audited;
use super::journal;
use super::material::Held;
use super::policy::LifePolicy;
use super::reports::OperationReport;
use super::source::AuthoritySource;
use super::spread::SpreadReports;
use super::state::{AuthorityRecord, AuthoritySet, Context, Event, Moment};
use super::transition::{Effect, Transition};
use super::view::{KindView, ViewedAuthority};
use crate::key_manager::KeyManager;
use crate::store::{KeyChanges, Store, StoreError};

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
    /// Keys of authorities that are gone, as long as somebody may be shown them.
    forgotten: Vec<AuthorityId>,
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
            forgotten: Vec::new(),
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

    /// Takes one step and all that follow from it at once. A key that came to nothing on the way is destroyed. The operation that an
    /// order has begun or joined.
    pub(super) async fn handle(
        &mut self,
        event: Event,
        at: Moment,
        reports: &SpreadReports,
        tools: &Tools,
    ) -> Result<Option<u64>, LifecycleError> {
        let mut fresh = None;
        let outcome = self.follow(event, at, reports, &mut fresh, tools).await;
        if let Some(unused) = fresh {
            discard(unused.authority.id, tools).await;
        }
        outcome
    }

    async fn follow(
        &mut self,
        event: Event,
        at: Moment,
        reports: &SpreadReports,
        fresh: &mut Option<Fresh>,
        tools: &Tools,
    ) -> Result<Option<u64>, LifecycleError> {
        let (now, mut operation) = (at.now, None);
        let mut events = VecDeque::from([event]);
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
            operation = operation.or(transition.operation);
            for effect in transition.effects.clone() {
                match effect {
                    Effect::SaveJournal => self.save(&transition, fresh, !open, now, tools).await?,
                    Effect::Publish => self.visible = true,
                    Effect::DeleteKey(id) => self.forget(id),
                    Effect::CheckLastLeaf(id) => events.push_back(last_leaf(id, at, tools).await?),
                    Effect::GenerateKey {
                        algorithm,
                        activation,
                        author,
                        verb,
                    } => {
                        let made = self.make(algorithm, activation, now, tools).await?;
                        let (authority, link) = (made.authority.clone(), made.link.clone());
                        *fresh = Some(made);
                        events.push_back(Event::Prepared {
                            authority,
                            activation,
                            author,
                            link,
                            verb,
                        });
                    }
                }
            }
        }
        Ok(operation)
    }

    /// The key is of no more use: see [`destroy_forgotten`](Self::destroy_forgotten).
    fn forget(&mut self, id: AuthorityId) {
        self.held.remove(&id);
        self.forgotten.push(id);
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
        let body = journal::encode(next)?;
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
        let saved = tools
            .store
            .save_journal(self.kind, self.revision, body, keys, audit);
        match saved.await {
            Ok(revision) => self.revision = revision,
            Err(error) => {
                if let Some((id, _)) = added {
                    self.discard_unsaved(id, tools).await;
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

    /// How the operations of this kind stand.
    pub(super) fn operations(&self, at: Moment, reports: &SpreadReports) -> Vec<OperationReport> {
        let context = Context {
            at,
            policy: &self.policy,
            reports,
        };
        OperationReport::all(self.kind, &self.set, &context)
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
                author: record.author.clone(),
                history: record.history.clone(),
            })
        });
        KindView {
            authorities: viewed.collect(),
            links: self.set.links().clone(),
            departed: self.set.departed().iter().cloned().collect(),
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
