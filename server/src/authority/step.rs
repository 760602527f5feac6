//! The authority machine, pure: its steps. Words and states are in `state.rs`.

mod distrust;
mod orders;
mod pursue;
mod told;
mod wrong_time;

use std::time::{Duration, SystemTime};

use super::policy::{EMERGENCY_SPREAD, activate_at, prepare_at};
use super::state::{
    Activation, AuthorityRecord, AuthoritySet, AuthorityState, Context, Event, Moment, Refused, TIMER, Turn,
};
use super::transition::{Effect, Transition};

/// Turns of an authority that are remembered: more than one that goes its way takes.
const TURNS_KEPT: usize = 8;

impl AuthoritySet {
    /// Takes one step.
    ///
    /// # Errors
    /// [`Refused`], with the state unchanged.
    pub(crate) fn apply(&self, event: Event, context: &Context<'_>) -> Result<Transition, Refused> {
        let mut transition = self.step(event, context)?;
        transition.next.stamp(self, context.at.now);
        Ok(transition)
    }

    fn step(&self, event: Event, context: &Context<'_>) -> Result<Transition, Refused> {
        match event {
            Event::Start => Ok(self.start(context)),
            Event::Tick => Ok(self.tick(context)),
            Event::Prepared {
                authority,
                activation,
                author,
                link,
                verb,
            } => {
                let mut transition = self.add(authority, activation, author, verb, context)?;
                link.into_iter().for_each(|link| transition.next.links.add(link));
                Ok(transition)
            }
            Event::Published { sequence, shown } => Ok(self.published(sequence, &shown, context.at)),
            Event::Ordered { order, author } => self.ordered(order, author, context),
            Event::LastLeafExpired { authority } => self.drained(authority, context.at.now),
            Event::LeafOutlives { authority, not_after } => self.outlived(authority, not_after),
        }
    }

    /// The next moment at which [`Event::Tick`] may have something to do, if nothing else happens before.
    /// A moment that is not after `now` means: at once.
    pub(crate) fn next_deadline(&self, context: &Context<'_>) -> Option<SystemTime> {
        let now = context.at.now;
        let settled = |moment| context.at.when_settled(moment);
        let mut moments = Vec::new();
        match (self.prepared(), self.active()) {
            (None, None) => moments.push(now),
            (None, Some(active)) if context.at.trusted && active.is_useless(now) => moments.push(now),
            (None, Some(active)) => moments.extend(settled(prepare_threshold(active))),
            (Some(prepared), _) if context.at.trusted && prepared.is_early(now) => moments.push(now),
            (Some(prepared), active) => {
                moments.extend(settled(prepared.authority.not_after));
                moments.extend(self.activation_moments(prepared, active, context));
            }
        }
        // What is distrusted waits for no settled time.
        moments.extend(self.authorities.iter().filter_map(|record| record.state.out_at()));
        let ends = self
            .authorities
            .iter()
            .filter_map(|record| match record.state.end() {
                Some((leaves_until, None)) => Some(leaves_until),
                _ => None,
            });
        let kept = self.links.next_end().into_iter().chain(self.departed.next_end());
        moments.extend(ends.chain(kept).filter_map(settled));
        moments.extend(self.spread_awaited(context));
        if self.can_go_on(context) || (self.departed.has_keys() && context.at.settled.is_some()) {
            moments.push(now);
        }
        moments.into_iter().min()
    }

    fn activation_moments(
        &self,
        prepared: &AuthorityRecord,
        active: Option<&AuthorityRecord>,
        context: &Context<'_>,
    ) -> Vec<SystemTime> {
        if self.takes_over(context) {
            return vec![context.at.now];
        }
        let Some(status) = self.spread_status(context) else {
            return Vec::new();
        };
        let scheduled = match (prepared.state, active) {
            (
                AuthorityState::Prepared {
                    activation: Activation::OnSchedule,
                },
                Some(active),
            ) => context.at.when_settled(activate_threshold(active)),
            _ => Some(context.at.now),
        };
        // An end that a time nobody trusts says is no reason to take over.
        let ends = active
            .filter(|_| context.at.trusted)
            .map(|active| active.authority.not_after);
        let gate = match (prepared.state, prepared.introduced) {
            (
                AuthorityState::Prepared {
                    activation: Activation::InEmergency,
                },
                Some(introduced),
            ) => introduced.at + EMERGENCY_SPREAD,
            _ => status.opens_at(),
        };
        let due = scheduled.map(|scheduled| scheduled.max(gate));
        ends.into_iter().chain(due).collect()
    }

    fn start(&self, context: &Context<'_>) -> Transition {
        let mut raised = self.clone();
        for record in &mut raised.authorities {
            if record.state.is_in_service() {
                record.longest_leaf_ttl = record.longest_leaf_ttl.max(context.policy.leaf_ttl());
            }
        }
        let transition = raised.tick(context);
        if raised == *self || transition.effects.contains(&Effect::SaveJournal) {
            return transition;
        }
        let effects = [Effect::SaveJournal, Effect::Publish]
            .into_iter()
            .chain(transition.effects)
            .collect();
        Transition {
            effects,
            ..transition
        }
    }

