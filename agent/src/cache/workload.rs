//! One workload: its evidence and its identities, default first. There is always at least one slot.

use std::time::{Duration, SystemTime};

use signet_certs::id::SpiffeId;
use signet_certs::time::rfc3339;

use super::slot::{Slot, unusable};
use super::{CacheState, Evidence, Granted, MAX_IDENTITIES, TrustView};
use crate::time::Moment;

pub(super) struct Workload {
    evidence: Evidence,
    pub(super) slots: Vec<Slot>,
    /// Has been published as ready once.
    pub(super) served: bool,
}

impl Workload {
    pub(super) fn new(evidence: Evidence, first: Slot) -> Self {
        Self {
            evidence,
            slots: vec![first],
            served: false,
        }
    }

    pub(super) fn set_evidence(&mut self, evidence: Evidence) {
        if self.evidence == evidence {
            return;
        }
        self.evidence = evidence;
        self.slots.iter_mut().for_each(Slot::clear_retry);
    }

    /// Nothing has come of it yet.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(Slot::is_empty)
    }

    pub(super) fn can_ask(&self, outage: Option<SystemTime>, now: Moment) -> bool {
        self.evidence.holds(outage, now.date)
    }

    pub(super) fn recheck(&mut self, now: Moment) {
        self.slots.iter_mut().for_each(|slot| slot.recheck_now(now));
    }

    pub(super) fn recheck_spread(&mut self, now: Moment) {
        self.slots.iter_mut().for_each(|slot| slot.recheck_spread(now));
    }

    /// The order is the server's; a slot that is no longer listed is withdrawn with what it holds.
    pub(super) fn set_identities(
        &mut self,
        answered: u64,
        identities: Vec<(SpiffeId, String)>,
        mut new_slot: impl FnMut(SpiffeId, String) -> Slot,
    ) {
        let mut old = std::mem::take(&mut self.slots);
        for (spiffe_id, hint) in identities.into_iter().take(MAX_IDENTITIES) {
            if self
                .slots
                .iter()
                .any(|slot| slot.spiffe_id.as_ref() == Some(&spiffe_id))
            {
                continue;
            }
            // Two slots can hold the same identity after the default changed; the one just answered is fresher.
            let same = |slot: &Slot| slot.spiffe_id.as_ref() == Some(&spiffe_id);
            let known = old
                .iter()
                .position(|slot| slot.number == answered && same(slot))
                .or_else(|| old.iter().position(same));
            let mut slot = match known {
                Some(index) => old.remove(index),
                None => new_slot(spiffe_id, String::new()),
            };
            slot.hint = hint;
            self.slots.push(slot);
        }
        if self.slots.is_empty() {
            // The caller lists at least the identity it issued; keep the invariant whatever happens.
            self.slots = old;
        }
    }

    pub(super) fn state(
        &self,
        trust: Option<&dyn TrustView>,
        outage: Option<SystemTime>,
        now: Moment,
    ) -> CacheState<'_> {
        let Some(trust) = trust else {
            let problem = "the agent has not received the trust bundle from its server yet";
            return CacheState::Pending {
                problem: Some(problem.to_owned()),
            };
        };
        let open = || self.slots.iter().filter(|slot| slot.verdict().is_none());
        let Some(default) = open().next() else {
            // The next process of this kind must not be told a verdict that is to be asked for again.
            let in_doubt =
                self.evidence == Evidence::Absent && self.slots.iter().any(|slot| slot.ask_at(now).is_some());
            return if in_doubt {
                self.pending(outage, now)
            } else {
                self.refused()
            };
        };
        // A first answer is complete or not given: a client that fetches once must see every identity.
        let complete = self.served || open().all(|slot| slot.settled);
        if !complete || usable(default, trust, now).is_none() {
            return self.pending(outage, now);
        }
        CacheState::Ready(open().filter_map(|slot| usable(slot, trust, now)).collect())
    }

    /// See [`super::Cache::next_deadline`].
    pub(super) fn next_deadline(&self, outage: Option<SystemTime>, now: Moment) -> Option<Duration> {
        let asks = self
            .slots
            .iter()
            .filter_map(|slot| slot.ask_at(now))
            .filter(|_| self.can_ask(outage, now));
        let ends = self
            .slots
            .iter()
            .filter_map(|slot| Some(slot.leaf()?.svid.not_after));
        let evidence_end = match self.evidence {
            Evidence::Until(expires) => Some(expires),
            Evidence::Live | Evidence::Absent => None,
        };
        let dates = ends.chain(evidence_end).filter(|end| *end > now.date);
        asks.chain(dates.map(|end| now.reaches(end))).min()
    }

    fn refused(&self) -> CacheState<'_> {
        let verdict = self.slots.iter().find_map(Slot::verdict);
        CacheState::Refused {
            message: verdict.map(|verdict| verdict.message.clone()).unwrap_or_default(),
        }
    }

    fn pending(&self, outage: Option<SystemTime>, now: Moment) -> CacheState<'_> {
        let problem = self.evidence_problem(outage, now);
        let problem = problem.or_else(|| self.slots.iter().find_map(Slot::problem).map(str::to_owned));
        CacheState::Pending { problem }
    }

    fn evidence_problem(&self, outage: Option<SystemTime>, now: Moment) -> Option<String> {
        match (self.evidence, outage) {
            (evidence, _) if evidence.holds(outage, now.date) => None,
            (Evidence::Until(expires), Some(since)) => Some(format!(
                "the pod's token expired at {}, by the clock that counts here it is {}, and the cluster's API server, which alone \
                 gives new ones, is away since {}",
                rfc3339(expires),
                rfc3339(now.date),
                rfc3339(since)
            )),
            (Evidence::Until(expires), None) => Some(format!(
                "the pod's token expired at {}, by the clock that counts here it is {}, and kubelet has not delivered a new one; \
                 if that clock is right, look at requiresRepublish and tokenRequests of the CSIDriver object and at kubelet's \
                 log",
                rfc3339(expires),
                rfc3339(now.date)
            )),
            (Evidence::Live | Evidence::Absent, _) => Some(
                "nothing proves the workload now: no token has come from kubelet, or no process is connected"
                    .to_owned(),
            ),
        }
    }
}

fn usable<'a>(slot: &'a Slot, trust: &dyn TrustView, now: Moment) -> Option<Granted<'a>> {
    let leaf = slot.leaf().filter(|leaf| unusable(leaf, trust, now).is_none())?;
    Some(Granted {
        leaf,
        hint: &slot.hint,
    })
}
