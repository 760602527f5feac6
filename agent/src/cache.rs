//! What every workload of this node holds, and what to ask the server for and when. Pure: no clock, no randomness, no
//! I/O; the manager passes the moment, a random fraction and the outcomes in, and asks what is due and what to publish.
//! What is waited for is elapsed time; the date decides only what is published.
//!
//! A workload has identities (slots), default first. For each slot:
//! - it is asked for at once when it holds nothing usable, and renewed near half of the remaining life;
//! - it is asked for again at once when its own serial is revoked, its authority leaves the bundle, or the server names
//!   the workload as affected; and within [`TAINT_SPREAD`] when its authority is tainted;
//! - a failure keeps the last good leaf until that expires and is retried with a backoff of its own (invariant 9);
//! - a verdict (no rule, denied) withdraws the leaf and stands until the policy revision changes or the workload is
//!   named as affected;
//! - at most one request is in flight;
//! - nothing is asked without evidence: a token proves its pod until it expires, and in an outage of the cluster also
//!   after that, if it had not expired when the outage began.

mod slot;
mod types;
mod workload;

#[cfg(test)]
mod model;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use signet_runtime::backoff::Backoff;

use self::slot::Slot;
use self::types::leaf_id;
pub(crate) use self::types::{
    Affected, CacheState, Evidence, Failure, Granted, Issued, Leaf, SlotStatus, TrustView, UnixFacts,
    Verdict, Wanted, WorkloadId,
};
use self::workload::Workload;
use crate::time::Moment;

/// Re-issues for a tainted authority, and re-checks of all workloads, are spread over this time by each leaf's jitter.
pub(crate) const TAINT_SPREAD: Duration = Duration::from_secs(10);

/// Identities of one workload that are served; what the server lists beyond them is cut off (clients take at most 100).
pub(crate) const MAX_IDENTITIES: usize = 64;

/// The whole cache. See the module's documentation.
pub(crate) struct Cache {
    workloads: BTreeMap<WorkloadId, Workload>,
    trust: Option<Arc<dyn TrustView>>,
    policy_revision: Option<u64>,
    /// Since when the cluster's API server cannot be reached.
    outage: Option<SystemTime>,
    backoff: Backoff,
    next_slot: u64,
}

