//! What a step of the machine looks at besides its state: the time, with how far it is believed, the settings, the reports.

use std::time::SystemTime;

use super::policy::LifePolicy;
use super::spread::SpreadReports;

/// The time of a step, with how far it is believed (design §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The time to sign by.
    pub now: SystemTime,
    /// Whether an authority may be replaced because its dates do not fit `now`.
    pub trusted: bool,
    /// The time by which timers rotate and authorities end; nothing of that happens while there is none.
    pub settled: Option<SystemTime>,
}

impl Moment {
    /// When the settled time, by which timers go and which may lie behind [`now`](Self::now), reaches `moment`; never as long as
    /// there is none.
    pub(super) fn when_settled(&self, moment: SystemTime) -> Option<SystemTime> {
        let left = moment.duration_since(self.settled?).unwrap_or_default();
        Some(self.now + left)
    }
}

/// What every step may look at besides the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// When the step is taken.
    pub at: Moment,
    /// The settings.
    pub policy: &'a LifePolicy,
    /// What agents report.
    pub reports: &'a SpreadReports,
}
