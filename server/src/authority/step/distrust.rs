//! What is not to be trusted any more: marked, and taken out of every bundle. Neither waits for anybody, nor for a time that is settled.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::authority::AuthorityId;

use crate::authority::departed::{DepartedAuthority, Left};
use crate::authority::links::Links;
use crate::authority::operation::Verb;
use crate::authority::state::{AuthorityRecord, AuthoritySet, AuthorityState, Context, Refused};
use crate::authority::transition::Transition;

impl AuthoritySet {
    /// Everyone replaces what this authority has signed. Asked again, it is waited for again.
    pub(super) fn tainted(
        &self,
        authority: AuthorityId,
        author: Arc<str>,
        now: SystemTime,
    ) -> Result<Transition, Refused> {
        let record = self.get(authority).ok_or_else(|| self.missing(authority))?;
        if record.state == AuthorityState::Active {
            return Err(Refused::Signs(authority));
        }
        let mut next = self.clone();
        next.taint(authority, &author, now);
        let operation = next.begin(Verb::Taint, authority, author, now)?;
        Ok(next.joined(operation).from(self))
    }

    /// This authority leaves every bundle. Asked again, it is waited for again.
    pub(super) fn revoked(
        &self,
        authority: AuthorityId,
        force: bool,
        author: Arc<str>,
        context: &Context<'_>,
    ) -> Result<Transition, Refused> {
        let now = context.at.now;
        let mut next = self.clone();
        if let Some(record) = self.get(authority) {
            let needs_force = self.check_unused(record, context)?;
            if let Some(refused) = needs_force.filter(|_| !force) {
                return Err(refused);
            }
            next.depart(authority, Left::Revoked, &author, force, now);
        } else if self.departed.get(authority).is_none() {
            return Err(Refused::Unknown(authority));
        }
        let operation = next.begin(Verb::Revoke, authority, author, now)?;
        Ok(next.joined(operation).from(self))
    }

    /// What speaks against taking it away and can be overruled.
    fn check_unused(
        &self,
        record: &AuthorityRecord,
        context: &Context<'_>,
    ) -> Result<Option<Refused>, Refused> {
        let authority = record.id();
        let AuthorityState::Tainted { shown, .. } = record.state else {
            return match record.state {
                AuthorityState::Active => Err(Refused::Signs(authority)),
                state => Ok(Some(Refused::NotTainted {
                    authority,
                    state: state.name(),
                })),
            };
        };
        let uses = context.reports.uses(authority, shown);
        Ok((!uses.is_none()).then_some(Refused::StillUsed {
            authority,
            agents: uses.agents,
            certificates: uses.certificates,
            unknown: uses.unknown,
        }))
    }

    fn missing(&self, authority: AuthorityId) -> Refused {
        match self.departed.get(authority) {
            Some(departed) => Refused::HasLeft {
                authority,
                left: departed.left.name(),
                at: departed.at,
            },
            None => Refused::Unknown(authority),
        }
    }

    /// Marks one that does not sign leaves. Nothing leads over it from now on.
    pub(super) fn taint(&mut self, authority: AuthorityId, author: &Arc<str>, now: SystemTime) {
        let mut records = self.authorities.iter_mut();
        let Some(record) = records.find(|record| record.id() == authority) else {
            return;
        };
        let (leaves_until, drained_at) = match record.state {
            AuthorityState::Prepared { .. } => (now, None),
            AuthorityState::Old {
                leaves_until,
                drained_at,
            } => (leaves_until, drained_at),
            AuthorityState::Active | AuthorityState::Tainted { .. } => return,
        };
        record.state = AuthorityState::Tainted {
            leaves_until,
            drained_at,
            shown: None,
            out_at: None,
        };
        record.author = author.clone();
        self.links.remove(authority);
    }

    /// All that do not sign, and they are all that were made before the one that does, leave every bundle after this grace: keys of one
    /// kind are kept in one place.
    pub(super) fn distrust(&mut self, author: &Arc<str>, now: SystemTime, grace: Duration) {
        // They lead to what is distrusted, and nothing leads on from there.
        self.links = Links::default();
        let others = self.authorities.iter();
        let others: Vec<_> = others
            .filter(|record| record.state != AuthorityState::Active)
            .map(AuthorityRecord::id)
            .collect();
        for id in others {
            self.taint(id, author, now);
            let mut records = self.authorities.iter_mut();
            if let Some(record) = records.find(|record| record.id() == id)
                && let AuthorityState::Tainted { out_at, .. } = &mut record.state
            {
                *out_at = Some(out_at.map_or(now + grace, |known| known.min(now + grace)));
            }
        }
    }

    /// A successor that was prepared before an emergency.
    pub(super) fn set_aside(&mut self, author: &Arc<str>, context: &Context<'_>) {
        if let Some(prepared) = self.prepared().map(AuthorityRecord::id) {
            self.taint(prepared, author, context.at.now);
        }
    }

    /// Those whose grace is over leave, whoever has reported.
    pub(super) fn turn_out(&mut self, now: SystemTime, grace: Duration) {
        for record in &mut self.authorities {
            // However the clock was when it was written.
            if let AuthorityState::Tainted {
                out_at: Some(out_at), ..
            } = &mut record.state
            {
                *out_at = (*out_at).min(now + grace);
            }
        }
        let over = |record: &&AuthorityRecord| record.state.out_at().is_some_and(|out_at| out_at <= now);
        let over = self.authorities.iter().filter(over);
        let over: Vec<_> = over.map(|record| (record.id(), record.author.clone())).collect();
        for (id, author) in over {
            self.depart(id, Left::Emergency, &author, true, now);
        }
    }

    /// Takes one that does not sign leaves out of the bundle, and remembers it. Its key waits for a settled time.
    pub(super) fn depart(
        &mut self,
        authority: AuthorityId,
        left: Left,
        author: &Arc<str>,
        forced: bool,
        now: SystemTime,
    ) {
        let Some(record) = self.get(authority) else {
            return;
        };
        let departed = DepartedAuthority {
            id: authority,
            at: now,
            not_after: record.authority.not_after,
            author: author.clone(),
            left,
            forced,
            has_key: true,
            shown: None,
        };
        self.departed.add(departed);
        self.authorities.retain(|record| record.id() != authority);
        self.links.remove(authority);
    }

    /// Its last leaf and its last list are out; its key goes now. One that was tainted is remembered.
    pub(super) fn leave(&mut self, authority: AuthorityId, now: SystemTime) {
        let Some(record) = self.get(authority) else {
            return;
        };
        if let AuthorityState::Tainted { out_at, .. } = record.state {
            let left = out_at.map_or(Left::Expired, |_| Left::Emergency);
            let departed = DepartedAuthority {
                id: authority,
                at: now,
                not_after: record.authority.not_after,
                author: record.author.clone(),
                left,
                forced: false,
                has_key: false,
                shown: None,
            };
            self.departed.add(departed);
        }
        self.authorities.retain(|record| record.id() != authority);
    }
}