impl Cache {
    /// An empty cache; `backoff` is the pattern for each identity's own.
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self {
            workloads: BTreeMap::new(),
            trust: None,
            policy_revision: None,
            outage: None,
            backoff,
            next_slot: 0,
        }
    }

    /// Adds a workload, or replaces the evidence of a known one. Better evidence ends the waiting for a retry.
    pub(crate) fn set_evidence(&mut self, id: &WorkloadId, evidence: Evidence) {
        if let Some(known) = self.workloads.get_mut(id) {
            known.set_evidence(evidence);
            return;
        }
        let first = self.new_slot(None, String::new());
        self.workloads.insert(id.clone(), Workload::new(evidence, first));
    }

    /// Takes over the leaves with hints, default first, that an earlier run of the agent kept for a workload; ignored for one
    /// that holds something; an answer that is still awaited is ignored then. `u` in [0, 1) is their jitter. What the present trust does not support is not
    /// published, as ever.
    pub(crate) fn restore(
        &mut self,
        id: &WorkloadId,
        leaves: Vec<(Leaf, SpiffeId, String)>,
        now: Moment,
        u: f64,
    ) {
        if !self.workloads.get(id).is_some_and(Workload::is_empty) || leaves.is_empty() {
            return;
        }
        let mut slots = Vec::with_capacity(leaves.len());
        for (leaf, spiffe_id, hint) in leaves.into_iter().take(MAX_IDENTITIES) {
            let mut slot = self.new_slot(Some(spiffe_id), hint);
            slot.restore(leaf, self.policy_revision, now, u);
            slots.push(slot);
        }
        if let Some(workload) = self.workloads.get_mut(id) {
            workload.slots = slots;
        }
    }

    /// Forgets a workload; answers that are still under way are ignored.
    pub(crate) fn remove(&mut self, id: &WorkloadId) {
        self.workloads.remove(id);
    }

    /// The workload is known.
    pub(crate) fn contains(&self, id: &WorkloadId) -> bool {
        self.workloads.contains_key(id)
    }

    /// Takes over a new bundle and CRLs: leaves that they no longer support are asked for again.
    pub(crate) fn set_trust(&mut self, trust: Arc<dyn TrustView>, now: Moment) {
        for slot in self
            .workloads
            .values_mut()
            .flat_map(|workload| &mut workload.slots)
        {
            slot.trust_changed(trust.as_ref(), now);
        }
        self.trust = Some(trust);
    }

    /// Takes over the server's policy revision: verdicts that rest on another are asked for again.
    pub(crate) fn set_policy_revision(&mut self, revision: u64, now: Moment) {
        if self.policy_revision.replace(revision) == Some(revision) {
            return;
        }
        for slot in self
            .workloads
            .values_mut()
            .flat_map(|workload| &mut workload.slots)
        {
            slot.policy_changed(revision, now);
        }
    }

    /// Takes over since when the cluster's API server cannot be reached: meanwhile nobody gets a newer token, and one that was
    /// good when it began is asked with.
    pub(crate) fn set_outage(&mut self, since: Option<SystemTime>) {
        self.outage = since;
    }

    /// Asks again for the named workloads at once, for all of them within [`TAINT_SPREAD`].
    pub(crate) fn affected(&mut self, affected: &Affected, now: Moment) {
        match affected {
            Affected::All => self
                .workloads
                .values_mut()
                .for_each(|workload| workload.recheck_spread(now)),
            Affected::Pods(uids) => {
                for uid in uids {
                    if let Some(workload) = self.workloads.get_mut(&WorkloadId::Pod(uid.clone())) {
                        workload.recheck(now);
                    }
                }
            }
        }
    }

    /// The server can be reached again: nobody waits out a backoff, and verdicts given before are asked for again,
    /// for what the server named in between did not arrive.
    pub(crate) fn server_back(&mut self, now: Moment) {
        for slot in self
            .workloads
            .values_mut()
            .flat_map(|workload| &mut workload.slots)
        {
            slot.server_back(now);
        }
    }

    /// Wipes the keys of leaves whose life is over.
    pub(crate) fn forget_expired(&mut self, now: Moment) {
        for slot in self
            .workloads
            .values_mut()
            .flat_map(|workload| &mut workload.slots)
        {
            slot.forget_expired(now);
        }
    }

    /// At most `limit` identities to ask for now. Each counts as in flight until it is answered.
    pub(crate) fn due(&mut self, now: Moment, limit: usize) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        self.forget_expired(now);
        for (id, workload) in &mut self.workloads {
            if !workload.can_ask(self.outage, now) {
                continue;
            }
            for (index, slot) in workload.slots.iter_mut().enumerate() {
                if wanted.len() == limit {
                    return wanted;
                }
                if slot.ask_at(now).is_some_and(|at| at <= now.elapsed) {
                    slot.take(now);
                    // The first is asked for as "the default", so that a change of order in the rules shows.
                    let spiffe_id = slot.spiffe_id.clone().filter(|_| index > 0);
                    wanted.push(Wanted {
                        workload: id.clone(),
                        spiffe_id,
                        slot: slot.number,
                    });
                }
            }
        }
        wanted
    }

    /// A leaf arrived. `u` in [0, 1) is this leaf's jitter, drawn once.
    ///
    /// A leaf that the present trust does not support counts as a failure: it is never published. One that has ended by the
    /// date is kept, for the date may be wrong, and not published while it says so.
    pub(crate) fn issued(&mut self, wanted: &Wanted, issued: Issued, now: Moment, u: f64) {
        let Some(trust) = self.trust.clone() else {
            return self.failed(wanted, &Failure::new("no trust bundle yet"), now, u);
        };
        let Some(index) = self.slot_index(wanted) else {
            return;
        };
        if let Some(message) = slot::unsupported(&issued.leaf, trust.as_ref()) {
            return self.failed(wanted, &Failure::new(message), now, u);
        }
        let Some(workload) = self.workloads.get_mut(&wanted.workload) else {
            return;
        };
        let Issued { leaf, identities } = issued;
        let Some(spiffe_id) = leaf_id(&leaf, wanted, &identities) else {
            let message = "the server's answer names another identity than the one that was asked for";
            return self.failed(wanted, &Failure::new(message), now, u);
        };
        let replaced = workload.slots[index].rename(spiffe_id);
        workload.slots[index].issued(leaf, trust.as_ref(), now, u);
        if let Some((former, held)) = replaced {
            // The default changed: what was held for the former one stays with it while it is still listed.
            let mut slot = self.new_slot(Some(former), String::new());
            slot.inherit(held);
            if let Some(workload) = self.workloads.get_mut(&wanted.workload) {
                workload.slots.push(slot);
            }
        }
        if wanted.spiffe_id.is_none() {
            self.set_identities(&wanted.workload, wanted.slot, identities);
        }
    }

    /// The server refused for good. The leaf is withdrawn.
    pub(crate) fn refused(&mut self, wanted: &Wanted, verdict: Verdict, now: Moment) {
        let current = self.policy_revision;
        let Some(slot) = self.slot_mut(wanted) else { return };
        let outdated = current.is_some_and(|revision| revision != verdict.policy_revision);
        slot.refused(verdict, outdated, now);
    }

    /// No answer, or none that counts. `u` in [0, 1) spreads the retries.
    pub(crate) fn failed(&mut self, wanted: &Wanted, failure: &Failure, now: Moment, u: f64) {
        if let Some(slot) = self.slot_mut(wanted) {
            slot.failed(failure, now, u);
        }
    }

    /// What to publish for a workload; `None` when it is not known.
    pub(crate) fn state(&self, id: &WorkloadId, now: Moment) -> Option<CacheState<'_>> {
        let workload = self.workloads.get(id)?;
        Some(workload.state(self.trust.as_deref(), self.outage, now))
    }

    /// Whether the workload holds something and nothing but the date speaks against it.
    pub(crate) fn waits_for_its_date(&self, id: &WorkloadId) -> bool {
        let (Some(workload), Some(trust)) = (self.workloads.get(id), &self.trust) else {
            return false;
        };
        let mut leaves = workload.slots.iter().filter_map(Slot::leaf).peekable();
        leaves.peek().is_some() && leaves.all(|leaf| slot::unsupported(leaf, trust.as_ref()).is_none())
    }

    /// Marks that the workload has been served, so that a further identity does not hold back the others.
    pub(crate) fn published(&mut self, id: &WorkloadId) {
        if let Some(workload) = self.workloads.get_mut(id) {
            workload.served = true;
        }
    }

    /// Earliest moment of elapsed time at which [`Cache::due`] or [`Cache::state`] answers differently by the passing of time
    /// alone. In the past when something is due already.
    pub(crate) fn next_deadline(&self, now: Moment) -> Option<Duration> {
        self.workloads
            .values()
            .filter_map(|workload| workload.next_deadline(self.outage, now))
            .min()
    }

    /// Every identity of a workload, for a person.
    pub(crate) fn status(&self, id: &WorkloadId, now: Moment) -> Vec<SlotStatus> {
        self.workloads
            .get(id)
            .map(|workload| workload.slots.iter().map(|slot| slot.status(now)).collect())
            .unwrap_or_default()
    }

    /// Unexpired leaves by the authority that signed them: what the server must not retire yet.
    pub(crate) fn authorities_in_use(&self, now: Moment) -> BTreeMap<AuthorityId, u32> {
        let mut counts = BTreeMap::new();
        for slot in self.workloads.values().flat_map(|workload| &workload.slots) {
            if let Some(leaf) = slot.leaf().filter(|leaf| leaf.svid.not_after > now.date) {
                *counts.entry(leaf.authority).or_default() += 1;
            }
        }
        counts
    }

    /// Replaces the list of identities behind a default one that was just answered; known slots keep what they hold.
    fn set_identities(&mut self, id: &WorkloadId, answered: u64, identities: Vec<(SpiffeId, String)>) {
        let mut next_slot = self.next_slot;
        let backoff = &self.backoff;
        if let Some(workload) = self.workloads.get_mut(id) {
            workload.set_identities(answered, identities, |spiffe_id, hint| {
                next_slot += 1;
                Slot::new(next_slot, Some(spiffe_id), hint, backoff.clone())
            });
        }
        self.next_slot = next_slot;
    }

    fn new_slot(&mut self, spiffe_id: Option<SpiffeId>, hint: String) -> Slot {
        self.next_slot += 1;
        Slot::new(self.next_slot, spiffe_id, hint, self.backoff.clone())
    }

    fn slot_index(&self, wanted: &Wanted) -> Option<usize> {
        self.workloads
            .get(&wanted.workload)?
            .slots
            .iter()
            .position(|slot| slot.number == wanted.slot)
    }

    fn slot_mut(&mut self, wanted: &Wanted) -> Option<&mut Slot> {
        let workload = self.workloads.get_mut(&wanted.workload)?;
        workload.slots.iter_mut().find(|slot| slot.number == wanted.slot)
    }
}
