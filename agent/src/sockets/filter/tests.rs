use std::future::poll_fn;

use signet_runtime::bucket::Rate;
use tokio::time::advance;

use super::*;
use crate::sockets::budget::{Budgets, Sharer};
use crate::sockets::settings::Settings;

const MINUTE: Duration = Duration::from_secs(60);

/// A connection of a caller that may send 100 units a second, 100 at once, and goes on for a minute at most.
fn pace() -> Pace {
    let settings = Settings {
        work: Rate {
            per_second: 100.0,
            burst: 100.0,
        },
        over_limit: MINUTE,
        ..Settings::default()
    };
    let budget = Budgets::new(settings).of(Sharer::User(7));
    Pace::new(budget, Counts::default())
}

/// Waits until it may send, and sends.
async fn bring(pace: &mut Pace, work: u32) {
    poll_fn(|cx| pace.poll(cx)).await;
    pace.spend(work);
}

/// As a reader of long lists does, who opens its window after each piece.
#[tokio::test(start_paused = true)]
async fn a_burst_is_forgotten_when_nothing_follows() {
    let mut pace = pace();
    for _ in 0..5 {
        bring(&mut pace, 200).await;
        assert!(!pace.is_too_much());
        advance(10 * MINUTE).await;
        assert!(!pace.is_too_much(), "it has said nothing meanwhile");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_on_is_too_much_after_the_limit() {
    let (mut pace, begun) = (pace(), Instant::now());
    while !pace.is_too_much() {
        bring(&mut pace, 200).await;
        assert!(begun.elapsed() < 2 * MINUTE);
    }
    assert!(begun.elapsed() > MINUTE, "{:?}", begun.elapsed());
}

/// Each piece costs a pause that is longer than what counts as calm.
#[tokio::test(start_paused = true)]
async fn whoever_brings_the_dearest_pieces_is_too_much_too() {
    let (mut pace, begun) = (pace(), Instant::now());
    while !pace.is_too_much() {
        bring(&mut pace, 3_000).await;
        assert!(begun.elapsed() < 3 * MINUTE);
    }
}
