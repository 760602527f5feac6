//! The task that signs lists and shows snapshots.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::authority::AuthorityId;
use signet_certs::crl::{Crl, CrlNumber, RevokedEntry};
use signet_runtime::backoff::Backoff;
use signet_runtime::drain::Drain;
use signet_runtime::error;
use signet_runtime::pace;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::firsts::Gate;
use super::list::{Draft, List, PublishError};
use super::plan::{self, Demand};
use super::room::{self, RoomUse, Rooms};
use super::{COALESCE, PublisherParts, PublisherSettings};
use crate::authority::{AuthorityState, AuthorityView, KindView, ViewedAuthority};
use crate::clock::{State, Time, TrustedClock};
use crate::store::{ListRoom, Store, StoreError, StoredCrl};
use crate::trust::{PublishedAuthority, TrustSnapshot};

const RETRIES: Backoff = Backoff::between(Duration::from_millis(500), Duration::from_secs(30));
/// The wall clock may be set, and a word of a revocation lost; so the task looks at both at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Owner of the lists.
pub(super) struct Worker {
    settings: PublisherSettings,
    store: Arc<dyn Store>,
    view: watch::Receiver<Arc<AuthorityView>>,
    snapshots: watch::Sender<Arc<TrustSnapshot>>,
    clock: Arc<TrustedClock>,
    clock_state: watch::Receiver<State>,
    wishes: watch::Receiver<u64>,
    floors: watch::Receiver<BTreeMap<AuthorityId, CrlNumber>>,
    gate: Gate,
    rooms: Rooms,
    trouble: watch::Sender<Option<String>>,
    lists: BTreeMap<AuthorityId, List>,
    /// Where the authorities stood when a snapshot was shown last.
    states: Vec<AuthorityState>,
    sequence: Option<([u8; 32], u64)>,
    last_signed: Option<Instant>,
}

impl Worker {
    /// Reads the stored lists. One that does not verify under its authority is not used, but its number counts.
    pub(super) async fn load(
        parts: PublisherParts,
        wishes: watch::Receiver<u64>,
        rooms: watch::Sender<Vec<RoomUse>>,
        trouble: watch::Sender<Option<String>>,
    ) -> Result<Self, StoreError> {
        let mut worker = Self {
            settings: parts.settings,
            store: parts.store,
            view: parts.view,
            snapshots: parts.snapshots,
            clock_state: parts.clock.state(),
            clock: parts.clock,
            wishes,
            floors: parts.floors,
            gate: Gate::new(parts.firsts),
            rooms: Rooms::new(rooms),
            trouble,
            lists: BTreeMap::new(),
            states: Vec::new(),
            sequence: None,
            last_signed: None,
        };
        worker.reload().await?;
        Ok(worker)
    }

    async fn reload(&mut self) -> Result<(), StoreError> {
        let view = self.view.borrow().clone();
        for stored in self.store.load_crls().await? {
            let issuer = view.all().find(|(_, viewed)| viewed.id() == stored.authority);
            let crl = issuer.and_then(|(_, viewed)| {
                let verified = Crl::verify(&stored.der, viewed.certificate());
                if let Err(error) = &verified {
                    tracing::error!(authority_id = %stored.authority, %error, "stored CRL is not usable, signing anew");
                }
                verified.ok()
            });
            let list = List {
                crl,
                number: Some(stored.number),
                revision: stored.revision,
                floor: None,
                checked: None,
            };
            self.lists.insert(stored.authority, list);
        }
        Ok(())
    }

    /// Shows the stored lists as they are, if every authority has a current one.
    pub(super) async fn show_stored(&mut self) {
        let (view, now) = (self.view.borrow().clone(), self.clock.now());
        let current = |viewed: &ViewedAuthority| {
            let list = self.lists.get(&viewed.id()).and_then(|list| list.crl.as_ref());
            list.is_some_and(|crl| crl.is_current(now))
        };
        if view.all().all(|(_, viewed)| current(viewed))
            && let Err(error) = self.show(&view).await
        {
            tracing::warn!(error = &error as &dyn Error, "stored lists not shown yet");
        }
    }

