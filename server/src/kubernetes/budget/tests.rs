use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::advance;

use super::*;

const GOOD: Payer<'_> = Payer::PodsOf("good");
const BAD: Payer<'_> = Payer::PodsOf("bad");
/// Enough for all calls that the rate allows.
const ROOMS: usize = 1000;

/// A call that is over as soon as it is made.
async fn take(budget: &Budget, payer: Payer<'_>) -> Result<(), Duration> {
    budget.take(payer).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_burst_passes_and_then_calls_wait_for_the_rate() {
    let budget = Budget::new(10, 3, ROOMS);
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(take(&budget, GOOD).await, Ok(()));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    for turn in 1..=10_u32 {
        assert_eq!(take(&budget, GOOD).await, Ok(()));
        let waited = began.elapsed();
        let due = Duration::from_millis(100) * turn;
        assert!(
            waited >= due && waited < due + Duration::from_millis(50),
            "{waited:?}"
        );
    }
    advance(Duration::from_secs(3600)).await;
    let began = Instant::now();
    join_all((0..3).map(|_| budget.take(GOOD))).await;
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "no more than the burst is saved up"
    );
    assert_eq!(take(&budget, GOOD).await, Ok(()));
    assert!(began.elapsed() >= Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn whoever_has_no_turn_in_time_is_told_when_to_come_back() {
    let budget = Budget::new(2, 1, ROOMS);
    let began = Instant::now();
    let answers = join_all((0..20).map(|_| budget.take(BAD))).await;
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    // The last of them at the moment at which the others give up.
    assert!(
        (1 + 7..=1 + 8).contains(&served),
        "{served}: two a second for as long as one waits"
    );
    assert!(began.elapsed() <= LONGEST_TURN + Duration::from_millis(10));
    let waits: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(
        waits
            .iter()
            .all(|wait| (SHORTEST_WAIT..=Duration::from_millis(6500)).contains(wait)),
        "{waits:?}"
    );
    assert_eq!(
        budget.queue.lock().pause(Instant::now()),
        None,
        "nobody is left in it"
    );
}

type Call = JoinHandle<Result<(), Duration>>;

/// Calls of the pods of a node, as soon as they all wait.
async fn calls(budget: &Arc<Budget>, node: &str, count: usize) -> Vec<Call> {
    let call = |_| {
        let (budget, node) = (Arc::clone(budget), node.to_owned());
        tokio::spawn(async move { take(&budget, Payer::PodsOf(&node)).await })
    };
    let calls = (0..count).map(call).collect();
    settle().await;
    calls
}

/// Everybody goes as far as he can at this moment.
async fn settle() {
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_has_so_many_calls_waiting_and_keeps_no_other_waiting() {
    let budget = Arc::new(Budget::new(1, 1, ROOMS));
    assert_eq!(take(&budget, GOOD).await, Ok(()));
    let flood = calls(&budget, "bad", NODES_WAITING).await;
    let began = Instant::now();
    assert_eq!(
        take(&budget, BAD).await,
        Err(LONGEST_WAIT),
        "one more than may wait"
    );
    assert_eq!(began.elapsed(), Duration::ZERO, "told at once");
    assert_eq!(take(&budget, Payer::PodsOf("other")).await, Ok(()));
    let waited = began.elapsed();
    assert!(
        waited <= Duration::from_millis(2010),
        "the bad one and then this one: {waited:?}"
    );
    flood.iter().for_each(Call::abort);
}

#[tokio::test(start_paused = true)]
async fn where_all_places_are_taken_the_node_that_has_the_most_gives_one() {
    let budget = Arc::new(Budget::new(1, 1, ROOMS));
    assert_eq!(take(&budget, GOOD).await, Ok(()));
    let mut flood = Vec::new();
    for node in 0..WAITING / NODES_WAITING {
        flood.extend(calls(&budget, &format!("bad-{node}"), NODES_WAITING).await);
    }
    assert!(!flood.iter().any(Call::is_finished));
    let good = calls(&budget, "good", 1).await.pop().unwrap();
    assert!(!good.is_finished(), "it has a place");
    let lost: Vec<_> = flood.iter().filter(|call| call.is_finished()).collect();
    assert_eq!(lost.len(), 1);
    flood.iter().for_each(Call::abort);
    assert_eq!(good.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_called_no_more_and_the_others_go_on() {
    let budget = Arc::new(Budget::new(10, 1, ROOMS));
    assert_eq!(take(&budget, GOOD).await, Ok(()));
    let began = Instant::now();
    let leaves = calls(&budget, "bad", 1).await;
    let stays = calls(&budget, "good", 2).await;
    leaves.iter().for_each(Call::abort);
    for call in stays {
        assert_eq!(call.await.unwrap(), Ok(()));
    }
    let waited = began.elapsed();
    assert!(
        waited < Duration::from_millis(210),
        "its turn went to another: {waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_in_the_moment_of_its_turn_gives_its_room_back() {
    let budget = Arc::new(Budget::new(1000, 1000, 1));
    let under_way = budget.take(GOOD).await.unwrap();
    let mut leave = calls(&budget, "bad", 2).await;
    leave.extend(calls(&budget, "other", 2).await);
    drop(under_way);
    tokio::task::yield_now().await;
    leave.iter().for_each(Call::abort);
    settle().await;
    assert_eq!(budget.rooms.available_permits(), 1);
    let began = Instant::now();
    assert_eq!(take(&budget, GOOD).await, Ok(()));
    assert_eq!(began.elapsed(), Duration::ZERO);
}
