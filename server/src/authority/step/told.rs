//! What the machine is told by those around it: a key was made, a bundle is out, what the ledger holds.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::time::{from_unix_seconds, unix_seconds};

use super::just_after;
use crate::authority::operation::Verb;
use crate::authority::state::{
    Activation, AuthorityRecord, AuthoritySet, AuthorityState, Context, Introduced, Moment, NewAuthority,
    Refused, Shown,
};
use crate::authority::transition::{Effect, Transition};

impl AuthoritySet {
    pub(super) fn add(
        &self,
        authority: NewAuthority,
        activation: Activation,
        author: Arc<str>,
        verb: Option<Verb>,
        context: &Context<'_>,
    ) -> Result<Transition, Refused> {
        let mut next = self.clone();
        if activation == Activation::InEmergency {
            // Its key was kept where the stolen one was.
            next.set_aside(&author, context);
        }
        if let Some(prepared) = next.prepared().or_else(|| self.get(authority.id)) {
            return Err(Refused::AlreadyPrepared(prepared.id()));
        }
        let target = authority.id;
        next.authorities.push(AuthorityRecord {
            authority,
            state: AuthorityState::Prepared { activation },
            introduced: None,
            longest_leaf_ttl: context.policy.leaf_ttl(),
            author: author.clone(),
            history: Vec::new(),
        });
        let operation = verb.map(|verb| next.begin(verb, target, author, context.at.now));
        let operation = operation.transpose()?;
        if activation == Activation::InEmergency && next.takes_over(context) {
            next.hand_over(context);
        }
        Ok(Transition {
            operation,
            ..next.changed()
        })
    }

    pub(super) fn published(&self, sequence: u64, shown: &Shown, at: Moment) -> Transition {
        let mut next = self.clone();
        let mut gone = Vec::new();
        for record in &mut next.authorities {
            let listed = shown.listed.iter().find(|(id, _)| *id == record.id());
            let Some((_, this_update)) = listed else {
                continue;
            };
            record
                .introduced
                .get_or_insert(Introduced { sequence, at: at.now });
            let is_marked = shown.tainted.contains(&record.id());
            if let AuthorityState::Tainted { shown, .. } = &mut record.state
                && is_marked
            {
                shown.get_or_insert(sequence);
            }
            if let Some((_, Some(drained_at))) = record.state.end()
                && (!record.authority.signs_list || *this_update >= Some(drained_at))
                && at.settled.is_some()
            {
                gone.push(record.id());
            }
        }
        next.departed.note_shown(sequence, &shown.departed);
        for id in &gone {
            next.leave(*id, at.now);
        }
        if next == *self {
            return next.does(Vec::new());
        }
        let mut transition = next.changed();
        transition.effects.extend(gone.into_iter().map(Effect::DeleteKey));
        transition
    }

    pub(super) fn drained(&self, authority: AuthorityId, now: SystemTime) -> Result<Transition, Refused> {
        // CRLs carry whole seconds; the last one must not be asked for a fraction it cannot show.
        let moment = from_unix_seconds(unix_seconds(now));
        self.change_old(authority, |_, drained_at| {
            drained_at.get_or_insert(moment);
        })
    }

    pub(super) fn outlived(
        &self,
        authority: AuthorityId,
        not_after: SystemTime,
    ) -> Result<Transition, Refused> {
        self.change_old(authority, |leaves_until, _| {
            *leaves_until = (*leaves_until).max(just_after(not_after));
        })
    }

    fn change_old(
        &self,
        authority: AuthorityId,
        change: impl FnOnce(&mut SystemTime, &mut Option<SystemTime>),
    ) -> Result<Transition, Refused> {
        let mut next = self.clone();
        let record = next
            .authorities
            .iter_mut()
            .find(|record| record.id() == authority);
        let Some(
            AuthorityState::Old {
                leaves_until,
                drained_at,
            }
            | AuthorityState::Tainted {
                leaves_until,
                drained_at,
                ..
            },
        ) = record.map(|record| &mut record.state)
        else {
            return Err(Refused::NotOld(authority));
        };
        change(leaves_until, drained_at);
        Ok(next.changed())
    }
}
