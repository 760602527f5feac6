//! Readiness as named conditions that come and go, on two levels: `/ready`, whether the doors give what is true, and
//! `/ready/issue`, whether the process does all of its work.
//!
//! A process has one fixed table of reasons. Each condition has one owner, who says when it begins to stand and when it no
//! longer does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{family::Family, gauge::Gauge};
use tokio::sync::watch;

use crate::telemetry::Metrics;

/// What a reason takes away while it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the doors give is not to be relied on. Probes and Services ask for this.
    Serve,
    /// What the doors give is true, but not all work is done. People and alarms ask for this; whatever takes away
    /// [`Level::Serve`] takes away this too.
    Issue,
}

impl Level {
    /// Where it is asked for over HTTP.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Serve => "/ready",
            Self::Issue => "/ready/issue",
        }
    }
}

/// One line of a process's table of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Name in answers and metrics.
    pub name: &'static str,
    /// What it takes away.
    pub level: Level,
    /// What it means and what to do, for people.
    pub meaning: &'static str,
}

/// Makes a table of reasons: for each a constant, its level, name and meaning, and `REASONS` with all of them in this order.
#[macro_export]
macro_rules! reasons {
    ($($constant:ident = $level:ident $name:literal, $meaning:literal;)+) => {
        $(pub(crate) const $constant: $crate::ready::Reason = $crate::ready::Reason {
            name: $name,
            level: $crate::ready::Level::$level,
            meaning: $meaning,
        };)+

        /// Every reason, in the order of docs/operating.md.
        pub(crate) const REASONS: &[$crate::ready::Reason] = &[$($constant),+];
    };
}

/// A reason that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub reason: Reason,
    /// What exactly is the matter; may be empty.
    pub detail: String,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.name)?;
        if self.detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.detail)
    }
}

/// What keeps a process from being ready. Clones are the same set.
///
/// Let the conditions of the start stand before the health endpoint is served: an empty set means ready.
#[derive(Clone, Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: &'static [Reason],
    conditions: watch::Sender<Conditions>,
    gauges: Gauges,
}

#[derive(Debug, Default)]
struct Conditions {
    next: u64,
    standing: BTreeMap<u64, Standing>,
}

impl Conditions {
    fn of(&self, level: Level) -> impl Iterator<Item = &Standing> {
        self.standing
            .values()
            .filter(move |standing| standing.reason.level <= level)
    }

    fn names(&self, level: Level) -> Vec<&'static str> {
        names(self.of(level))
    }
}

/// The names of these, each once, in order of the alphabet.
pub(crate) fn names<'a>(standing: impl IntoIterator<Item = &'a Standing>) -> Vec<&'static str> {
    let names: BTreeSet<_> = standing
        .into_iter()
        .map(|standing| standing.reason.name)
        .collect();
    names.into_iter().collect()
}

impl Readiness {
    /// Nothing stands yet. `table` has every reason that there will ever be.
    #[must_use]
    pub fn new(table: &'static [Reason]) -> Self {
        let shared = Shared {
            table,
            conditions: watch::Sender::default(),
            gauges: Gauges::default(),
        };
        shared.gauges.show(table, &Conditions::default());
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A condition that does not stand yet.
    pub fn condition(&self, reason: Reason) -> Condition {
        let mut key = 0;
        self.shared.conditions.send_modify(|conditions| {
            key = conditions.next;
            conditions.next += 1;
        });
        Condition {
            key,
            reason,
            shared: self.shared.clone(),
        }
    }

    /// A condition that stands until it is dropped.
    #[must_use = "dropping the condition says that it does not stand"]
    pub fn hold(&self, reason: Reason) -> Condition {
        let condition = self.condition(reason);
        condition.set(Some(String::new()));
        condition
    }

    /// Whether nothing stands in the way of `level`.
    #[must_use]
    pub fn is_ready(&self, level: Level) -> bool {
        self.shared.conditions.borrow().of(level).next().is_none()
    }

    /// What stands in the way of `level`, oldest condition first.
    #[must_use]
    pub fn standing(&self, level: Level) -> Vec<Standing> {
        self.shared.conditions.borrow().of(level).cloned().collect()
    }

    /// The names of what stands in the way of `level`, each once, in order of the alphabet.
    #[must_use]
    pub fn names(&self, level: Level) -> Vec<&'static str> {
        self.shared.conditions.borrow().names(level)
    }

    /// Resolves when other reasons stand in the way of `level` than those named, as by [`names`](Self::names). A
    /// detail that changes is no other reason.
    pub async fn differs(&self, level: Level, named: &[&str]) {
        let mut changes = self.shared.conditions.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = changes
            .wait_for(|conditions| conditions.names(level) != named)
            .await;
    }

    /// Resolves when nothing stands in the way of `level`.
    pub async fn ready(&self, level: Level) {
        let mut changes = self.shared.conditions.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = changes
            .wait_for(|conditions| conditions.of(level).next().is_none())
            .await;
    }

    /// Shows both levels, and each reason of the table, as metrics that follow by themselves.
    pub fn register(&self, metrics: &Metrics) {
        let gauges = self.shared.gauges.clone();
        metrics.register(|registry| {
            registry.register("ready", "1 while what the doors give is true", gauges.serve);
            registry.register("ready_issue", "1 while all work is done", gauges.issue);
            registry.register("not_ready", "1 while this reason stands", gauges.reasons);
        });
    }
}

/// Something that keeps a process from being ready while it stands. It no longer stands once this is dropped.
#[derive(Debug)]
pub struct Condition {
    key: u64,
    reason: Reason,
    shared: Arc<Shared>,
}

impl Condition {
    /// Says whether it stands: with what exactly is the matter, or not.
    pub fn set(&self, detail: Option<String>) {
        let next = detail.map(|detail| Standing {
            reason: self.reason,
            detail,
        });
        self.shared.conditions.send_if_modified(|conditions| {
            if conditions.standing.get(&self.key) == next.as_ref() {
                return false;
            }
            match next {
                Some(standing) => conditions.standing.insert(self.key, standing),
                None => conditions.standing.remove(&self.key),
            };
            self.shared.gauges.show(self.shared.table, conditions);
            true
        });
    }

    /// Says that it no longer stands; the same as dropping it, but it reads as what it means.
    pub fn done(self) {}
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    reason: &'static str,
}

type GaugeI64 = Gauge<i64, AtomicI64>;

#[derive(Clone, Debug, Default)]
struct Gauges {
    serve: GaugeI64,
    issue: GaugeI64,
    reasons: Family<Named, GaugeI64>,
}

impl Gauges {
    /// Every reason of the table has a series from the start: an alarm on its absence then means what it says.
    fn show(&self, table: &[Reason], conditions: &Conditions) {
        let is_free = |level| i64::from(conditions.of(level).next().is_none());
        self.serve.set(is_free(Level::Serve));
        self.issue.set(is_free(Level::Issue));
        for Reason { name: reason, .. } in table {
            let stands = conditions
                .standing
                .values()
                .any(|standing| standing.reason.name == *reason);
            self.reasons
                .get_or_create(&Named { reason })
                .set(i64::from(stands));
        }
    }
}

#[cfg(test)]
mod tests;
