//! Which lists are still being read. Every reader of the same lists shares one reading; a client that takes nothing while they are replaced again and
//! again loses the oldest, so that what all of them hold is bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use signet_runtime::limits::Limit;
use signet_runtime::sync::Mutex;

use crate::context::Lists;
use crate::sockets::REFUSED_METRIC;

/// Moments whose lists are read at the same time, the present one among them. The lists of one have 3 MiB at most by default, and 4.1 MiB more once a proxy has asked for
/// them in PEM.
const MOST: usize = 8;

/// The lists of one moment, until they are too old.
#[derive(Debug)]
pub(crate) struct Reading(Mutex<Option<Arc<Lists>>>);

impl Reading {
    /// None when they are kept no more.
    pub(crate) fn lists(&self) -> Option<Arc<Lists>> {
        self.0.lock().clone()
    }
}

/// Every reading that is under way, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Readings(Mutex<VecDeque<Weak<Reading>>>);

impl Readings {
    /// The reading of these lists: the one that others have begun, or a new one. Beyond [`MOST`] the oldest ends.
    pub(crate) fn of(&self, lists: &Arc<Lists>) -> Arc<Reading> {
        let mut known = self.0.lock();
        let is_same = |reading: &Arc<Reading>| reading.lists().is_some_and(|read| Arc::ptr_eq(&read, lists));
        if let Some(reading) = known.iter().rev().filter_map(Weak::upgrade).find(is_same) {
            return reading;
        }
        known.retain(|reading| reading.strong_count() > 0);
        while known.len() >= MOST {
            if let Some(oldest) = known.pop_front().and_then(|oldest| oldest.upgrade()) {
                oldest.0.lock().take();
            }
        }
        let reading = Arc::new(Reading(Mutex::new(Some(lists.clone()))));
        known.push_back(Arc::downgrade(&reading));
        reading
    }
}

/// Row of the table of limits.
pub(crate) fn limit() -> Limit {
    Limit {
        who: "all pods and users together",
        what: "revocation lists that were replaced while somebody was sent them",
        share: format!("the last {MOST}; who has taken less ends"),
        cap: format!("{MOST}"),
        counted: "agent::streams::readings",
        metric: REFUSED_METRIC,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn readers_share_what_they_read_and_the_oldest_ends() {
        let readings = Readings::default();
        let all: Vec<_> = (0..=u8::try_from(MOST).unwrap())
            .map(|mark| Lists::new(vec![Bytes::from(vec![mark; 9])]))
            .collect();
        let first = readings.of(&all[0]);
        assert!(Arc::ptr_eq(&first, &readings.of(&all[0])));
        // Nobody reads the second any more: it is not counted.
        drop(readings.of(&all[1]));
        let others: Vec<_> = all[2..].iter().map(|lists| readings.of(lists)).collect();
        assert!(first.lists().is_some());
        let newest = readings.of(&all[1]);
        assert!(first.lists().is_none());
        assert!(
            others
                .iter()
                .chain([&newest])
                .all(|reading| reading.lists().is_some())
        );
        assert_eq!(Arc::strong_count(&all[0]), 1);
        // Who comes later reads it again.
        assert!(readings.of(&all[0]).lists().is_some());
    }
}
