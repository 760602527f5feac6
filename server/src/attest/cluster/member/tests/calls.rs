//! What a token costs the API server, and whom.

use super::*;

impl World {
    /// The agent of a node asks without end, each time with another token, all of them of a pod that is not the one reviewed.
    async fn flood(&self, node: &str, audience: &str) {
        let asks = async |caller: usize| {
            for turn in 0_u64.. {
                let mut claims = self.claims("gone", node, audience, HOUR);
                claims["jti"] = json!(format!("{caller} {turn}"));
                let token = self.api.key.sign(&claims.to_string());
                let refused = match audience {
                    "node" => self.cluster.attest_node(&token).await.err(),
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
    let (began, before) = (Instant::now(), world.api.calls.load(Ordering::SeqCst));
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
            assert!(world.cluster.attest_node(&token).await.is_ok());
            let waited = asked.elapsed();
            assert!(waited <= Duration::from_millis(2500), "node: {waited:?}");
        }
    };
    tokio::select! {
        _ = futures_util::future::join_all(floods) => {}
        () = honest => {}
    }
    let calls = world.api.calls.load(Ordering::SeqCst) - before;
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
    let (stranger, before) = (Key::new("a"), world.api.calls.load(Ordering::SeqCst));
    for audience in ["pod", "node"] {
        for turn in 0..100 {
            let mut claims = world.claims(POD, "node-a", audience, HOUR);
            claims["jti"] = json!(turn);
            let token = stranger.sign(&claims.to_string());
            let answer = match audience {
                "node" => world.cluster.attest_node(&token).await.err(),
                _ => world.pod(&token).await.err(),
            };
            assert!(
                matches!(answer, Some(AttestError::Refused(RefusedReason::Token(_)))),
                "{answer:?}"
            );
        }
    }
    assert_eq!(world.api.calls.load(Ordering::SeqCst), before);
    let asked = Instant::now();
    assert!(world.pod(&world.token(POD, "pod", HOUR)).await.is_ok());
    assert_eq!(
        asked.elapsed(),
        Duration::ZERO,
        "the node has all that it is granted"
    );
    world.task.abort();
}
