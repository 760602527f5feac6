//! What an agent asks for beyond what it may have costs the server little.

use super::*;

fn junk(item: IssueItem) -> IssueItem {
    IssueItem {
        csr: Bytes::from_static(b"junk"),
        ..item
    }
}

/// A CSR of the caller's choice costs both cores where requests have 250 of them: none is looked at while there is nothing to be had.
#[tokio::test(start_paused = true)]
async fn no_csr_is_checked_for_whom_a_budget_is_used_up() {
    let world = world_of_shells().await;
    let all = world.issue((0..256).map(process).collect()).await;
    assert!(all.iter().all(Result::is_ok));
    let Err(NotIssued::Refused(first)) = world.issue_one(process(256)).await else {
        panic!("it has no more");
    };
    assert_eq!(first.reason, RefusalReason::Budget);
    let wait = first.retry_after.unwrap();
    for outcome in world.issue((0..250).map(|n| junk(process(n))).collect()).await {
        let Err(NotIssued::Refused(refusal)) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(
            (refusal.reason, refusal.retry_after),
            (RefusalReason::Budget, Some(wait))
        );
    }
    issued(world.issue_one(item(csr(), "pod-token")).await);
    world.running.pass(wait).await;
    let (reason, _) = refused(world.issue_one(junk(process(1))).await);
    assert_eq!(reason, RefusalReason::InvalidRequest);
    issued(world.issue_one(process(256)).await);
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_csrs_come_to_nothing_waits_and_its_neighbour_does_not() {
    let world = World::new().await;
    let batch = || (0..256).map(|_| junk(item(csr(), "pod-token"))).collect();
    let mut refused_items = 0;
    let wait = loop {
        match world.issuer.issue(&world.calling("node-a"), batch()).await {
            Ok(answered) => refused_items += answered.outcomes.len(),
            Err(CallRefused::Fruitless(wait)) => break wait,
            Err(other) => panic!("{other:?}"),
        }
        assert!(refused_items < 10_000, "it goes on for ever");
    };
    assert_eq!(refused_items, 1024);
    let other = vec![item(csr(), "pod-token")];
    let answered = world.issuer.issue(&world.calling("node-b"), other).await;
    assert_eq!(answered.unwrap().outcomes.len(), 1);
    world.running.pass(wait).await;
    issued(world.issue_one(item(csr(), "pod-token")).await);
}

/// What the store refuses has been checked as well.
#[tokio::test(start_paused = true)]
async fn a_sound_csr_that_the_store_refuses_is_paid_for_too() {
    let world = World::new().await;
    world.deny().await;
    let mut refused_items = 0;
    loop {
        let batch = (0..256).map(|_| item(csr(), "pod-token")).collect();
        match world.issuer.issue(&world.calling("node-a"), batch).await {
            Ok(answered) => refused_items += answered.outcomes.len(),
            Err(CallRefused::Fruitless(_)) => break,
            Err(other) => panic!("{other:?}"),
        }
        assert!(refused_items < 10_000, "it goes on for ever");
    }
    assert_eq!(refused_items, 1024);
}
