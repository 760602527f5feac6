//! Which sequences have been seen.

use std::collections::BTreeMap;

/// Stretches that neither overlap nor touch, by their first.
#[derive(Default)]
pub(super) struct Covered(BTreeMap<u64, u64>);

impl Covered {
    /// The end of the stretch that this one is in.
    fn end_of(&self, sequence: u64) -> Option<u64> {
        let before = self.0.range(..=sequence).next_back();
        before.map(|(_, end)| *end).filter(|end| *end >= sequence)
    }

    /// Whether each of `first` to `last` has been seen here or there.
    pub(super) fn has_with(&self, other: &Self, first: u64, last: u64) -> bool {
        let mut next = first;
        while let Some(end) = self.end_of(next).max(other.end_of(next)) {
            if end >= last {
                return true;
            }
            next = end + 1;
        }
        false
    }

    /// The greatest that has been seen.
    pub(super) fn greatest(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, end)| *end)
    }

    /// `first` to `last` have been seen.
    pub(super) fn add(&mut self, mut first: u64, mut last: u64) {
        while let Some((&begin, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.0.remove(&begin);
            (first, last) = (first.min(begin), last.max(end));
        }
        self.0.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_that_touch_become_one() {
        let mut covered = Covered::default();
        assert_eq!(covered.greatest(), None);
        for (first, last) in [(1, 3), (7, 9), (20, 20), (4, 5)] {
            covered.add(first, last);
        }
        let has = |covered: &Covered, first, last| covered.has_with(&Covered::default(), first, last);
        assert!(has(&covered, 1, 5) && has(&covered, 8, 9) && has(&covered, 20, 20));
        assert!(
            !has(&covered, 5, 6) && !has(&covered, 5, 7) && !has(&covered, 0, 1) && !has(&covered, 20, 21)
        );
        let mut other = Covered::default();
        other.add(6, 6);
        assert!(covered.has_with(&other, 1, 9) && other.has_with(&covered, 1, 9));
        assert!(!covered.has_with(&other, 1, 10));
        covered.add(2, 19);
        assert!(has(&covered, 1, 20));
        assert_eq!((covered.greatest(), covered.0.len()), (Some(20), 1));
    }
}
