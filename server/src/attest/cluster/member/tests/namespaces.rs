//! Labels of namespaces: as the watch shows them, read where it does not, and kept in an outage.

use super::*;

impl World {
    /// A pod of shop that was proved.
    async fn proven(&self) -> AttestedPod {
        let token = self.token(POD, "pod", 47 * HOUR);
        self.pod(&token).await.unwrap()
    }

    /// The label of its namespace.
    async fn team(&self, pod: &AttestedPod) -> Result<Option<String>, AttestError> {
        let labels = self.cluster.namespace_labels(pod).await?;
        Ok(labels.get("team").cloned())
    }

    fn looks(&self) -> u64 {
        self.api.looks.load(Ordering::SeqCst)
    }

    async fn followed(&self) {
        while !self.cluster.namespaces.holds() {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn message<T: std::fmt::Debug>(result: Result<T, AttestError>) -> String {
    match result {
        Err(AttestError::Unavailable { message, .. }) => message,
        other => panic!("not unavailable: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_the_watch_does_not_show_is_read_before_anybody_decides() {
    let world = World::new().await;
    let pod = world.proven().await;
    assert_eq!(pod.namespace_labels, None, "nobody has asked");
    assert_eq!(world.looks(), 0);
    assert_eq!(world.team(&pod).await, Ok(Some("a".to_owned())));
    assert_eq!(world.looks(), 1);
    *world.api.namespace.lock() = Ok(None);
    assert_eq!(world.team(&pod).await, Ok(None), "it has no such label now");
    world.asks.send_replace(true);
    world.followed().await;
    let before = world.looks();
    assert_eq!(world.team(&pod).await, Ok(None));
    assert_eq!(world.looks(), before, "the watch shows it");
    world.task.abort();
}

/// Covers BT-11.
#[tokio::test(start_paused = true)]
async fn labels_that_cannot_be_read_are_no_verdict() {
    let world = World::new().await;
    let pod = world.proven().await;
    for (code, said) in [
        (404, "is not there"),
        (403, "get, list and watch namespaces"),
        (500, "status 500"),
    ] {
        *world.api.namespace.lock() = Err(code);
        let shown = message(world.team(&pod).await);
        assert!(
            shown.contains("cluster `prod`") && shown.contains(said),
            "{code}: {shown}"
        );
    }
    *world.api.namespace.lock() = Ok(Some("a"));
    world.api.silent_namespaces.store(true, Ordering::SeqCst);
    let asked = Instant::now();
    assert!(message(world.team(&pod).await).contains("in time"));
    assert!(
        asked.elapsed() <= Duration::from_secs(5),
        "an agent waits for the answer"
    );
    world.task.abort();
}

/// What the watch showed when the outage began counts for as long as what it showed of pods.
#[tokio::test(start_paused = true)]
async fn in_an_outage_the_labels_are_those_from_before() {
    for is_followed in [true, false] {
        let world = World::new().await;
        world.asks.send_replace(is_followed);
        let pod = world.proven().await;
        if is_followed {
            world.followed().await;
        }
        world.go_away().await;
        sleep(12 * HOUR).await;
        let team = world.team(&pod).await;
        if is_followed {
            assert_eq!(team, Ok(Some("a".to_owned())));
            sleep(12 * HOUR).await;
        }
        assert!(is_unavailable(&world.team(&pod).await));
        world.task.abort();
    }
}

/// All pods of one namespace and node cost one read, and whoever floods is kept to his part as with any other call.
#[tokio::test(start_paused = true)]
async fn those_who_ask_at_once_share_a_read_and_it_takes_a_turn() {
    let world = World::with_calls((1, 1)).await;
    sleep(Duration::from_secs(10)).await;
    let pod = world.proven().await;
    sleep(Duration::from_secs(10)).await;
    *world.api.late.lock() = Duration::from_millis(100);
    let all = futures_util::future::join_all((0..100).map(|_| world.team(&pod))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(world.looks(), 1);
    // The only call of this second is used up by that one.
    let asked = Instant::now();
    assert!(world.team(&pod).await.is_ok());
    assert!(
        asked.elapsed() >= Duration::from_millis(500),
        "{:?}",
        asked.elapsed()
    );
    world.task.abort();
}
