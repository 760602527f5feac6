//! What a token costs the API server, and whom.

use super::*;
use crate::store::Store;
use crate::store::suite::fixture::{issuance, issue};

impl World {
    /// The agent of a node asks without end, each time with another token, all of them of a pod that is not the one reviewed.
    async fn flood(&self, node: &str, audience: &str) {
        let asks = async |caller: usize| {
            for turn in 0_u64.. {
                let mut claims = self.claims("gone", node, audience, HOUR);
                claims["jti"] = json!(format!("{caller} {turn}"));
                let token = self.api.key.sign(&claims.to_string());
                let refused = match audience {
                    "node" => self.node(&token).await.err(),
                    _ => self.cluster.attest_pod(&agent_of(node), &token).await.err(),
                };
                assert!(refused.is_some(), "{node} got a proof");
                sleep(Duration::from_millis(10)).await;
            }
        };
        futures_util::future::join_all((0..20).map(asks)).await;
    }
}

/// Nodes that ask without end, for pods and for themselves, take turns; whoever asks for something now and then is next.
#[tokio::test(start_paused = true)]
async fn a_node_is_served_while_others_flood_and_the_api_server_gets_no_more_calls_than_configured() {
    let world = World::with_calls((20, 20)).await;
    let (began, before) = (Instant::now(), world.calls());
    let floods = ["pod", "node"].map(|audience| {
        let nodes = ["bad-0", "bad-1", "bad-2", "bad-3", "bad-4"];
        let floods = nodes.map(|node| world.flood(node, audience));
        futures_util::future::join_all(floods)
    });
    let honest = async {
        sleep(Duration::from_secs(5)).await;
        for life in 1..=20 {
            // A token that has not been reviewed costs a call, and the node's UID one every few minutes.
            let token = world.token(POD, "pod", life * HOUR);
            let asked = Instant::now();
            assert!(world.pod(&token).await.is_ok());
            // Five turns of the others, in each of which up to one in four goes to a node's own attestation.
            let waited = asked.elapsed();
            assert!(waited <= Duration::from_secs(1), "pods: {waited:?}");
            let token = world.token(AGENT, "node", life * HOUR);
            let asked = Instant::now();
            assert!(world.node(&token).await.is_ok());
            let waited = asked.elapsed();
            assert!(waited <= Duration::from_millis(2500), "node: {waited:?}");
        }
    };
    tokio::select! {
        _ = futures_util::future::join_all(floods) => {}
        () = honest => {}
    }
    let calls = world.calls() - before;
    let may = 20 + 20 * began.elapsed().as_secs() + 20;
    assert!(
        calls <= may && calls + 60 >= may,
        "{calls} of {may}: no more, and none unused"
    );
    world.task.abort();
}

/// Whoever names a node in a token that nobody signed takes nothing of that node's.
#[tokio::test(start_paused = true)]
async fn a_node_pays_for_no_token_that_the_cluster_has_not_signed() {
    let world = World::with_calls((1, 2)).await;
    let (stranger, before) = (Key::new("a"), world.calls());
    for audience in ["pod", "node"] {
        for turn in 0..100 {
            let mut claims = world.claims(POD, "node-a", audience, HOUR);
            claims["jti"] = json!(format!("{turn}"));
            let token = stranger.sign(&claims.to_string());
            let answer = match audience {
                "node" => world.node(&token).await.err(),
                _ => world.pod(&token).await.err(),
            };
            assert!(
                matches!(answer, Some(AttestError::Refused(RefusedReason::Token(_)))),
                "{answer:?}"
            );
        }
    }
    assert_eq!(world.calls(), before);
    let asked = Instant::now();
    assert!(world.pod(&world.token(POD, "pod", HOUR)).await.is_ok());
    assert_eq!(
        asked.elapsed(),
        Duration::ZERO,
        "the node has all that it is granted"
    );
    world.task.abort();
}

