//! Places that many holders share, such as open connections. Each holder is sure of an equal part: where every place is taken, whoever
//! holds fewer takes one from whoever holds the most (max-min fairness), so nobody is shut out by another's number.

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
    /// The oldest: where an honest holder needs its place for a moment only, as in a handshake.
    Oldest,
    /// The newest: where long use is a sign of honest use, as with watch streams.
    Newest,
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
pub struct Places<K> {
    bounds: Bounds,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    taken: usize,
    last: u64,
    /// Dropping a sender tells the place that it is lost.
    holders: HashMap<K, BTreeMap<u64, oneshot::Sender<()>>>,
    by_number: BTreeSet<(usize, K)>,
}

/// One place, until this is dropped.
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub struct Place<K: Clone + Eq + Hash + Ord> {
    places: Arc<Places<K>>,
    holder: K,
    number: u64,
    lost: oneshot::Receiver<()>,
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

    /// A place for this holder.
    ///
    /// # Errors
    /// [`NoPlace`]; nothing changes then.
    pub fn take(self: &Arc<Self>, holder: &K) -> Result<Place<K>, NoPlace> {
        let mut state = self.state.lock();
        let mine = state.number_of(holder);
        if mine >= self.bounds.cap {
            return Err(NoPlace::Cap);
        }
        if state.taken >= self.bounds.total {
            state.free_one(mine, self.bounds.loses)?;
        }
        let (open, lost) = oneshot::channel();
        let number = state.add(holder, open);
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

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn number_of(&self, holder: &K) -> usize {
        self.holders.get(holder).map_or(0, BTreeMap::len)
    }

    /// Takes a place from the largest holder, if that keeps at least as many as one who has `fewer` has with it.
    fn free_one(&mut self, fewer: usize, loses: Loses) -> Result<(), NoPlace> {
        let Some((most, largest)) = self.by_number.last().cloned() else {
            return Err(NoPlace::Full);
        };
        if most <= fewer + 1 {
            return Err(NoPlace::Full);
        }
        let places = self.holders.get(&largest);
        let lost = places.and_then(|places| match loses {
            Loses::Oldest => places.keys().next(),
            Loses::Newest => places.keys().next_back(),
        });
        let lost = lost.copied().ok_or(NoPlace::Full)?;
        self.remove(&largest, lost);
        Ok(())
    }

    fn add(&mut self, holder: &K, open: oneshot::Sender<()>) -> u64 {
        let before = self.number_of(holder);
        self.last += 1;
        self.taken += 1;
        self.holders
            .entry(holder.clone())
            .or_default()
            .insert(self.last, open);
        self.count(holder, before, before + 1);
        self.last
    }

    fn remove(&mut self, holder: &K, number: u64) {
        let before = self.number_of(holder);
        let Some(places) = self.holders.get_mut(holder) else {
            return;
        };
        if places.remove(&number).is_none() {
            return;
        }
        if before == 1 {
            self.holders.remove(holder);
        }
        self.taken -= 1;
        self.count(holder, before, before - 1);
    }

    fn count(&mut self, holder: &K, before: usize, after: usize) {
        self.by_number.remove(&(before, holder.clone()));
        if after > 0 {
            self.by_number.insert((after, holder.clone()));
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Place<K> {
    /// Ready once the place has been taken away; wakes the task at that moment.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.lost).poll(cx).map(|_| ())
    }

    /// Resolves once the place has been taken away.
    pub async fn lost(&mut self) {
        let _: Result<(), _> = (&mut self.lost).await;
    }
}

impl<K: Clone + Eq + Hash + Ord> Drop for Place<K> {
    fn drop(&mut self) {
        self.places.state.lock().remove(&self.holder, self.number);
    }
}

#[cfg(test)]
mod tests;
