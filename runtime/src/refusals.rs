//! What is refused at doors: counted by door and reason, and told once an interval with its number, because anybody can cause it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family};

use crate::sync::Mutex;
use crate::tally::Tally;

/// Shortest time between two lines of one door for one reason.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Labels of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refusal {
    /// At which door.
    pub door: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// Refusals of all doors, to be registered as a metric.
pub type Refused = Family<Refusal, Counter>;

/// Refusals of one door. Clones are of the same one.
#[derive(Clone, Debug)]
pub struct Refusals {
    door: &'static str,
    refused: Refused,
    tallies: Arc<Mutex<BTreeMap<&'static str, Tally>>>,
}

impl Refusals {
    /// Counted in `refused`; `reasons` are series from the start, so that an alert on them is not blind to the first.
    #[must_use]
    pub fn new(door: &'static str, refused: &Refused, reasons: &[&'static str]) -> Self {
        for reason in reasons {
            drop(refused.get_or_create(&Refusal { door, reason }));
        }
        Self {
            door,
            refused: refused.clone(),
            tallies: Arc::default(),
        }
    }

    /// Told, and counted where nobody looks.
    #[must_use]
    pub fn untold(door: &'static str) -> Self {
        Self::new(door, &Refused::default(), &[])
    }

    /// The door's name.
    #[must_use]
    pub const fn door(&self) -> &'static str {
        self.door
    }

    /// Somebody is refused, or loses what he has.
    pub fn count(&self, reason: &'static str, caller: impl Display) {
        let door = self.door;
        self.refused.get_or_create(&Refusal { door, reason }).inc();
        let told = {
            let mut tallies = self.tallies.lock();
            let tally = tallies.entry(reason).or_insert_with(|| Tally::new(TOLD_EVERY));
            tally.count()
        };
        if let Some(refused) = told {
            tracing::warn!(door, reason, %caller, refused, "callers are refused, this one the last");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_door_and_reason() {
        let refused = Refused::default();
        let door = Refusals::new("agents", &refused, &["slow"]);
        (0..3).for_each(|_| door.count("places", "10.0.0.1"));
        let count = |reason| {
            let label = Refusal {
                door: "agents",
                reason,
            };
            refused.get_or_create(&label).get()
        };
        assert_eq!((count("places"), count("slow")), (3, 0));
    }
}
