//! Places that many holders share, such as open connections. Each holder is sure of an equal part: where every place is taken, whoever
//! holds fewer takes one from whoever holds the most (max-min fairness), so nobody is shut out by another's number. Of a holder's own
//! places some may be worth more than others, by `W`: those that are worth least go first, and never take one that is worth more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::sync::Mutex;

/// Which of its places a holder loses first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loses {
    /// The newest: where long use is a sign of honest use, as with watch streams.
    Newest,
    /// The oldest of those that are idle, else the oldest. Whoever has as many as one may have, or as many as the largest, loses one of
    /// its own: whoever comes last is let in, so that no number of silent neighbours at one address shuts it out.
    Stalest,
}

/// Bounds of [`Places`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Places in all.
    pub total: usize,
    /// Most places of one holder.
    pub cap: usize,
    /// What the largest holder loses when there are no more.
    pub loses: Loses,
}

/// Places, and who has them. A place that is taken away counts as free at once; the connection in it ends when its task is next
/// scheduled, so for that moment there can be more.
#[derive(Debug)]
pub struct Places<K, W = ()> {
    bounds: Bounds,
    state: Mutex<State<K, W>>,
}

#[derive(Debug)]
struct State<K, W> {
    taken: usize,
    last: u64,
    holders: HashMap<K, Holder<W>>,
    /// By their number of places, and by the oldest of these where that is equal.
    by_number: BTreeSet<(usize, Reverse<u64>, K)>,
}

#[derive(Debug)]
struct Holder<W> {
    places: BTreeMap<u64, Held<W>>,
    idle: BTreeSet<u64>,
}

#[derive(Debug)]
struct Held<W> {
    worth: W,
    /// Dropping it tells the place that it is lost.
    _open: oneshot::Sender<()>,
}

/// One place, until this is dropped.
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub struct Place<K: Clone + Eq + Hash + Ord, W: Copy + Ord = ()> {
    places: Arc<Places<K, W>>,
    holder: K,
    number: u64,
    lost: oneshot::Receiver<()>,
}

/// Says of one place whether it is idle. It keeps no place.
#[derive(Debug)]
pub struct Marker<K, W = ()> {
    places: Arc<Places<K, W>>,
    holder: K,
    number: u64,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoPlace {
    /// This holder has as many as one may have.
    Cap,
    /// All are taken, and nobody has more than this holder would have.
    Full,
}

impl<K: Clone + Eq + Hash + Ord> Places<K> {
    /// A place for this holder.
    ///
    /// # Errors
    /// [`NoPlace`]; nothing changes then.
    pub fn take(self: &Arc<Self>, holder: &K) -> Result<Place<K>, NoPlace> {
        self.take_worth(holder, ())
    }
}

impl<K: Clone + Eq + Hash + Ord, W: Copy + Ord> Places<K, W> {
    /// All of them free.
    #[must_use]
    pub fn new(bounds: Bounds) -> Arc<Self> {
        let state = State {
            taken: 0,
            last: 0,
            holders: HashMap::new(),
            by_number: BTreeSet::new(),
        };
        Arc::new(Self {
            bounds,
            state: Mutex::new(state),
        })
    }

    /// A place for this holder that is worth so much to it: it takes that of one that is worth less where the holder has as many as one
    /// may have.
    ///
    /// # Errors
    /// [`NoPlace`]; nothing changes then.
    pub fn take_worth(self: &Arc<Self>, holder: &K, worth: W) -> Result<Place<K, W>, NoPlace> {
        let mut state = self.state.lock();
        let mine = state.number_of(holder);
        if mine >= self.bounds.cap {
            let may_lose = self.bounds.loses == Loses::Stalest || state.has_one_below(holder, worth);
            if !may_lose || mine == 0 {
                return Err(NoPlace::Cap);
            }
            state.lose_one_of(holder, self.bounds.loses)?;
        }
        if state.taken >= self.bounds.total {
            state.free_one(holder, self.bounds.loses)?;
        }
        let (open, lost) = oneshot::channel();
        let number = state.add(holder, Held { worth, _open: open });
        Ok(Place {
            places: self.clone(),
            holder: holder.clone(),
            number,
            lost,
        })
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.state.lock().taken
    }
}

impl<K: Clone + Eq + Hash + Ord, W: Copy + Ord> State<K, W> {
    fn number_of(&self, holder: &K) -> usize {
        self.holders.get(holder).map_or(0, |holder| holder.places.len())
    }

