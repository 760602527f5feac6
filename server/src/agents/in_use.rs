//! Which certificate each agent uses, in memory: what the store has judged is not asked again for every call.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use signet_certs::{id::SpiffeId, serial::SerialNumber};
use signet_runtime::sync::RwLock;

use crate::store::Generation;

/// In this time so many certificates of one agent are superseded without alarm: more means that it restarts in a loop, or
/// that two processes take turns in being it.
const WINDOW: Duration = Duration::from_secs(600);
const QUIET: usize = 3;

/// The newest certificate that each agent has used. Every call asks it; it changes where an agent has a new certificate.
#[derive(Debug, Default)]
pub(super) struct InUse(RwLock<HashMap<SpiffeId, Use>>);

#[derive(Debug, Default)]
struct Use {
    newest: Option<(SerialNumber, Generation)>,
    /// When certificates were superseded, within the window.
    superseded: VecDeque<SystemTime>,
    /// Said already, in this window.
    alarmed: bool,
}

impl InUse {
    /// The generation of this certificate, if it is the newest that its agent uses.
    pub(super) fn generation(&self, agent: &SpiffeId, serial: SerialNumber) -> Option<Generation> {
        let used = self.0.read();
        let (newest, generation) = used.get(agent)?.newest?;
        (newest == serial).then_some(generation)
    }

    /// Notes what the store has judged to count.
    pub(super) fn counts(&self, agent: &SpiffeId, serial: SerialNumber, generation: Generation) {
        if self.generation(agent, serial) == Some(generation) {
            return;
        }
        let mut used = self.0.write();
        let newest = &mut used.entry(agent.clone()).or_default().newest;
        if newest.is_none_or(|(_, known)| known <= generation) {
            *newest = Some((serial, generation));
        }
    }

    /// Forgets what counted: the store is asked anew.
    pub(super) fn forget(&self, agent: &SpiffeId) {
        if let Some(known) = self.0.write().get_mut(agent) {
            known.newest = None;
        }
    }

    /// Forgets agents that are not wanted: they are asked about anew when they come back.
    pub(super) fn retain(&self, wanted: impl Fn(&SpiffeId) -> bool) {
        self.0.write().retain(|agent, _| wanted(agent));
    }

    /// Notes that a certificate was superseded. Returns how many were within the window, when that is worth an alarm: once
    /// until it has been quiet.
    pub(super) fn superseded(&self, agent: &SpiffeId, now: SystemTime) -> Option<usize> {
        let mut used = self.0.write();
        let known = used.entry(agent.clone()).or_default();
        known.superseded.push_back(now);
        // What lies ahead of a clock that went back is forgotten.
        let recent = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age < WINDOW);
        known.superseded.retain(recent);
        while known.superseded.len() > QUIET + 1 {
            known.superseded.pop_front();
        }
        if known.superseded.len() <= QUIET {
            known.alarmed = false;
            return None;
        }
        (!std::mem::replace(&mut known.alarmed, true)).then_some(known.superseded.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> SpiffeId {
        SpiffeId::parse("spiffe://example.org/signet/agent/dev/a").unwrap()
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second)
    }

    #[test]
    fn what_was_judged_late_does_not_displace_what_is_newer() {
        let (in_use, serial) = (InUse::default(), |n| SerialNumber::generate(at(n), &[7; 13]));
        let generation = |number| Generation { epoch: 1, number };
        in_use.counts(&agent(), serial(1), generation(2));
        in_use.counts(&agent(), serial(2), generation(1));
        assert_eq!(in_use.generation(&agent(), serial(1)), Some(generation(2)));
        assert_eq!(in_use.generation(&agent(), serial(2)), None);
        in_use.forget(&agent());
        assert_eq!(in_use.generation(&agent(), serial(1)), None);
    }

    #[test]
    fn more_than_three_in_ten_minutes_alarm_once() {
        let in_use = InUse::default();
        let alarms: Vec<_> = [0, 100, 200, 601, 602, 603, 604, 605, 1300, 1301, 1302, 1303]
            .into_iter()
            .filter_map(|second| in_use.superseded(&agent(), at(second)).map(|_| second))
            .collect();
        assert_eq!(alarms, [602, 1303]);
    }
}
