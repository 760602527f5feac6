use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use signet_certs::id::SpiffeId;
use signet_runtime::pace::LONGEST_NAP;
use signet_runtime::sync::Mutex as SyncMutex;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{advance, sleep, timeout};

use super::*;
use crate::attest::testing::{Key, remembered};
use crate::fixtures::trust_domain;
use crate::kubernetes::testing::{Answer, Script};

fn discovery() -> Answer {
    Answer::ok(r#"{"issuer":"https://kubernetes.default.svc","jwks_uri":"ignored"}"#)
}

async fn verify(keys: &SigningKeys, token: &str) -> Result<(), AttestError> {
    verify_for(keys, token, stranger(1)).await
}

async fn verify_for(keys: &SigningKeys, token: &str, bearer: Bearer<'_>) -> Result<(), AttestError> {
    keys.verify(&CompactJws::parse(token).unwrap(), bearer).await
}

fn stranger(number: u8) -> Bearer<'static> {
    Bearer::Stranger(IpAddr::from(Ipv4Addr::new(10, 0, 0, number)).into())
}

fn agent(node: &str) -> SpiffeId {
    SpiffeId::agent(&trust_domain(), "prod", node).unwrap()
}

fn is_unavailable(answer: &Result<(), AttestError>) -> bool {
    matches!(answer, Err(AttestError::Unavailable { .. }))
}

/// Keys that a cluster has, to be changed.
type Jwks = Arc<SyncMutex<String>>;

async fn keys_of(jwks: &Jwks) -> (SigningKeys, Script) {
    let jwks = Arc::clone(jwks);
    let script = Script::new(move |line| {
        if line.contains("jwks") {
            Answer::ok(jwks.lock().clone())
        } else {
            discovery()
        }
    });
    let keys = SigningKeys::new(Arc::clone(&script.api), Vec::new(), remembered().await);
    (keys, script)
}

fn unknown_key() -> Result<(), AttestError> {
    Err(refused(JwsError::UnknownKey))
}

