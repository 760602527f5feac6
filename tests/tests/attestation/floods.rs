//! Nodes that ask for more than their part.

use super::*;

/// Asks without end about tokens of a pod that is gone, each for the first time: every one is a call to the API server.
async fn flood(world: &World, node: usize) {
    let name = format!("bad-{node}");
    let bad = agent(&name, &world.kube.add_node(&name));
    let pod = PodSpec::new("shop", &name)
        .service_account("frontend")
        .node(&name);
    world.kube.add_pod(&pod).unwrap();
    let claims = world.kube.claims("shop", &name, POD_AUDIENCE, HOUR).unwrap();
    world.kube.delete_pod("shop", &name).unwrap();
    let asks = async |caller: usize| {
        for turn in 0_u64.. {
            let mut claims = claims.clone();
            claims["jti"] = json!(format!("{caller} {turn}"));
            let token = world.kube.sign(&BTreeMap::new(), &claims).unwrap();
            assert!(world.attestor.attest_pod(&bad, &token).await.is_err());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    futures_util::future::join_all((0..16).map(asks)).await;
}

/// Nobody is told to come back because others ask too much.
#[tokio::test]
async fn five_nodes_that_flood_the_api_server_keep_no_other_nodes_pods_waiting() {
    let world = World::with_calls(40, 40).await;
    let flood = futures_util::future::join_all((0..5).map(|node| flood(&world, node)));
    let honest = async {
        // Until everything that may come at once has been used up.
        eventually("the flood to be under way", async || {
            (world.reviews() > 60).then_some(())
        })
        .await;
        for number in 0..20 {
            let name = format!("new-{number}");
            let pod = PodSpec::new("shop", &name).service_account("frontend");
            world.kube.add_pod(&pod).unwrap();
            let began = tokio::time::Instant::now();
            let proven = world.pod(&world.token(&name)).await.unwrap();
            assert_eq!(proven.pod_name, name);
            // Six nodes take turns, 40 times a second, and a pod takes up to three calls.
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
        let token = world
            .kube
            .token("signet-system", "agent-a", NODE_AUDIENCE, HOUR)
            .unwrap();
        let began = tokio::time::Instant::now();
        world.node(&token).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    };
    tokio::select! {
        _ = flood => {}
        () = honest => {}
    }
}