    /// Works until the drain starts.
    pub(super) async fn run(mut self, drain: Drain) {
        let mut retry = RETRIES;
        loop {
            let trouble = self.refresh().await;
            let wake_at = if trouble.is_none() {
                retry.reset();
                self.next_look()
            } else {
                Instant::now() + retry.next(0.0)
            };
            self.trouble.send_replace(trouble);
            tokio::select! {
                Ok(()) = self.view.changed() => {}
                Ok(()) = self.wishes.changed() => self.coalesce(&drain).await,
                Ok(()) = self.clock_state.changed() => {}
                Ok(()) = self.floors.changed() => {}
                () = self.gate.changed() => {}
                () = sleep_until(wake_at) => {}
                () = drain.signalled() => return,
            }
            if drain.is_draining() {
                return;
            }
        }
    }

    /// A lone change is signed at once. What comes within [`COALESCE`] after a list waits for the end of that time and
    /// goes into one list.
    async fn coalesce(&self, drain: &Drain) {
        let Some(last_signed) = self.last_signed else {
            return;
        };
        tokio::select! {
            () = sleep_until(last_signed + COALESCE) => {}
            () = drain.signalled() => {}
        }
    }

    /// Brings every list up to date and shows the result. Returns the first thing that failed and is worth another try.
    async fn refresh(&mut self) -> Option<String> {
        let view = self.view.borrow_and_update().clone();
        let asked = *self.wishes.borrow_and_update();
        let rooms = room::rooms(&view, self.settings.crl_max_bytes);
        let admitted = self.admit(rooms.clone()).await;
        let mut trouble = admitted.as_ref().err().map(|error| error::chain(error));
        let wanted = asked.max(admitted.unwrap_or_default());
        for (kind, viewed) in view.all() {
            if let Err(error) = self.refresh_list(viewed, wanted).await {
                trouble.get_or_insert_with(|| {
                    format!("{kind} authority {}: {}", viewed.id(), error::chain(&error))
                });
                tracing::error!(
                    %kind, authority_id = %viewed.id(), error = &error as &dyn Error,
                    "CRL not renewed, the one before it stays in force"
                );
            }
        }
        self.lists
            .retain(|id, _| view.all().any(|(_, viewed)| viewed.id() == *id));
        self.rooms.show(&rooms, |authority| self.entry_count(authority));
        if let Err(error) = self.show(&view).await {
            trouble.get_or_insert_with(|| error::chain(&error));
            tracing::error!(
                error = &error as &dyn Error,
                "trust state not published, will try again"
            );
        }
        trouble
    }

    /// Lets onto the lists what there is room for, before they are signed. Where that fails they are signed all the same.
    async fn admit(&mut self, rooms: Vec<ListRoom>) -> Result<u64, StoreError> {
        let admitted = self
            .store
            .admit(rooms, self.clock.time().earliest)
            .await
            .inspect_err(
                |error| tracing::error!(%error, "what waits for room on the lists goes on waiting"),
            )?;
        self.rooms.set_waiting(admitted.waiting);
        Ok(admitted.revision)
    }

    fn entry_count(&self, authority: &AuthorityId) -> usize {
        let crl = self.lists.get(authority).and_then(|list| list.crl.as_ref());
        crl.map_or(0, Crl::entry_count)
    }

    async fn refresh_list(&mut self, viewed: &ViewedAuthority, wanted: u64) -> Result<(), PublishError> {
        let (id, time) = (viewed.id(), self.clock.time());
        let demand = self.demand(viewed);
        let list = self.lists.entry(id).or_default();
        list.floor = self.floors.borrow().get(&id).copied();
        let due = list.is_behind()
            || list.crl.as_ref().is_none_or(|crl| {
                let now = time.adding().ok();
                now.is_some_and(|now| demand.due(crl) <= now || plan::is_of_the_future(crl, now))
            });
        if !due && list.is_checked(wanted, LONGEST_SLEEP) {
            return Ok(());
        }
        let (set, checked) = (self.store.revoked(id).await?, Some(Instant::now()));
        match &list.crl {
            Some(crl) if !due && !plan::lacks(crl, &set.entries) => {
                (list.revision, list.checked) = (set.revision, checked);
            }
            _ => {
                let signed = self.sign(viewed, set.entries, set.revision, time).await;
                if let Err(PublishError::Store(StoreError::NotNewer { .. })) = signed {
                    // Somebody else's list, or one of ours whose acknowledgement was lost, is stored already.
                    self.reload().await?;
                }
                signed?;
            }
        }
        Ok(())
    }

