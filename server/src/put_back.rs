//! Whether an older store was put in this one's place, which agents reveal: they report the lists that they hold, by number and
//! digest. Only a signed object proves anything against the server. So where a report names a list that this store lacks, that
//! agent is asked for the list itself, one agent at a time; a list that one of our authorities has signed and that the store
//! lacks is proof, is kept, and stands until what it names is listed or has ended. Anything else is an alarm against the agent.

mod judge;
mod known;
mod questions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use signet_certs::authority::AuthorityId;
use signet_certs::crl::CrlNumber;
use signet_certs::id::SpiffeId;
use signet_runtime::drain::Drain;
use signet_runtime::sync::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep_until};

pub(crate) use self::judge::{Claim, Floors, Lack, Proof};
use self::known::KnownLists;
use self::questions::{PATIENCE, Questions, Turn};
use crate::audit::{AuditAction, AuditEvent, AuditLog};
use crate::clock::TrustedClock;
use crate::metrics::Metrics;
use crate::store::{ListProof, Store, StoreError};
use crate::trust::TrustSnapshot;

/// How often it is looked whether a proof still stands, besides each change of the lists.
const LOOK: Duration = Duration::from_secs(1);
/// So many lists of an authority prove enough.
const MOST_PROOFS: usize = 8;

/// What it is built from.
pub(crate) struct PutBackParts {
    /// Holds proofs and the digests of the lists it has kept.
    pub store: Arc<dyn Store>,
    /// Where alarms go.
    pub audit: AuditLog,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// The server's time.
    pub clock: Arc<TrustedClock>,
    /// What is published.
    pub snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    /// For the publisher.
    pub floors: watch::Sender<Floors>,
    /// Ends the task.
    pub drain: Drain,
}

/// See the module's documentation.
pub(crate) struct PutBack {
    store: Arc<dyn Store>,
    audit: AuditLog,
    metrics: Arc<Metrics>,
    clock: Arc<TrustedClock>,
    snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    floors: watch::Sender<Floors>,
    trouble: watch::Sender<Option<String>>,
    questions: Mutex<Questions>,
    proofs: Mutex<Vec<Arc<Proof>>>,
    known: KnownLists,
    /// Changes when it may be another agent's turn.
    turns: watch::Sender<u64>,
}

/// A question that one agent has been asked; no other is, until it is dropped.
pub(crate) struct Question {
    /// What the agent has reported.
    pub claim: Claim,
    /// When it has answered or is taken for a liar.
    pub until: Instant,
    owner: Arc<PutBack>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.owner.questions.lock().end();
        self.owner.turns.send_modify(|turns| *turns += 1);
    }
}

impl PutBack {
    /// Reads the proofs that are kept and begins to watch over them. What stands is known when this returns.
    ///
    /// # Errors
    /// The proofs could not be read.
    pub(crate) async fn start(parts: PutBackParts) -> Result<Arc<Self>, StoreError> {
        let kept = parts.store.proofs().await?;
        let known = KnownLists::new(parts.store.clone());
        let put_back = Arc::new(Self {
            store: parts.store,
            audit: parts.audit,
            metrics: parts.metrics,
            clock: parts.clock,
            snapshots: parts.snapshots,
            floors: parts.floors,
            trouble: watch::Sender::new(None),
            questions: Mutex::default(),
            proofs: Mutex::new(kept.into_iter().map(Proof::new).map(Arc::new).collect()),
            known,
            turns: watch::Sender::new(0),
        });
        put_back.look().await;
        let kept = put_back.clone();
        let drain = parts.drain.clone();
        drain
            .clone()
            .spawn_vital("proofs", async move { kept.keep(drain).await });
        Ok(put_back)
    }

    async fn keep(&self, drain: Drain) {
        let (mut tick, mut snapshots, mut turns) =
            (interval(LOOK), self.snapshots.clone(), self.turns.subscribe());
        loop {
            tokio::select! {
                () = drain.signalled() => return,
                _ = tick.tick() => {}
                Ok(()) = snapshots.changed() => {}
                Ok(()) = turns.changed() => {}
            }
            snapshots.mark_unchanged();
            if !self.proofs.lock().is_empty() {
                self.look().await;
            }
        }
    }

    /// Why what this server gives is not to be relied on, as it changes; nothing while no proof stands.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// The proofs that stand.
    pub(crate) fn standing(&self) -> Vec<(Arc<Proof>, Lack)> {
        let proofs = self.proofs.lock().clone();
        let stands = |proof: Arc<Proof>| self.stands(&proof).map(|lack| (proof, lack));
        proofs.into_iter().filter_map(stands).collect()
    }

    fn stands(&self, proof: &Proof) -> Option<Lack> {
        let snapshot = self.snapshots.borrow().clone();
        judge::standing(proof, &snapshot, self.clock.time().removing())
    }

    /// Lets go of what proves nothing any more, and says what stands.
    async fn look(&self) {
        if self.snapshots.borrow().is_empty() {
            return;
        }
        for (proof, lack) in self.standing() {
            self.ask_the_store(&proof, &lack).await;
        }
        let standing = self.standing();
        let over: Vec<_> = self
            .proofs
            .lock()
            .iter()
            .filter(|proof| !standing.iter().any(|(stands, _)| Arc::ptr_eq(stands, proof)))
            .cloned()
            .collect();
        for proof in over {
            self.let_go(&proof).await;
        }
        let floors = judge::floors(&standing);
        self.floors
            .send_if_modified(|current| std::mem::replace(current, floors.clone()) != floors);
        let trouble = judge::words(&standing);
        self.trouble
            .send_if_modified(|current| std::mem::replace(current, trouble.clone()) != trouble);
    }

