//! What agents have not heard: of those without a session what was named meanwhile, of all what concerns nobody knows whom.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use signet_certs::id::SpiffeId;

use super::super::report::Affected;

/// What an agent has not heard is known so long: by then it has asked about whatever it holds anyway.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What is told to an agent when its next session begins.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    /// Some revoked certificates are on no list.
    lists_lack: bool,
    /// Something concerns agents, nobody knows which.
    untold: Option<Untold>,
    /// Agents without a session of whom something may not have been heard.
    away: HashMap<SpiffeId, Away>,
    /// How often something was named to anybody.
    named: u64,
}

/// Who has been told of something that concerns agents nobody knows.
#[derive(Debug, Default)]
struct Untold {
    told: HashSet<SpiffeId>,
    /// When it was looked at first.
    since: Option<SystemTime>,
}

/// An agent whose session is over.
#[derive(Debug)]
struct Away {
    unheard: Affected,
    /// What was named by then; what came later may concern it.
    named: u64,
    /// When it was looked at first.
    since: Option<SystemTime>,
}

impl Unheard {
    /// Something was named to somebody, and whoever is away did not hear it.
    pub(super) const fn named(&mut self) {
        self.named += 1;
    }

    /// All of what this agent holds was named while it has no session.
    pub(super) fn all_of(&mut self, agent: &SpiffeId) {
        if let Some(away) = self.away.get_mut(agent) {
            away.unheard = Affected::All;
        }
    }

    /// Some revoked certificates are on no list from now on; whether that is new.
    pub(super) const fn lists_lack(&mut self) -> bool {
        !std::mem::replace(&mut self.lists_lack, true)
    }

    /// Something concerns agents, and nobody knows which.
    pub(super) fn untold(&mut self) {
        self.untold = Some(Untold::default());
    }

    /// An agent's session is over, and this it had not been told yet.
    pub(super) fn left(&mut self, agent: &SpiffeId, unheard: Affected) {
        let away = Away {
            unheard,
            named: self.named,
            since: None,
        };
        self.away.insert(agent.clone(), away);
    }

    /// What an agent is told first, whose session before had not been told `unheard`: what was named to a broken stream was not
    /// heard, and what is on no list nothing else tells.
    pub(super) fn returned(&mut self, agent: &SpiffeId, unheard: Affected) -> Affected {
        let away = self.away.remove(agent);
        let may_have_missed = away.as_ref().is_some_and(|away| away.named != self.named);
        let untold = self.untold.as_mut();
        let is_untold = untold.is_some_and(|untold| untold.told.insert(agent.clone()));
        if self.lists_lack || is_untold || may_have_missed {
            return Affected::All;
        }
        away.map_or(unheard, |away| away.unheard)
    }

    /// Forgets what is old at `now`.
    pub(super) fn forget(&mut self, now: SystemTime) {
        let is_kept = |since: SystemTime| now < since + KEPT;
        self.away
            .retain(|_, away| is_kept(*away.since.get_or_insert(now)));
        let untold = self.untold.as_mut();
        let since = untold.map(|untold| *untold.since.get_or_insert(now));
        if since.is_some_and(|since| !is_kept(since)) {
            self.untold = None;
        }
    }
}
