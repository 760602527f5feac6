//! What operations have still to do, and whether what they wait for is the case.

use std::time::SystemTime;

use signet_certs::authority::AuthorityId;

use crate::authority::departed::Left;
use crate::authority::operation::{Operation, Stage, Told, Verb};
use crate::authority::state::{AuthorityRecord, AuthoritySet, AuthorityState, Context};

impl AuthoritySet {
    /// Takes every operation under way as far as it can go at this moment.
    pub(super) fn pursue(&mut self, context: &Context<'_>) {
        let mut operations = std::mem::take(&mut self.operations);
        for operation in operations.running_mut() {
            while !operation.stage.is_end() && self.advance(operation, context) {}
            if operation.stage.is_end() {
                operation.told = Some(self.told(operation, context));
            }
        }
        self.operations = operations;
    }

    /// Who has reported what an operation has done.
    fn told(&self, operation: &Operation, context: &Context<'_>) -> Told {
        let sequence = if operation.taken_away().is_some() {
            self.told_by(operation)
        } else {
            let target = self.get(operation.target);
            target.and_then(|target| Some(target.introduced?.sequence))
        };
        Told {
            agents: context.reports.live(),
            reported: sequence.map_or(0, |sequence| context.reports.confirmed(sequence)),
        }
    }

    /// Whether [`pursue`](Self::pursue) would do something.
    pub(super) fn can_go_on(&self, context: &Context<'_>) -> bool {
        let mut running = self.operations.running().peekable();
        if running.peek().is_none() {
            return false;
        }
        let mut after = self.clone();
        after.pursue(context);
        after != *self
    }

    /// When a successor that was asked for has spread, as things stand: that it takes over is another matter.
    pub(super) fn spread_awaited(&self, context: &Context<'_>) -> Option<SystemTime> {
        let mut running = self.operations.running();
        let awaited =
            running.any(|operation| (operation.verb, operation.stage) == (Verb::Prepare, Stage::Spreading));
        let status = self.spread_status(context).filter(|_| awaited)?;
        Some(status.opens_at())
    }

    /// One stage further; false where it has to wait.
    fn advance(&mut self, operation: &mut Operation, context: &Context<'_>) -> bool {
        match operation.stage {
            Stage::Spreading => self.after_spreading(operation, context),
            Stage::Draining => self.after_draining(operation, context),
            Stage::Telling => self.after_telling(operation, context),
            Stage::Done | Stage::Superseded => false,
        }
    }

    fn after_spreading(&mut self, operation: &mut Operation, context: &Context<'_>) -> bool {
        let now = context.at.now;
        let state = self.get(operation.target).map(|record| record.state);
        match (state, operation.verb) {
            (Some(AuthorityState::Prepared { .. }), Verb::Prepare) => {
                let has_spread = self
                    .spread_status(context)
                    .is_some_and(|status| status.is_open(now));
                if has_spread {
                    operation.end(Stage::Done, now);
                }
                has_spread
            }
            (Some(AuthorityState::Prepared { .. }), _) => false,
            (Some(AuthorityState::Active), Verb::Emergency) => {
                operation.stage = Stage::Draining;
                true
            }
            (Some(AuthorityState::Active), Verb::Retire) => {
                self.begin_draining(operation, now);
                true
            }
            (Some(AuthorityState::Active), _) => {
                operation.end(Stage::Done, now);
                true
            }
            _ => {
                operation.end(Stage::Superseded, now);
                true
            }
        }
    }

    fn begin_draining(&mut self, operation: &mut Operation, now: SystemTime) {
        match operation.previous {
            Some(previous) => {
                self.taint(previous, &operation.author, now);
                operation.stage = Stage::Draining;
            }
            None => operation.end(Stage::Done, now),
        }
    }

    fn after_draining(&mut self, operation: &mut Operation, context: &Context<'_>) -> bool {
        let now = context.at.now;
        if operation.verb == Verb::Emergency {
            let mut distrusted = self.authorities.iter();
            let are_out = distrusted.all(|record| record.state.out_at().is_none());
            if are_out {
                operation.stage = Stage::Telling;
            }
            return are_out;
        }
        if self.is_replaced(operation) {
            operation.end(Stage::Superseded, now);
            return true;
        }
        let Some(previous) = operation.previous else {
            operation.end(Stage::Done, now);
            return true;
        };
        match self.get(previous).map(|record| record.state) {
            Some(AuthorityState::Tainted { shown, .. }) => {
                // Before its bundle is out nobody can have said anything of it.
                let is_unused = shown.is_some() && context.reports.uses(previous, shown).is_none();
                if is_unused {
                    self.depart(previous, Left::Revoked, &operation.author, false, now);
                    operation.stage = Stage::Telling;
                }
                is_unused
            }
            None => {
                operation.stage = Stage::Telling;
                true
            }
            // It signs again: see `reinstate`.
            Some(_) => {
                operation.end(Stage::Superseded, now);
                true
            }
        }
    }

    fn after_telling(&self, operation: &mut Operation, context: &Context<'_>) -> bool {
        if self.is_replaced(operation) {
            operation.end(Stage::Superseded, context.at.now);
            return true;
        }
        let sequence = self.told_by(operation);
        let is_told = sequence.is_some_and(|sequence| match operation.verb {
            // Whoever has not heard is not waited for, but a certificate of an agent's own is mended by that agent alone.
            Verb::Emergency => {
                context.policy.emergency().bundle_first
                    || context.reports.not_of(&self.ids()).next().is_none()
            }
            _ => context.reports.confirmed(sequence) == context.reports.live(),
        });
        if is_told || self.is_forgotten(operation) {
            operation.end(Stage::Done, context.at.now);
        }
        operation.stage.is_end()
    }

    /// It left so long ago that nobody could take it back: agents are told of it no more, and none can be waited for.
    fn is_forgotten(&self, operation: &Operation) -> bool {
        let stands = |authority| self.get(authority).is_some() || self.departed.get(authority).is_some();
        !operation.taken_away().is_some_and(stands)
    }

    /// Its successor was distrusted meanwhile: what it would say is not so any more.
    fn is_replaced(&self, operation: &Operation) -> bool {
        let target = self.get(operation.target);
        let left = self.departed.get(operation.target);
        let is_distrusted = target.is_some_and(|target| target.state.out_at().is_some())
            || left.is_some_and(|left| left.left == Left::Emergency);
        operation.verb == Verb::Retire && is_distrusted
    }

    /// Those that stand.
    pub(in crate::authority) fn ids(&self) -> Vec<AuthorityId> {
        let trusted = self
            .authorities
            .iter()
            .filter(|record| record.state.out_at().is_none());
        trusted.map(AuthorityRecord::id).collect()
    }

    /// Sequence of the first bundle by which readers learn what an operation has done; nothing before it is out.
    pub(in crate::authority) fn told_by(&self, operation: &Operation) -> Option<u64> {
        let authority = operation.taken_away()?;
        match self.get(authority).map(|record| record.state) {
            Some(AuthorityState::Tainted { shown, .. }) if operation.verb == Verb::Taint => shown,
            Some(_) => None,
            None => self.departed.get(authority)?.shown,
        }
    }
}
