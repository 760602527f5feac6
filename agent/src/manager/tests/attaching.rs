//! What attaching costs, and behind whom it waits.

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;

/// How long a thousand callers take to attach where there are so many pods.
async fn time_of_a_thousand(pods: usize) -> Duration {
    let bench = Bench::new();
    (0..pods).for_each(|number| bench.add_pod(number));
    assert_eq!(bench.manager.status().await.len(), pods);
    let begun = Instant::now();
    for number in 0..1000 {
        bench.attach(number % pods).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn attaching_costs_the_same_however_many_pods_there_are() {
    let (few, many) = (time_of_a_thousand(10).await, time_of_a_thousand(1000).await);
    println!("1,000 attaches: {few:.1?} at 10 pods, {many:.1?} at 1,000 pods");
    assert!(many < 10 * few + Duration::from_millis(100), "{few:?}, {many:?}");
}

fn of_user(uid: u32) -> Caller {
    Caller::Peer(PeerProcess {
        uid,
        ..crate::unix::tests::own_peer()
    })
}

/// Of the next question, whose it is; and what keeps the next one of the same user away.
async fn next(asked: &mut mpsc::Receiver<Question>) -> (u32, OwnedSemaphorePermit) {
    match timeout(Duration::from_secs(10), asked.recv()).await.unwrap() {
        Some(Question::AttachProcess { facts, turn, .. }) => (facts.uid, turn),
        _ => panic!("another question"),
    }
}

#[tokio::test]
async fn nobody_waits_behind_a_user_who_asks_without_end() {
    let (commands, _told) = mpsc::unbounded_channel();
    let (questions, mut asked) = mpsc::channel(QUESTIONS);
    let manager = Manager {
        commands,
        questions,
        doorways: Arc::default(),
        turns: Arc::default(),
        unix: Some(UnixAttestor::default()),
    };
    let mut calls = JoinSet::new();
    let mut call = |uid| {
        let manager = manager.clone();
        calls.spawn(async move { drop(manager.attach(&of_user(uid)).await) })
    };
    let flood: Vec<_> = (0..300).map(|_| call(1000)).collect();
    let (first, turn) = next(&mut asked).await;
    call(1001);
    let (second, _) = next(&mut asked).await;
    assert_eq!((first, second), (1000, 1001));
    // Who gives up leaves nothing behind.
    flood.iter().for_each(tokio::task::AbortHandle::abort);
    call(1002);
    let (third, _) = next(&mut asked).await;
    assert_eq!(third, 1002);
    drop(turn);
    call(1000);
    let (last, _) = next(&mut asked).await;
    assert_eq!(last, 1000);
    assert!(asked.try_recv().is_err());
}