    async fn sign(
        &mut self,
        viewed: &ViewedAuthority,
        entries: Vec<RevokedEntry>,
        revision: u64,
        time: Time,
    ) -> Result<(), PublishError> {
        let list = self.lists.entry(viewed.id()).or_default();
        let draft = Draft::new(viewed, list, entries, self.settings.clock_skew, time);
        let number = draft.number;
        #[cfg(test)]
        let before = list.crl.as_ref().map(|crl| crl.der().clone());
        let crl = draft.sign(viewed.x509().clone()).await?;
        // Every list of every test comes by here.
        #[cfg(test)]
        signet_testkit::check_der(crl.der(), viewed.certificate().der(), before.as_deref()).unwrap();
        self.store
            .save_crl(StoredCrl {
                authority: viewed.id(),
                number,
                der: crl.der().clone(),
                this_update: crl.this_update(),
                next_update: crl.next_update(),
                revision,
            })
            .await?;
        tracing::info!(authority_id = %viewed.id(), %number, entries = crl.entry_count(), "CRL signed");
        let signed_at = Some(Instant::now());
        *list = List {
            crl: Some(crl),
            number: Some(number),
            revision,
            floor: list.floor,
            checked: signed_at,
        };
        self.last_signed = signed_at;
        Ok(())
    }

    /// Sends a snapshot if it differs from the last one. An authority without a list stays out of it (INV-2); the
    /// machine activates none that was not shown.
    async fn show(&mut self, view: &AuthorityView) -> Result<(), PublishError> {
        if !self.gate.opens(view, Instant::now()) {
            return Ok(());
        }
        let kinds = view.kinds();
        let mut next = TrustSnapshot {
            trust_domain: self.settings.trust_domain.clone(),
            sequence: 0,
            refresh_hint: self.settings.refresh_hint,
            kinds: kinds.map(|(kind, view)| (kind, self.published(view))).collect(),
            departed: view.departed().collect(),
        };
        if next.is_empty() {
            return Ok(());
        }
        next.sequence = self.sequence_of(next.content_digest()).await?;
        // Readers do not see where an authority stands, but whoever drives it waits for word of each step.
        let states: Vec<AuthorityState> = view.all().map(|(_, viewed)| viewed.state).collect();
        let moved = self.states != states;
        self.states = states;
        self.snapshots.send_if_modified(|current| {
            // The same list may be complete up to more revocations.
            let revisions =
                |snapshot: &TrustSnapshot| snapshot.all().map(|one| one.crl_revision).collect::<Vec<_>>();
            let changed = moved || !current.same_content(&next) || revisions(current) != revisions(&next);
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
        Ok(())
    }

    async fn sequence_of(&mut self, digest: [u8; 32]) -> Result<u64, StoreError> {
        if let Some((known, sequence)) = self.sequence
            && known == digest
        {
            return Ok(sequence);
        }
        let sequence = self.store.next_sequence(digest).await?;
        self.sequence = Some((digest, sequence));
        Ok(sequence)
    }

    fn published(&self, view: &KindView) -> Vec<PublishedAuthority> {
        let listed = view.authorities.iter().filter_map(|viewed| {
            let list = self.lists.get(&viewed.id())?;
            Some(PublishedAuthority {
                certificate: viewed.certificate().clone(),
                crl: list.crl.clone()?,
                crl_revision: list.revision,
                tainted: matches!(viewed.state, AuthorityState::Tainted { .. }),
            })
        });
        listed.collect()
    }

    fn demand(&self, viewed: &ViewedAuthority) -> Demand {
        Demand {
            longest_leaf_ttl: viewed.longest_leaf_ttl,
            clock_skew: self.settings.clock_skew,
            last_crl_from: viewed.last_crl_from(),
        }
    }

    /// When a list is due, and while there is no trusted time none is, whatever its dates; or when a bundle that is held up goes out.
    fn next_look(&self) -> Instant {
        let sleep = match self.clock.time().adding() {
            Ok(now) => {
                let view = self.view.borrow().clone();
                let due = view.all().filter_map(|(_, viewed)| {
                    let crl = self.lists.get(&viewed.id())?.crl.as_ref()?;
                    Some(self.demand(viewed).due(crl))
                });
                pace::slice(now, due.min(), LONGEST_SLEEP)
            }
            Err(_) => LONGEST_SLEEP,
        };
        let look = Instant::now() + sleep;
        self.gate
            .at_latest()
            .map_or(look, |at_latest| look.min(at_latest))
    }
}
