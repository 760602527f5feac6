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
async fn the_oldest_goes_where_a_place_is_needed_for_a_moment() {
    let places = Places::new(Bounds {
        total: 2,
        cap: 2,
        loses: Loses::Oldest,
    });
    let (mut first, mut second) = (places.take(&"a").unwrap(), places.take(&"a").unwrap());
    assert_eq!(places.take(&"a").unwrap_err(), NoPlace::Cap);
    let _other = places.take(&"b").unwrap();
    first.lost().await;
    assert!(std::future::poll_fn(|cx| Poll::Ready(second.poll_lost(cx).is_pending())).await);
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
            let counted: usize = state.holders.values().map(BTreeMap::len).sum();
            prop_assert_eq!(counted, state.taken);
            prop_assert!(counted <= total);
            prop_assert_eq!(state.by_number.len(), state.holders.len());
            prop_assert!(state.by_number.iter().all(|(number, holder)| state.number_of(holder) == *number));
        }
    }
}