/// Covers BT-07.
#[tokio::test(start_paused = true)]
async fn unknown_key_ids_are_looked_up_a_few_times_and_then_every_ten_seconds() {
    let (ours, theirs) = (Key::new("a"), Key::new("b"));
    let (keys, script) = keys_of(&Jwks::new(SyncMutex::new(ours.jwks()))).await;
    assert_eq!(verify(&keys, &ours.sign("{}")).await, Ok(()));
    for _ in 0..4 {
        assert_eq!(verify(&keys, &theirs.sign("{}")).await, unknown_key());
    }
    // Without a look there is no verdict.
    for _ in 0..100 {
        let answer = verify(&keys, &theirs.sign("{}")).await;
        let Err(AttestError::Unavailable { retry_after, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(retry_after, Duration::from_secs(10));
    }
    assert_eq!(script.asked("jwks").len(), 5);
    advance(Duration::from_secs(10)).await;
    assert_eq!(verify(&keys, &theirs.sign("{}")).await, unknown_key());
    assert!(is_unavailable(&verify(&keys, &theirs.sign("{}")).await));
    assert_eq!(verify(&keys, &ours.sign("{}")).await, Ok(()));
    assert_eq!(script.asked("jwks").len(), 6);
}

/// Whatever strangers make up costs a cluster that changes its keys nothing: no refusal, and an agent no moment.
#[tokio::test(start_paused = true)]
async fn a_change_of_keys_is_found_at_once_whatever_strangers_make_up() {
    let (old, new, made_up) = (Key::new("a"), Key::new("b"), Key::new("c"));
    let jwks = Jwks::new(SyncMutex::new(old.jwks()));
    let (keys, script) = keys_of(&jwks).await;
    assert_eq!(verify(&keys, &old.sign("{}")).await, Ok(()));
    for number in 0..100 {
        drop(verify_for(&keys, &made_up.sign("{}"), stranger(number)).await);
    }
    *jwks.lock() = new.jwks();
    let (token, before) = (new.sign("{}"), script.asked("jwks").len());
    for number in [0, 1, 200] {
        let answer = verify_for(&keys, &token, stranger(number)).await;
        assert!(is_unavailable(&answer), "a verdict without a look: {answer:?}");
    }
    assert_eq!(script.asked("jwks").len(), before);
    let began = Instant::now();
    let one = agent("node-a");
    assert_eq!(verify_for(&keys, &token, Bearer::Agent(&one)).await, Ok(()));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(verify_for(&keys, &token, stranger(1)).await, Ok(()));
    assert_eq!(script.asked("jwks").len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_makes_up_keys_takes_no_look_of_another() {
    let (old, new, made_up) = (Key::new("a"), Key::new("b"), Key::new("c"));
    let jwks = Jwks::new(SyncMutex::new(old.jwks()));
    let (keys, _script) = keys_of(&jwks).await;
    let (bad, good) = (agent("bad"), agent("good"));
    for _ in 0..100 {
        drop(verify_for(&keys, &made_up.sign("{}"), Bearer::Agent(&bad)).await);
    }
    *jwks.lock() = new.jwks();
    let token = new.sign("{}");
    assert!(is_unavailable(
        &verify_for(&keys, &token, Bearer::Agent(&bad)).await
    ));
    assert_eq!(verify_for(&keys, &token, Bearer::Agent(&good)).await, Ok(()));
}

/// One reading that was begun after the tokens came is a verdict on all of them.
#[tokio::test(start_paused = true)]
async fn those_who_wait_for_the_keys_share_a_reading() {
    let (ours, theirs) = (Key::new("a"), Key::new("b"));
    let (keys, script) = keys_of(&Jwks::new(SyncMutex::new(ours.jwks()))).await;
    assert_eq!(verify(&keys, &ours.sign("{}")).await, Ok(()));
    let token = theirs.sign("{}");
    let answers = join_all((0..20).map(|_| verify(&keys, &token))).await;
    assert_eq!(answers, vec![unknown_key(); 20]);
    let reads = script.asked("jwks").len();
    assert_eq!(
        reads, 3,
        "one that was under way when the others came, and one for all of these"
    );
    let by_known = keys.verify_by_known(&CompactJws::parse(&token).unwrap());
    assert!(is_unavailable(&by_known));
    assert_eq!(script.asked("jwks").len(), reads, "nobody is asked");
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

/// Whoever hangs up, or runs out of time, takes nothing from those who wait for the same keys.
#[tokio::test(start_paused = true)]
async fn a_read_goes_on_when_whoever_began_it_has_gone() {
    let key = Key::new("a");
    let (sender, body) = unbounded_channel();
    let body = SyncMutex::new(Some(body));
    let script = Script::new(move |line| {
        if line.contains("jwks") {
            Answer::Stream(body.lock().take().unwrap())
        } else {
            discovery()
        }
    });
    let keys = SigningKeys::new(Arc::clone(&script.api), Vec::new(), remembered().await);
    let token = key.sign("{}");
    let gone = timeout(Duration::from_secs(1), verify(&keys, &token)).await;
    assert!(gone.is_err(), "{gone:?}");
    let answers = async {
        sleep(Duration::from_secs(1)).await;
        sender.send(key.jwks()).unwrap();
        drop(sender);
    };
    let (verdict, ()) = tokio::join!(verify(&keys, &token), answers);
    assert_eq!(verdict, Ok(()));
    assert_eq!(script.asked("jwks").len(), 1);
}

/// The store may take its time, and be away.
#[tokio::test(start_paused = true)]
async fn whoever_brings_a_token_waits_for_no_store() {
    let key = Key::new("a");
    let (_, script) = keys_of(&Jwks::new(SyncMutex::new(key.jwks()))).await;
    let remembered = remembered().await;
    let keys = SigningKeys::new(Arc::clone(&script.api), Vec::new(), Arc::clone(&remembered));
    assert_eq!(verify(&keys, &key.sign("{}")).await, Ok(()));
    assert_eq!(remembered.row().signing_keys, None);
    assert_eq!(keys.revision(), 1);
    let kept = timeout(Duration::from_secs(1), keys.run()).await;
    assert!(kept.is_err(), "it ends never");
    let kept = remembered.row().signing_keys.unwrap();
    assert_eq!(kept.document, key.jwks());
    assert_eq!(keys.revision(), 1, "the same keys");
}

#[tokio::test(start_paused = true)]
async fn keys_grow_old_while_the_machine_is_suspended() {
    let (keys, script) = keys_of(&Jwks::new(SyncMutex::new(Key::new("a").jwks()))).await;
    let reads = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(script.asked("jwks").len(), 1);
        script.machine.suspend(REFRESH_EVERY);
        sleep(LONGEST_NAP).await;
        assert_eq!(script.asked("jwks").len(), 2);
    };
    tokio::select! {
        () = keys.run() => {}
        () = reads => {}
    }
}