    fn tick(&self, context: &Context<'_>) -> Transition {
        let mut next = self.clone();
        if let Some(settled) = context.at.settled {
            next.retire_unused(settled);
            next.links.let_go(settled);
            next.departed.let_go(settled);
        }
        if context.at.trusted {
            next.reinstate(context.at.now);
        }
        next.turn_out(context.at.now, context.policy.emergency().grace);
        if next.takes_over(context) {
            next.hand_over(context);
        }
        next.pursue(context);
        // A wrong clock takes an authority out of the bundle, which can be mended, and no key with it.
        let keys = match context.at.settled {
            Some(_) => next.departed.take_keys(),
            None => Vec::new(),
        };
        let mut effects = Vec::new();
        if next != *self {
            effects.extend([Effect::SaveJournal, Effect::Publish]);
        }
        effects.extend(keys.into_iter().map(Effect::DeleteKey));
        effects.extend(
            context
                .at
                .settled
                .into_iter()
                .flat_map(|settled| next.due_checks(settled)),
        );
        let preparation = next.due_preparation(context.at);
        effects.extend(preparation.map(|activation| Effect::GenerateKey {
            algorithm: self.next_algorithm(context),
            activation,
            author: TIMER.into(),
            verb: None,
        }));
        next.does(effects)
    }

    /// Whether the prepared authority is to take over now. Being published comes before everything, force included:
    /// a chain whose authority has no CRL is refused by all who fail closed.
    fn takes_over(&self, context: &Context<'_>) -> bool {
        let Some(prepared) = self.prepared() else {
            return false;
        };
        let AuthorityState::Prepared { activation } = prepared.state else {
            return false;
        };
        if activation == Activation::InEmergency && !context.policy.emergency().bundle_first {
            return true;
        }
        let (Some(introduced), Some(status)) = (prepared.introduced, self.spread_status(context)) else {
            return false;
        };
        let Moment {
            now,
            trusted,
            settled,
        } = context.at;
        let Some(active) = self.active().filter(|active| !trusted || !active.is_useless(now)) else {
            return true;
        };
        match activation {
            Activation::AtOnce => true,
            Activation::InEmergency => {
                let waits = (introduced.at..introduced.at + EMERGENCY_SPREAD).contains(&now);
                let mut without = context.reports.connected_without(status.sequence);
                !waits || without.next().is_none()
            }
            Activation::WhenSpread => status.is_open(now),
            Activation::OnSchedule => {
                settled.is_some_and(|settled| settled >= activate_threshold(active)) && status.is_open(now)
            }
        }
    }

    fn hand_over(&mut self, context: &Context<'_>) {
        let now = context.at.now;
        let in_emergency = AuthorityState::Prepared {
            activation: Activation::InEmergency,
        };
        let mut stolen = None;
        for record in &mut self.authorities {
            if record.state == in_emergency {
                stolen = Some(record.author.clone());
            }
            match record.state {
                AuthorityState::Active => {
                    record.state = AuthorityState::Old {
                        leaves_until: last_leaf_bound(record, now),
                        drained_at: None,
                    };
                }
                AuthorityState::Prepared { .. } => record.state = AuthorityState::Active,
                AuthorityState::Old { .. } | AuthorityState::Tainted { .. } => {}
            }
        }
        if let Some(author) = stolen {
            self.distrust(&author, now, context.policy.emergency().grace);
        }
    }

    fn due_checks(&self, now: SystemTime) -> Vec<Effect> {
        let due = self.authorities.iter().filter(|record| match record.state.end() {
            Some((leaves_until, None)) => leaves_until <= now,
            _ => false,
        });
        due.map(|record| Effect::CheckLastLeaf(record.id())).collect()
    }

    fn due_preparation(&self, at: Moment) -> Option<Activation> {
        if self.prepared().is_some() {
            return None;
        }
        match self.active() {
            None => Some(Activation::AtOnce),
            Some(active) if at.trusted && active.is_useless(at.now) => Some(Activation::AtOnce),
            Some(active) => at
                .settled
                .is_some_and(|settled| settled >= prepare_threshold(active))
                .then_some(Activation::OnSchedule),
        }
    }

    fn changed(self) -> Transition {
        self.does(vec![Effect::SaveJournal, Effect::Publish])
    }

    fn does(self, effects: Vec<Effect>) -> Transition {
        Transition {
            next: self,
            effects,
            operation: None,
        }
    }

    /// Notes when each came to stand where it does now.
    fn stamp(&mut self, before: &Self, now: SystemTime) {
        for record in &mut self.authorities {
            let state = record.state.name();
            if before.get(record.id()).map(|before| before.state.name()) != Some(state) {
                record.history.push(Turn { state, at: now });
                // One that takes its place again time after time is not remembered for ever.
                let excess = record.history.len().saturating_sub(TURNS_KEPT);
                record.history.drain(..excess);
            }
        }
    }
}

fn prepare_threshold(active: &AuthorityRecord) -> SystemTime {
    prepare_at(active.authority.not_before, active.authority.not_after)
}

fn activate_threshold(active: &AuthorityRecord) -> SystemTime {
    activate_at(active.authority.not_before, active.authority.not_after)
}

/// No leaf of an authority that stops signing at `now` is valid at this moment: none lives longer than the longest
/// TTL in use, and none outlives its authority (INV-10).
fn last_leaf_bound(record: &AuthorityRecord, now: SystemTime) -> SystemTime {
    just_after((now + record.longest_leaf_ttl).min(record.authority.not_after))
}

/// `notAfter` is inclusive.
fn just_after(not_after: SystemTime) -> SystemTime {
    not_after + Duration::from_secs(1)
}

#[cfg(test)]
mod tests;
