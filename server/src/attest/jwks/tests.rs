use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::time::advance;

use super::*;
use crate::attest::testing::{Answer, Key, Script, remembered};

fn discovery() -> Answer {
    Answer::ok(r#"{"issuer":"https://kubernetes.default.svc","jwks_uri":"ignored"}"#)
}

async fn verify(keys: &SigningKeys, token: &str) -> Result<(), AttestError> {
    keys.verify(&CompactJws::parse(token).unwrap()).await
}

fn unknown_key() -> Result<(), AttestError> {
    Err(refused(JwsError::UnknownKey))
}

/// Covers BT-07.
#[tokio::test(start_paused = true)]
async fn an_unknown_key_id_is_looked_up_at_most_every_ten_seconds() {
    let (ours, theirs) = (Key::new("a"), Key::new("b"));
    let jwks = ours.jwks();
    let script = Script::new(move |line| {
        if line.contains("jwks") {
            Answer::ok(jwks.clone())
        } else {
            discovery()
        }
    });
    let keys = SigningKeys::new(Arc::clone(&script.api), Vec::new(), remembered().await);
    assert_eq!(verify(&keys, &ours.sign("{}")).await, Ok(()));
    for _ in 0..100 {
        assert_eq!(verify(&keys, &theirs.sign("{}")).await, unknown_key());
    }
    assert_eq!(script.asked("jwks").len(), 2);
    advance(UNKNOWN_KEY_EVERY).await;
    assert_eq!(verify(&keys, &theirs.sign("{}")).await, unknown_key());
    assert_eq!(verify(&keys, &ours.sign("{}")).await, Ok(()));
    assert_eq!(script.asked("jwks").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_when_its_first_token_comes() {
    let (old, new) = (Key::new("a"), Key::new("b"));
    let (first, second) = (old.jwks(), new.jwks());
    let reads = AtomicUsize::new(0);
    let script = Script::new(
        move |line| match (line.contains("jwks"), reads.load(Ordering::SeqCst)) {
            (false, _) => discovery(),
            (true, 0) => {
                reads.fetch_add(1, Ordering::SeqCst);
                Answer::ok(first.clone())
            }
            (true, _) => Answer::ok(second.clone()),
        },
    );
    let keys = SigningKeys::new(
        Arc::clone(&script.api),
        vec!["https://old.example.org".into()],
        remembered().await,
    );
    assert_eq!(verify(&keys, &old.sign("{}")).await, Ok(()));
    assert_eq!(verify(&keys, &new.sign("{}")).await, Ok(()));
    let known = keys.known().await.unwrap();
    assert_eq!(
        known.issuers,
        ["https://kubernetes.default.svc", "https://old.example.org"]
    );
}

/// Covers BT-11.
#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_read_are_no_verdict() {
    let key = Key::new("a");
    let (jwks, away) = (key.jwks(), Arc::new(AtomicBool::new(true)));
    let is_away = Arc::clone(&away);
    let script = Script::new(
        move |line| match (is_away.load(Ordering::SeqCst), line.contains("jwks")) {
            (true, true) => Answer::ok("<html>"),
            (false, true) => Answer::ok(jwks.clone()),
            (_, false) => discovery(),
        },
    );
    let keys = SigningKeys::new(Arc::clone(&script.api), Vec::new(), remembered().await);
    for _ in 0..100 {
        let error = verify(&keys, &key.sign("{}")).await.unwrap_err();
        assert!(matches!(error, AttestError::Unavailable { .. }), "{error:?}");
    }
    assert_eq!(script.asked("jwks").len(), 1);
    away.store(false, Ordering::SeqCst);
    advance(RETRY_EVERY).await;
    assert_eq!(verify(&keys, &key.sign("{}")).await, Ok(()));
    // With keys at hand, failing to look for another one is no verdict on it either.
    away.store(true, Ordering::SeqCst);
    let other = Key::new("b").sign("{}");
    for _ in 0..3 {
        let error = verify(&keys, &other).await.unwrap_err();
        assert!(matches!(error, AttestError::Unavailable { .. }), "{error:?}");
    }
    assert_eq!(verify(&keys, &key.sign("{}")).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn the_keys_are_read_every_hour() {
    let jwks = Key::new("a").jwks();
    let script = Script::new(move |line| {
        if line.contains("jwks") {
            Answer::ok(jwks.clone())
        } else {
            discovery()
        }
    });
    let keys = Arc::new(SigningKeys::new(
        Arc::clone(&script.api),
        Vec::new(),
        remembered().await,
    ));
    let task = tokio::spawn({
        let keys = Arc::clone(&keys);
        async move { keys.run().await }
    });
    sleep(REFRESH_EVERY * 2 + Duration::from_secs(1)).await;
    task.abort();
    assert_eq!(script.asked("jwks").len(), 3);
}
