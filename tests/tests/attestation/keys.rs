//! The keys that sign a cluster's tokens, and tokens that name others.

use super::*;

#[tokio::test]
async fn unknown_key_ids_read_the_keys_again_but_not_each_time() {
    let world = World::new().await;
    let before = world.kube.calls(Endpoint::Jwks);
    let header = BTreeMap::from([("kid".to_owned(), json!("made-up"))]);
    let claims = world.kube.claims("shop", "web-0", POD_AUDIENCE, HOUR).unwrap();
    let token = world.kube.sign(&header, &claims).unwrap();
    for _ in 0..4 {
        assert_eq!(
            world.refused(&token).await,
            RefusedReason::Token(JwsError::UnknownKey)
        );
    }
    assert_eq!(world.kube.calls(Endpoint::Jwks), before + 4);
    // Not a verdict: nobody has looked.
    for _ in 0..5 {
        let message = world.unavailable(&token).await;
        assert!(message.contains("signing key"), "{message}");
    }
    assert_eq!(world.kube.calls(Endpoint::Jwks), before + 4);
}

#[tokio::test]
async fn a_rotated_signing_key_is_found() {
    let world = World::new().await;
    let old = world.token("web-0");
    world.pod(&old).await.unwrap();
    let (looks, reviews) = (world.kube.calls(Endpoint::Jwks), world.reviews());
    world.kube.rotate_signing_key(true).unwrap();
    for _ in 0..2 {
        let pod = world.pod(&world.token("web-0")).await.unwrap();
        assert_eq!(pod.pod_name, "web-0");
    }
    assert_eq!(
        world.kube.calls(Endpoint::Jwks),
        looks + 1,
        "read once more for the new key"
    );
    assert_eq!(world.reviews(), reviews + 2, "each new token was judged");
    assert!(world.pod(&old).await.is_ok(), "tokens of the old key stay good");
}
