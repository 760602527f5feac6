//! What is not to be trusted any more: marked, and taken out of every bundle. Neither waits for anybody, nor for a time that is settled.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;

use crate::authority::departed::{DepartedAuthority, Left};
use crate::authority::operation::Verb;
use crate::authority::state::{AuthorityRecord, AuthoritySet, AuthorityState, Context, Refused, Transition};

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
            next.depart(authority, &author, force, now);
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
        };
        record.author = author.clone();
        self.links.remove(authority);
    }

    /// Takes one that does not sign leaves out of the bundle, and remembers it. Its key waits for a settled time.
    pub(super) fn depart(
        &mut self,
        authority: AuthorityId,
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
            left: Left::Revoked,
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
        if matches!(record.state, AuthorityState::Tainted { .. }) {
            let departed = DepartedAuthority {
                id: authority,
                at: now,
                not_after: record.authority.not_after,
                author: record.author.clone(),
                left: Left::Expired,
                forced: false,
                has_key: false,
                shown: None,
            };
            self.departed.add(departed);
        }
        self.authorities.retain(|record| record.id() != authority);
    }
}
