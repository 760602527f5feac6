//! Who enters the lists when not everybody fits. Pure.
//!
//! All lists of one trust domain reach a workload in one message, so one room holds them all. What is listed leaves by expiry
//! alone; nothing pushes it off, since every reader's last good list would then say less than the one before it. What
//! has to wait enters as soon as there is room, in the order of its class, the longest remaining life first: what
//! ends soon is the cheapest to be without.

use std::time::SystemTime;

use signet_certs::authority::AuthorityId;

/// The room that an entry takes: one that says since when it is invalid has half as many bytes again.
pub(super) const fn weight(is_dated: bool) -> usize {
    if is_dated { 2 } else { 1 }
}

/// Lists that reach a reader in one message, and how many entries they may have together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListRoom {
    /// Whose lists.
    pub authorities: Vec<AuthorityId>,
    /// Entries that fit.
    pub capacity: usize,
}

/// Why a certificate was revoked, as far as the order of entering goes; first first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// Named by its serial, or its key leaked: nobody else can tell the thief from the holder.
    ByHand,
    /// Its pod or node is not trusted.
    Workload,
    /// Its SPIFFE ID, or a prefix of it, is denied.
    Identity,
    /// Revoked by the server itself.
    Automatic,
}

impl Class {
    /// The class's name in the store.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ByHand => "by-hand",
            Self::Workload => "workload",
            Self::Identity => "identity",
            Self::Automatic => "automatic",
        }
    }

    /// The class with this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::ByHand, Self::Workload, Self::Identity, Self::Automatic]
            .into_iter()
            .find(|class| class.as_str() == name)
    }
}

/// A revoked certificate that no list names yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting<K> {
    /// Which certificate.
    pub(super) key: K,
    /// Why it was revoked.
    pub(super) class: Class,
    /// When it ends, and the need to list it.
    pub(super) not_after: SystemTime,
    /// See [`weight`].
    pub(super) weight: usize,
}

/// How many entries all lists together may have, and how many they have, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Entries that fit.
    capacity: usize,
    /// Listed, of the first class.
    by_hand: usize,
    /// Listed, of the classes between.
    others: usize,
    /// Listed, of the last class.
    automatic: usize,
}

impl Room {
    /// A room without entries.
    pub(super) fn of(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// Counts entries that are listed, by their weight.
    pub(super) const fn count(&mut self, class: Class, entries: usize) {
        match class {
            Class::ByHand => self.by_hand += entries,
            Class::Workload | Class::Identity => self.others += entries,
            Class::Automatic => self.automatic += entries,
        }
    }

    /// Entries that are listed.
    const fn used(&self) -> usize {
        self.by_hand + self.others + self.automatic
    }

    /// A quarter is kept for the first class, and the last class gets a quarter at most.
    const fn takes(&self, class: Class, weight: usize) -> bool {
        let quarter = self.capacity / 4;
        let room = self.used() + weight <= self.capacity;
        let unreserved = self.others + self.automatic + weight <= self.capacity - quarter;
        match class {
            Class::ByHand => room,
            Class::Workload | Class::Identity => room && unreserved,
            Class::Automatic => room && unreserved && self.automatic + weight <= quarter,
        }
    }

    /// Lets in what fits, and returns it and what does not, both in the order of entering.
    pub(super) fn admit<K: Ord>(
        &mut self,
        mut waiting: Vec<Waiting<K>>,
    ) -> (Vec<Waiting<K>>, Vec<Waiting<K>>) {
        waiting.sort_by(|one, other| {
            (one.class, other.not_after, &other.key).cmp(&(other.class, one.not_after, &one.key))
        });
        waiting.into_iter().partition(|candidate| {
            let enters = self.takes(candidate.class, candidate.weight);
            if enters {
                self.count(candidate.class, candidate.weight);
            }
            enters
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn waiting(key: u32, class: Class, minutes: u64) -> Waiting<u32> {
        Waiting {
            key,
            class,
            not_after: UNIX_EPOCH + Duration::from_secs(60 * minutes),
            weight: 1,
        }
    }

    fn keys(list: &[Waiting<u32>]) -> Vec<u32> {
        list.iter().map(|one| one.key).collect()
    }

    #[test]
    fn what_is_dated_takes_the_room_of_two() {
        let mut room = Room::of(4);
        let dated = |key| Waiting {
            weight: weight(true),
            ..waiting(key, Class::ByHand, 9)
        };
        let (entered, left) = room.admit(vec![dated(1), dated(2), dated(3)]);
        assert_eq!((entered.len(), left.len()), (2, 1));
    }

    #[test]
    fn classes_enter_in_order_and_the_longest_life_first() {
        let mut room = Room::of(4);
        let (entered, left) = room.admit(vec![
            waiting(1, Class::Identity, 10),
            waiting(2, Class::Identity, 50),
            waiting(3, Class::Workload, 1),
            waiting(4, Class::Identity, 30),
            waiting(5, Class::Automatic, 90),
        ]);
        assert_eq!(keys(&entered), [3, 2, 4]);
        assert_eq!(
            keys(&left),
            [1, 5],
            "the quarter of the first class stays free for it"
        );
        let (entered, left) = room.admit(vec![waiting(6, Class::ByHand, 1), waiting(7, Class::ByHand, 2)]);
        assert_eq!((keys(&entered), keys(&left)), (vec![7], vec![6]));
    }

    #[test]
    fn a_room_that_shrank_lets_nobody_in_and_throws_nobody_out() {
        let mut room = Room {
            capacity: 1,
            by_hand: 2,
            others: 3,
            automatic: 4,
        };
        let (entered, left) = room.admit(vec![waiting(1, Class::ByHand, 1)]);
        assert!(entered.is_empty());
        assert_eq!((left.len(), room.used()), (1, 9));
    }

    #[test]
    fn classes_are_stored_by_name() {
        for class in [Class::ByHand, Class::Workload, Class::Identity, Class::Automatic] {
            assert_eq!(Class::parse(class.as_str()), Some(class));
        }
        assert_eq!(Class::parse("other"), None);
    }

    fn class() -> impl Strategy<Value = Class> {
        prop_oneof![
            Just(Class::ByHand),
            Just(Class::Workload),
            Just(Class::Identity),
            Just(Class::Automatic)
        ]
    }

    proptest! {
        /// However entries come: the room is never exceeded, shares are kept, nobody is lost, and nobody waits in front of an
        /// open door.
        #[test]
        fn shares_are_kept(capacity in 0usize..40, batches in prop::collection::vec(
            prop::collection::vec((class(), 0u64..100), 0..20), 1..6,
        )) {
            let mut room = Room::of(capacity);
            let (mut key, mut listed, mut left) = (0, 0, Vec::new());
            for batch in batches {
                for (class, minutes) in batch {
                    key += 1;
                    left.push(waiting(key, class, minutes));
                }
                let (entered, rest) = room.admit(left);
                listed += entered.len();
                left = rest;
                prop_assert_eq!(listed + left.len(), key as usize);
                prop_assert_eq!(listed, room.used());
                prop_assert!(room.used() <= capacity);
                prop_assert!(room.others + room.automatic <= capacity - capacity / 4);
                prop_assert!(room.automatic <= capacity / 4);
                prop_assert!(left.iter().all(|one| !room.takes(one.class, one.weight)));
            }
        }
    }
}
