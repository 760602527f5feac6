use proptest::prelude::*;

use super::*;

fn places(total: usize, cap: usize) -> Arc<Places<u32>> {
    Places::new(Bounds {
        total,
        cap,
        loses: Loses::Newest,
    })
}

#[tokio::test]
async fn one_holder_never_shuts_out_another() {
    let places = places(10, 100);
    let mut greedy: Vec<_> = std::iter::from_fn(|| places.take(&1).ok()).collect();
    assert_eq!(greedy.len(), 10);
    let others: Vec<_> = std::iter::from_fn(|| places.take(&2).ok()).collect();
    assert_eq!(others.len(), 5, "both have the same number");
    assert_eq!(places.take(&2).unwrap_err(), NoPlace::Full);
    assert_eq!(places.taken(), 10);
    for place in &mut greedy[5..] {
        place.lost().await;
    }
    let waiting = std::future::poll_fn(|cx| Poll::Ready(greedy[4].poll_lost(cx).is_pending()));
    assert!(waiting.await, "the older ones stay");
    drop(greedy);
    assert_eq!(places.taken(), 5);
}

#[tokio::test]
async fn of_one_holder_what_is_worth_least_goes_first_and_takes_nothing_that_is_worth_more() {
    let places = Places::new(Bounds {
        total: 3,
        cap: 2,
        loses: Loses::Newest,
    });
    let take = |holder, worth| places.take_worth(&holder, worth);
    let (mut old, mut new) = (take("a", 1).unwrap(), take("a", 2).unwrap());
    assert_eq!(take("a", 1).unwrap_err(), NoPlace::Cap);
    let mut newer = take("a", 2).unwrap();
    old.lost().await;
    assert_eq!(take("a", 2).unwrap_err(), NoPlace::Cap);
    let _others = (take("b", 1).unwrap(), take("c", 1).unwrap());
    newer.lost().await;
    assert!(std::future::poll_fn(|cx| Poll::Ready(new.poll_lost(cx).is_pending())).await);
}

fn stalest(total: usize, cap: usize) -> Arc<Places<u32>> {
    Places::new(Bounds {
        total,
        cap,
        loses: Loses::Stalest,
    })
}

async fn is_lost(place: &mut Place<u32>) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(place.poll_lost(cx).is_ready())).await
}

#[tokio::test]
async fn whoever_comes_last_is_let_in_where_the_stalest_goes() {
    let places = stalest(4, 3);
    let mut of_one: Vec<_> = (0..3).map(|_| places.take(&1).unwrap()).collect();
    of_one[1].marker().set_idle(true);
    let _fourth = places.take(&1).unwrap();
    assert!(
        is_lost(&mut of_one[1]).await,
        "idle, so it goes before the oldest"
    );
    let fifth = places.take(&1).unwrap();
    assert!(is_lost(&mut of_one[0]).await && !is_lost(&mut of_one[2]).await);
    let mut other = places.take(&2).unwrap();
    let _another = places.take(&2).unwrap();
    assert!(is_lost(&mut of_one[2]).await, "of the largest holder");
    assert!(!is_lost(&mut other).await);
    drop(fifth);
    assert_eq!(places.taken(), 3);
}

/// As many holders as places: those who came first go, whatever their names.
#[tokio::test]
async fn among_equals_the_oldest_goes() {
    let places = stalest(3, 3);
    let mut held: Vec<_> = [9, 1, 5].map(|holder| places.take(&holder).unwrap()).into();
    let _new = places.take(&7).unwrap();
    assert!(is_lost(&mut held[0]).await && !is_lost(&mut held[1]).await);
    let _new = places.take(&8).unwrap();
    assert!(is_lost(&mut held[1]).await && !is_lost(&mut held[2]).await);
}

#[test]
fn a_mark_of_a_place_that_is_gone_leaves_nothing() {
    let places = stalest(3, 3);
    let place = places.take(&1).unwrap();
    let marker = place.marker();
    marker.set_idle(true);
    drop(place);
    marker.set_idle(true);
    assert!(places.state.lock().holders.is_empty());
    let _other = places.take(&1).unwrap();
    marker.set_idle(true);
    assert!(places.state.lock().holders[&1].idle.is_empty());
}

#[test]
fn nothing_is_remembered_of_those_who_left() {
    let places = places(10, 10);
    drop(
        (0..10)
            .map(|holder| places.take(&holder).unwrap())
            .collect::<Vec<_>>(),
    );
    let state = places.state.lock();
    assert!(state.holders.is_empty() && state.by_number.is_empty() && state.taken == 0);
}

proptest! {
    /// Whoever asks while he has fewer than an equal part gets a place, whatever the others did before.
    #[test]
    fn an_equal_part_is_sure(asks in proptest::collection::vec((0_u32..5, any::<bool>()), 1..200)) {
        let (total, cap) = (12, 9);
        let places = places(total, cap);
        let mut held: Vec<(u32, Place<u32>)> = Vec::new();
        for (holder, takes) in asks {
            if takes {
                let (mine, holders) = {
                    let state = places.state.lock();
                    (state.number_of(&holder), state.holders.len().max(1))
                };
                let part = total / (holders + usize::from(mine == 0));
                match places.take(&holder) {
                    Ok(place) => held.push((holder, place)),
                    Err(_) => prop_assert!(mine >= part.min(cap), "{mine} of a part of {part}"),
                }
            } else if let Some(index) = held.iter().position(|(other, _)| *other == holder) {
                drop(held.swap_remove(index));
            }
            let state = places.state.lock();
            let counted: usize = state.holders.values().map(|holder| holder.places.len()).sum();
            prop_assert_eq!(counted, state.taken);
            prop_assert!(counted <= total);
            prop_assert_eq!(state.by_number.len(), state.holders.len());
            prop_assert!(state.by_number.iter().all(|(number, _, holder)| state.number_of(holder) == *number));
        }
    }
}
