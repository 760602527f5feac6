use super::*;

/// In an outage of the cluster kubelet gets no newer token: the one that was good when it began goes on being brought, until the
/// outage ends.
#[tokio::test(start_paused = true)]
async fn in_an_outage_pods_are_renewed_with_tokens_that_were_good_when_it_began() {
    let bench = Bench::new();
    bench.add_volume("vol-0", "pod-0", 3600);
    bench.add_volume("vol-1", "pod-1", 300);
    let (mut states, mut late) = (bench.attach(0).await, bench.attach(1).await);
    let mut held = ready(&mut states).await;
    ready(&mut late).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    bench.outage.send_replace(Some(bench.clock.now()));
    for _ in 0..8 {
        held = renewed(&mut states, &held).await;
    }
    assert!(bench.clock.now() > at(3 * 3600), "long after the token's end");
    let told = until(&mut late, "its end", |state| {
        matches!(state, WorkloadState::Pending { .. })
    })
    .await;
    let WorkloadState::Pending {
        problem: Some(problem),
    } = told
    else {
        panic!("nothing is said: {told:?}")
    };
    assert!(
        problem.contains("API server") && !problem.contains("requiresRepublish"),
        "{problem}"
    );
    let asked = bench.server.asked().len();
    bench.outage.send_replace(None);
    let told = until(&mut states, "its end", |state| {
        matches!(state, WorkloadState::Pending { .. })
    })
    .await;
    assert_eq!(
        bench.server.asked().len(),
        asked,
        "the API server is back: a newer token proves the pod"
    );
    let said = matches!(&told, WorkloadState::Pending { problem: Some(problem) } if problem.contains("requiresRepublish"));
    assert!(said, "{told:?}");
}