    fn has_one_below(&self, holder: &K, worth: W) -> bool {
        let holder = self.holders.get(holder);
        holder.is_some_and(|holder| holder.places.values().any(|held| held.worth < worth))
    }

    /// Takes a place from the largest holder, if that keeps at least as many as the one who asks then has; where the stalest goes, from
    /// the largest in any case, who may be the one who asks.
    fn free_one(&mut self, asks: &K, loses: Loses) -> Result<(), NoPlace> {
        let fewer = self.number_of(asks);
        let Some((most, _, largest)) = self.by_number.last().cloned() else {
            return Err(NoPlace::Full);
        };
        match loses {
            Loses::Stalest if fewer >= most => self.lose_one_of(asks, loses),
            Loses::Newest if most <= fewer + 1 => Err(NoPlace::Full),
            Loses::Newest | Loses::Stalest => self.lose_one_of(&largest, loses),
        }
    }

    fn lose_one_of(&mut self, holder: &K, loses: Loses) -> Result<(), NoPlace> {
        let lost = self.holders.get(holder).and_then(|holder| match loses {
            Loses::Newest => holder.newest_of_least_worth(),
            Loses::Stalest => holder.idle.first().copied().or_else(|| holder.oldest()),
        });
        self.remove(holder, lost.ok_or(NoPlace::Full)?);
        Ok(())
    }

    fn add(&mut self, holder: &K, held: Held<W>) -> u64 {
        self.last += 1;
        self.taken += 1;
        let number = self.last;
        self.change(holder, |holder| drop(holder.places.insert(number, held)));
        number
    }

    fn remove(&mut self, holder: &K, number: u64) {
        let holds = self.holders.get(holder);
        if !holds.is_some_and(|holder| holder.places.contains_key(&number)) {
            return;
        }
        self.taken -= 1;
        self.change(holder, |holder| {
            holder.places.remove(&number);
            holder.idle.remove(&number);
        });
    }

    fn change(&mut self, key: &K, change: impl FnOnce(&mut Holder<W>)) {
        let holder = self.holders.entry(key.clone()).or_insert_with(Holder::new);
        if let Some((number, oldest)) = holder.rank() {
            self.by_number.remove(&(number, oldest, key.clone()));
        }
        change(holder);
        match holder.rank() {
            Some((number, oldest)) => drop(self.by_number.insert((number, oldest, key.clone()))),
            None => drop(self.holders.remove(key)),
        }
    }

    fn mark(&mut self, holder: &K, number: u64, idle: bool) {
        let Some(holder) = self.holders.get_mut(holder) else {
            return;
        };
        if !idle {
            holder.idle.remove(&number);
        } else if holder.places.contains_key(&number) {
            holder.idle.insert(number);
        }
    }
}

impl<W: Copy + Ord> Holder<W> {
    const fn new() -> Self {
        Self {
            places: BTreeMap::new(),
            idle: BTreeSet::new(),
        }
    }

    fn newest_of_least_worth(&self) -> Option<u64> {
        let least = self.places.iter().rev().min_by_key(|(_, held)| held.worth)?;
        Some(*least.0)
    }

    fn oldest(&self) -> Option<u64> {
        self.places.keys().next().copied()
    }

    fn rank(&self) -> Option<(usize, Reverse<u64>)> {
        Some((self.places.len(), Reverse(self.oldest()?)))
    }
}

impl<K: Clone + Eq + Hash + Ord, W: Copy + Ord> Marker<K, W> {
    /// Whether nothing is under way in the place.
    pub fn set_idle(&self, idle: bool) {
        self.places.state.lock().mark(&self.holder, self.number, idle);
    }
}

impl<K: Clone + Eq + Hash + Ord, W: Copy + Ord> Place<K, W> {
    /// Marks the place. A new one is not idle.
    #[must_use]
    pub fn marker(&self) -> Marker<K, W> {
        Marker {
            places: self.places.clone(),
            holder: self.holder.clone(),
            number: self.number,
        }
    }

    /// Ready once the place has been taken away; wakes the task at that moment.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.lost).poll(cx).map(|_| ())
    }

    /// Resolves once the place has been taken away.
    pub async fn lost(&mut self) {
        let _: Result<(), _> = (&mut self.lost).await;
    }
}

impl<K: Clone + Eq + Hash + Ord, W: Copy + Ord> Drop for Place<K, W> {
    fn drop(&mut self) {
        self.places.state.lock().remove(&self.holder, self.number);
    }
}

#[cfg(test)]
mod tests;