/// An agent asks for all pods of its node at once.
#[tokio::test(start_paused = true)]
async fn what_those_who_ask_at_once_have_in_common_is_asked_once() {
    let world = World::new().await;
    let token = world.token(POD, "pod", HOUR);
    let before = world.calls();
    let all = futures_util::future::join_all((0..50).map(|_| world.pod(&token))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(world.calls(), before + 2, "the review of the token, and its node");
    world.task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_costs_one_call_in_ten_seconds() {
    let world = World::new().await;
    let refused = world.token(POD, "pod", HOUR);
    // What the API server says is of another pod.
    world.token(AGENT, "pod", HOUR);
    let before = world.calls();
    for _ in 0..10 {
        assert!(is_refused(&world.pod(&refused).await));
        sleep(Duration::from_millis(999)).await;
    }
    assert_eq!(world.calls(), before + 1);
    sleep(Duration::from_millis(10)).await;
    assert!(is_refused(&world.pod(&refused).await));
    assert_eq!(world.calls(), before + 2);
    let node = world.token(AGENT, "node", HOUR);
    *world.api.node.lock() = None;
    let before = world.calls();
    for _ in 0..10 {
        assert!(is_refused(&world.node(&node).await));
    }
    assert_eq!(world.calls(), before + 2, "its review, and the node that is gone");
    world.task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_forgotten_when_keys_pod_or_account_change() {
    let world = World::new().await;
    let refused = world.token(POD, "pod", HOUR);
    let say = async |event: Value| {
        for watch in world.api.watches.lock().iter() {
            watch.send(format!("{event}\n")).unwrap();
        }
        sleep(Duration::from_millis(10)).await;
    };
    let event = |kind: &str, name: &str, label: &str| {
        let mut object = json!({
            "metadata": named("shop", name),
            "spec": {"nodeName": "node-a", "serviceAccountName": "runner"},
            "status": {"phase": "Running"},
        });
        object["metadata"]["labels"] = json!({"label": label});
        object["metadata"]["resourceVersion"] = json!("8");
        json!({"type": kind, "object": object})
    };
    let asked_anew = async |why: &str| {
        world.token(AGENT, "pod", HOUR);
        for calls in [1, 0, 0] {
            let before = world.calls();
            assert!(is_refused(&world.pod(&refused).await));
            assert_eq!(world.calls(), before + calls, "{why}");
        }
    };
    asked_anew("the first time").await;
    say(event("MODIFIED", POD, "changed")).await;
    asked_anew("another label of the pod").await;
    say(event("DELETED", POD, "")).await;
    asked_anew("the pod is gone from the watch").await;
    say(event("ADDED", POD, "")).await;
    asked_anew("it is there").await;
    say(event("DELETED", "runner", "")).await;
    asked_anew("the account is gone").await;
    let keys = [&world.api.key, &Key::new("b")].map(|key| {
        let mut keys: Value = serde_json::from_str(&key.jwks()).unwrap();
        keys["keys"][0].take()
    });
    *world.api.other_keys.lock() = Some(json!({ "keys": keys }).to_string());
    let unknown = Key::new("c").sign(&world.api.reviewed.lock().to_string());
    assert!(
        is_refused(&world.pod(&unknown).await),
        "and the keys were read anew"
    );
    asked_anew("other keys").await;
    world.cluster.forget_reviews();
    asked_anew("time went back").await;
    world.task.abort();
}

/// What is remembered of a token is nobody's but the token's own.
#[tokio::test(start_paused = true)]
async fn neither_trouble_nor_what_another_agent_hears_is_remembered() {
    let world = World::new().await;
    let token = world.token(POD, "pod", HOUR);
    for _ in 0..2 {
        let elsewhere = world.cluster.attest_pod(&agent_of("node-b"), &token).await;
        let is_other_node = matches!(
            elsewhere,
            Err(AttestError::Refused(RefusedReason::OtherNode { .. }))
        );
        assert!(is_other_node, "{elsewhere:?}");
        assert!(world.pod(&token).await.is_ok());
    }
    let other = world.token(POD, "pod", 2 * HOUR);
    world.api.away.store(true, Ordering::SeqCst);
    assert!(is_unavailable(&world.pod(&other).await));
    world.api.away.store(false, Ordering::SeqCst);
    assert!(world.pod(&other).await.is_ok());
    world.task.abort();
}

impl World {
    /// A token of this id, for the same pod or another one.
    fn token_with_id(&self, pod: &str, jti: &str) -> String {
        let mut claims = self.claims(pod, "node-a", "pod", HOUR);
        claims["jti"] = json!(jti);
        self.api.key.sign(&claims.to_string())
    }

    /// A certificate that rests on it stands in the ledger.
    async fn rests_on(&self, pod: &str, jti: &str) {
        let now = self.clock.now();
        let mut row = issuance("/web", &format!("uid-of-{pod}"), now);
        row.workload.cluster_uid = UID.into();
        row.token_jti = Some(jti.into());
        let store: Arc<dyn Store> = self.store.clone();
        issue(&store, row, now).await.unwrap();
    }
}

/// What the ledger says of a token stands in for one review, and only where the watches show what that would look at.
#[tokio::test(start_paused = true)]
async fn after_a_restart_a_token_that_a_certificate_rests_on_is_not_reviewed_while_pod_and_account_are_there()
{
    let world = World::new().await;
    let known = world.token_with_id(POD, "known");
    let (other, gone) = (
        world.token_with_id(POD, "other"),
        world.token_with_id("gone", "of-gone"),
    );
    world.token(POD, "pod", HOUR);
    world.rests_on(POD, "known").await;
    world.rests_on("gone", "of-gone").await;
    let world = world.restart().await;
    world.cluster.watch.first_sync().await;
    let asked = async |world: &World, token: &str| {
        let before = world.calls();
        let answer = world.pod(token).await;
        (answer.is_ok(), world.calls() - before)
    };
    // The node is read once.
    assert_eq!(asked(&world, &known).await, (true, 1));
    assert_eq!(asked(&world, &known).await, (true, 0));
    assert_eq!(
        asked(&world, &other).await,
        (true, 1),
        "another token is another question"
    );
    assert_eq!(
        asked(&world, &gone).await,
        (false, 1),
        "the watch shows no such pod"
    );
    world.cluster.reviewer.forget_all();
    assert_eq!(asked(&world, &known).await, (true, 1), "once");
    let world = world.restart().await;
    world.cluster.watch.first_sync().await;
    let mut object = json!({"metadata": named("shop", "runner")});
    object["metadata"]["resourceVersion"] = json!("8");
    let event = json!({"type": "DELETED", "object": object});
    for watch in world.api.watches.lock().iter() {
        // Those of the process before have ended.
        let _ = watch.send(format!("{event}\n"));
    }
    sleep(Duration::from_millis(10)).await;
    assert_eq!(
        asked(&world, &known).await.1,
        2,
        "the account is gone: a review, and the node"
    );
    let world = world.restart().await;
    world.cluster.watch.first_sync().await;
    world.cluster.forget_reviews();
    assert_eq!(asked(&world, &known).await.1, 2, "time went back");
    world.task.abort();
}

/// What this process has not asked about itself goes on in no outage.
#[tokio::test(start_paused = true)]
async fn in_an_outage_the_ledger_vouches_for_nothing() {
    let world = World::new().await;
    let known = world.token_with_id(POD, "known");
    let asked = world.token(POD, "pod", HOUR);
    world.rests_on(POD, "known").await;
    let world = world.restart().await;
    world.cluster.watch.first_sync().await;
    assert!(world.pod(&asked).await.is_ok());
    world.go_away().await;
    assert!(world.pod(&asked).await.unwrap().outage);
    assert!(is_unavailable(&world.pod(&known).await));
    world.task.abort();
}

/// Nodes, too, are as they were when the machine fell asleep.
#[tokio::test(start_paused = true)]
async fn a_node_is_read_anew_after_the_machine_was_suspended() {
    let world = World::new().await;
    let token = world.token(POD, "pod", 47 * HOUR);
    assert!(world.pod(&token).await.is_ok());
    let before = world.calls();
    assert!(world.pod(&token).await.is_ok());
    assert_eq!(world.calls(), before);
    world.machine.suspend(NODE_COUNTS_FOR);
    world.pass(Duration::from_secs(40)).await;
    assert!(world.cluster.watch.is_synced());
    assert!(world.pod(&token).await.is_ok());
    assert_eq!(world.calls(), before + 1);
    world.task.abort();
}

/// Agents wait 30 s for an answer, however many calls of five seconds one takes.
#[tokio::test(start_paused = true)]
async fn one_attestation_has_one_deadline() {
    let world = World::new().await;
    let token = world.token(AGENT, "node", HOUR);
    world.task.abort();
    for (late, proven) in [(4600, true), (4900, false)] {
        *world.api.late.lock() = Duration::from_millis(late);
        let store = MemoryStore::new(trust_domain());
        // Of this one nothing is known: not which it is, nor its keys, pods and nodes.
        let cluster = cluster(&world.client, &world.clock, &store, None, (100, 100)).await;
        let stranger = Bearer::Stranger(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        let began = Instant::now();
        let outcome = cluster.attest_node(stranger, &token).await;
        assert_eq!(outcome.is_ok(), proven, "{outcome:?}");
        assert!(proven || is_unavailable(&outcome), "no verdict: {outcome:?}");
        let took = began.elapsed();
        let five = Duration::from_millis(5 * late);
        assert!(
            took <= LONGEST_ATTESTATION && took + Duration::from_millis(10) >= five.min(LONGEST_ATTESTATION),
            "{took:?}"
        );
    }
}

/// Those who wait for their turns with the same token hear what was said of it meanwhile.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_while_others_wait_with_it_costs_them_no_call() {
    let world = World::with_calls((1, 3)).await;
    let token = world.token(AGENT, "node", HOUR);
    *world.api.node.lock() = None;
    sleep(Duration::from_secs(10)).await;
    let before = world.calls();
    let all = futures_util::future::join_all((0..5).map(|_| world.node(&token))).await;
    assert!(all.iter().all(is_refused), "{all:?}");
    // Of those that were let go at once each may ask for the node.
    let calls = world.calls() - before;
    assert!(
        (2..=3).contains(&calls),
        "{calls}: the review, and the node by the first two"
    );
    world.task.abort();
}
