//! Who holds what was replaced, and since when it is. Pure.

use std::collections::HashMap;

/// Stands for what is held.
type Digest = [u8; 32];

/// See the [module](self). Times are Unix seconds.
#[derive(Debug, Default)]
pub(super) struct Behind {
    newest: Option<Digest>,
    /// What was replaced and when, the oldest first.
    replaced: Vec<(Digest, i64)>,
    held: HashMap<u64, Digest>,
    holders: HashMap<Digest, usize>,
}

impl Behind {
    /// From now on this is the newest.
    pub(super) fn newest(&mut self, digest: Digest, now: i64) {
        if self.newest == Some(digest) {
            return;
        }
        self.replaced
            .retain(|(old, _)| *old != digest && self.holders.contains_key(old));
        if let Some(old) = self.newest.replace(digest)
            && self.holders.contains_key(&old)
        {
            self.replaced.push((old, now));
        }
    }

    pub(super) fn is_newest(&self, digest: &Digest) -> bool {
        self.newest.as_ref() == Some(digest)
    }

    /// A stream's proxy holds this. What is not known any more was replaced by now at the latest.
    pub(super) fn took(&mut self, stream: u64, digest: Digest, now: i64) {
        self.left(stream);
        self.held.insert(stream, digest);
        *self.holders.entry(digest).or_default() += 1;
        let is_known = self.newest == Some(digest) || self.replaced.iter().any(|(old, _)| *old == digest);
        if !is_known {
            self.replaced.push((digest, now));
        }
    }

    /// A stream has ended.
    pub(super) fn left(&mut self, stream: u64) {
        let Some(digest) = self.held.remove(&stream) else {
            return;
        };
        if let Some(holders) = self.holders.get_mut(&digest) {
            *holders -= 1;
            if *holders == 0 {
                self.holders.remove(&digest);
                self.replaced.retain(|(old, _)| *old != digest);
            }
        }
    }

    /// When the oldest of what is held was replaced; 0 where all hold the newest.
    pub(super) fn since(&self) -> i64 {
        self.replaced.first().map_or(0, |(_, since)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = [1; 32];
    const B: Digest = [2; 32];
    const C: Digest = [3; 32];

    #[test]
    fn the_oldest_that_is_held_counts_until_nobody_holds_it() {
        let mut behind = Behind::default();
        behind.newest(A, 10);
        behind.took(1, A, 10);
        behind.took(2, A, 11);
        assert_eq!(behind.since(), 0);
        behind.newest(B, 20);
        assert_eq!(behind.since(), 20);
        behind.took(1, B, 21);
        behind.newest(C, 30);
        assert_eq!(behind.since(), 20);
        behind.took(2, C, 31);
        assert_eq!(behind.since(), 30);
        behind.left(1);
        assert_eq!(behind.since(), 0);
    }

    #[test]
    fn what_comes_back_is_not_replaced_and_what_is_taken_late_is() {
        let mut behind = Behind::default();
        behind.newest(A, 10);
        behind.took(1, A, 10);
        behind.newest(B, 20);
        behind.newest(A, 30);
        assert_eq!(behind.since(), 0);
        behind.newest(C, 40);
        behind.took(1, B, 50);
        assert_eq!(behind.since(), 50);
        behind.left(1);
        assert!(behind.replaced.is_empty() && behind.holders.is_empty());
    }
}
