//! How many lines wait to be taken, and what follows when there are too many.

use serde::Deserialize;
use signet_runtime::limits::Limit;
use tokio::sync::watch;

use super::AuditProgress;

/// Lines that may wait unless `audit.max_backlog` says otherwise: an hour of a large fleet, and about a gigabyte.
pub(crate) const MAX_BACKLOG: u64 = 1_000_000;

/// What happens once so many lines wait.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WhenFull {
    /// Nothing is issued; everything else goes on, revoking above all, and its lines wait as well.
    #[default]
    StopIssuing,
    /// Everything goes on. Further lines are left out, and a line says how many once some are taken again.
    DropCounted,
}

/// The bound of the lines that wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct AuditBound {
    /// From so many on it is full.
    pub most: u64,
    /// What then happens.
    pub when_full: WhenFull,
}

impl Default for AuditBound {
    fn default() -> Self {
        Self {
            most: MAX_BACKLOG,
            when_full: WhenFull::default(),
        }
    }
}

impl AuditBound {
    /// Beyond how many the store leaves lines out.
    pub(crate) fn left_out_beyond(self) -> Option<u64> {
        (self.when_full == WhenFull::DropCounted).then_some(self.most)
    }
}

/// Row of the table of limits.
pub(crate) fn limit() -> Limit {
    Limit {
        who: "the audit log",
        what: "lines that are not taken",
        share: "none".to_owned(),
        cap: format!("{MAX_BACKLOG} (`audit.max_backlog`)"),
        counted: "server::audit::backlog",
        metric: "signet_server_audit_backlog_lines",
    }
}

/// The lines that wait. Clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct AuditBacklog {
    stored: watch::Receiver<u64>,
    progress: watch::Receiver<AuditProgress>,
    bound: AuditBound,
}

impl AuditBacklog {
    /// Of what is stored and how far the emitter has come.
    pub(crate) fn new(
        stored: watch::Receiver<u64>,
        progress: watch::Receiver<AuditProgress>,
        bound: AuditBound,
    ) -> Self {
        Self {
            stored,
            progress,
            bound,
        }
    }

    /// One that is always empty.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        let (stored, progress) = (watch::Sender::new(0), watch::Sender::default());
        Self::new(stored.subscribe(), progress.subscribe(), AuditBound::default())
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u64 {
        let stored = *self.stored.borrow();
        stored.saturating_sub(self.progress.borrow().emitted)
    }

    /// How far the log has come.
    pub(crate) fn progress(&self) -> AuditProgress {
        self.progress.borrow().clone()
    }

    /// Returns when it has come further, or fails in another way.
    ///
    /// # Errors
    /// When it will come no further.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.progress.changed().await
    }

    /// Why nothing is issued, in words that anybody may read.
    pub(crate) fn stops_issuing(&self) -> Option<&'static str> {
        let full = self.waiting() >= self.bound.most && self.bound.when_full == WhenFull::StopIssuing;
        full.then_some("the server cannot issue: too many lines of its audit log wait to be taken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuing_stops_at_the_bound_and_goes_on_below_it_unless_lines_are_left_out() {
        let (stored, progress) = (watch::Sender::new(999), watch::Sender::<AuditProgress>::default());
        let of = |when_full| {
            let bound = AuditBound {
                most: 1_000,
                when_full,
            };
            AuditBacklog::new(stored.subscribe(), progress.subscribe(), bound)
        };
        let (stopping, dropping) = (of(WhenFull::StopIssuing), of(WhenFull::DropCounted));
        assert_eq!((stopping.waiting(), stopping.stops_issuing()), (999, None));
        stored.send_replace(1_000);
        assert!(stopping.stops_issuing().is_some());
        assert_eq!(dropping.stops_issuing(), None);
        progress.send_modify(|progress| progress.emitted = 1);
        assert_eq!((stopping.waiting(), stopping.stops_issuing()), (999, None));
    }
}