    /// Finds out what of a proof this store has listed once and let go of.
    async fn ask_the_store(&self, proof: &Proof, lack: &Lack) {
        let serials = proof.in_question(lack);
        if serials.is_empty() {
            return;
        }
        match self.store.let_go(proof.stored.authority, serials).await {
            Ok(over) => proof.answered(lack, over),
            Err(error) => {
                tracing::error!(%error, "what this store has let go of could not be read; a proof may stand for longer");
            }
        }
    }

    async fn let_go(&self, proof: &Arc<Proof>) {
        let ListProof {
            authority, number, ..
        } = proof.stored;
        match self.store.drop_proof(authority, proof.stored.sha256).await {
            Ok(()) => {
                tracing::warn!(%authority, %number, "what a list names that this store lacked is listed, or has ended");
                self.proofs.lock().retain(|kept| !Arc::ptr_eq(kept, proof));
            }
            Err(error) => tracing::error!(%error, "a proof that is over could not be dropped"),
        }
    }

    /// The lists of a report that this store should have and lacks.
    pub(crate) async fn claims(&self, lists: &[(AuthorityId, CrlNumber, [u8; 32])]) -> Vec<Claim> {
        let snapshot = self.snapshots.borrow().clone();
        self.known.claims(&snapshot, lists).await
    }

    /// Waits until it is this agent's turn to be asked for one of the lists that it claims to hold.
    pub(crate) async fn turn(self: &Arc<Self>, agent: &SpiffeId, claims: &[Claim]) -> Question {
        let mut turns = self.turns.subscribe();
        loop {
            turns.mark_unchanged();
            let turn =
                self.questions
                    .lock()
                    .turn(agent, claims, |claim| self.is_proven(claim), Instant::now());
            match turn {
                Turn::Ask(claim) => {
                    return Question {
                        claim,
                        until: Instant::now() + PATIENCE,
                        owner: self.clone(),
                    };
                }
                Turn::At(at) => tokio::select! {
                    _ = turns.changed() => {}
                    () = sleep_until(at) => {}
                },
                // It cannot fail: this holds the sender.
                Turn::Never => drop(turns.changed().await),
            }
        }
    }

    fn is_proven(&self, claim: &Claim) -> bool {
        let proofs = self.proofs.lock();
        let of = proofs
            .iter()
            .filter(|proof| proof.stored.authority == claim.authority);
        of.clone().count() >= MOST_PROOFS || of.clone().any(|proof| proof.stored.sha256 == claim.sha256)
    }

    /// Judges what an agent hands over. `still` is what it claims in the same breath: who holds another list by now hands
    /// over that.
    ///
    /// # Errors
    /// Why it proves nothing, as an alarm that is raised already.
    pub(crate) async fn answered(
        &self,
        agent: &SpiffeId,
        question: Question,
        held: &[Bytes],
        still: &[Claim],
    ) -> Result<(), String> {
        let claim = question.claim;
        let snapshot = self.snapshots.borrow().clone();
        let Some(published) = snapshot.get(claim.authority) else {
            return Ok(());
        };
        let now = self.clock.now();
        let crl = judge::verified(held, published, now).map_err(|why| self.unproven(agent, &claim, &why))?;
        if !self.known.lacks(published, crl.number(), crl.sha256()).await {
            if still.iter().any(|other| other.sha256 == claim.sha256) {
                return Err(self.unproven(
                    agent,
                    &claim,
                    "it handed over another list, which this store has",
                ));
            }
            return Ok(());
        }
        let stored = ListProof {
            authority: claim.authority,
            number: crl.number(),
            sha256: crl.sha256(),
            der: crl.der().clone(),
            agent: agent.clone(),
            found_at: now,
        };
        self.prove(stored, published.crl.number()).await;
        Ok(())
    }

    async fn prove(&self, stored: ListProof, own: CrlNumber) {
        let ListProof {
            authority, number, ..
        } = stored;
        let proof = Arc::new(Proof::new(stored.clone()));
        if let Some(lack) = self.stands(&proof) {
            self.ask_the_store(&proof, &lack).await;
        }
        if self.stands(&proof).is_none() {
            // Of an older store that was put back once: what it names was entered since, or has ended.
            tracing::debug!(agent = %stored.agent, %authority, %number, "a list that this store has not signed names nothing that it lacks");
            return;
        }
        tracing::error!(agent = %stored.agent, %authority, %number, %own, "this store lacks a list that its authority has signed: an older store was put in its place");
        let line = AuditAction::StorePutBack {
            agent_id: stored.agent.clone(),
            authority_id: authority,
            number: number.0,
            own_number: own.0,
            sha256: hex::encode(stored.sha256),
        };
        let line = AuditEvent::new(stored.found_at, line);
        if let Err(error) = self.store.keep_proof(stored.clone(), line).await {
            tracing::error!(%error, "a proof against this store could not be kept in it; it stands until this process ends");
        }
        self.proofs.lock().push(proof);
        self.look().await;
    }

    /// Raises the alarm against an agent that reports a list which it does not prove; returns it in words.
    pub(crate) fn unproven(&self, agent: &SpiffeId, claim: &Claim, why: &str) -> String {
        self.metrics.list_unproven();
        let Claim {
            authority,
            number,
            own,
            ..
        } = *claim;
        tracing::warn!(%agent, %authority, %number, %own, why, "an agent reports a list that this store lacks, and does not prove it");
        let line = AuditAction::ListUnproven {
            agent_id: agent.clone(),
            authority_id: authority,
            number: number.0,
            own_number: own.0,
            reason: why.to_owned(),
        };
        self.audit.record(AuditEvent::new(self.clock.now(), line));
        format!(
            "reports list {number} of authority {authority}, which this server has not signed (its newest is {own}): {why}"
        )
    }
}

#[cfg(test)]
mod tests;
