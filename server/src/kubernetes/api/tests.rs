use futures_util::future::join_all;
use serde_json::Value;
use signet_testkit::kube::recording;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::*;
use crate::kubernetes::testing::{Answer, Script};

const PURPOSE: Purpose = Purpose {
    doing: "reviewing a token",
    permission: "create tokenreviews",
};

async fn get(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Result<Value, CallError> {
    Script::new(move |_| answer()).api.get("/x", 100).await
}

/// A recorded answer of a real API server: its status code and body.
fn recorded(name: &'static str) -> impl Fn() -> Answer {
    let recorded = recording(name);
    let (code, body) = (
        recorded["status"].as_u64().unwrap(),
        recorded["response"].to_string(),
    );
    move || Answer::Json(u16::try_from(code).unwrap(), body.clone())
}

fn message(error: Unavailable) -> String {
    assert!(error.retry_after >= Duration::from_millis(10));
    error.message
}

/// Our own credentials, RBAC, load and faults of the API server are no verdicts.
///
/// Covers BT-11.
#[tokio::test]
async fn recorded_failures_say_what_to_repair() {
    let cases = [
        ("tokenreview-unauthorized", "own credentials"),
        ("tokenreview-forbidden", "create tokenreviews"),
        ("tokenreview-empty", "status 400"),
    ];
    for (name, expected) in cases {
        let script = Script::new(|_| Answer::Silence);
        let error = get(recorded(name)).await.unwrap_err();
        let shown = message(script.api.unavailable(PURPOSE, &error));
        assert!(
            shown.contains("cluster `prod`") && shown.contains(expected),
            "{shown}"
        );
        // The API server's own words are for the log only.
        assert!(!shown.contains("system:serviceaccount"), "{shown}");
    }
}

/// Covers BT-11.
#[tokio::test(start_paused = true)]
async fn a_silent_api_server_is_given_up_in_time() {
    let began = Instant::now();
    let error = get(|| Answer::Silence).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout));
    assert_eq!(began.elapsed(), CALL_TIMEOUT);
}

/// Covers BT-11.
#[tokio::test(start_paused = true)]
async fn an_answer_that_never_ends_is_given_up_in_time() {
    let (sender, receiver) = mpsc_unbounded();
    let receiver = Mutex::new(Some(receiver));
    let answer = move || Answer::Stream(receiver.lock().take().unwrap());
    sender.send("{".into()).unwrap();
    assert!(matches!(get(answer).await.unwrap_err(), CallError::Timeout));
    drop(sender);
}

fn mpsc_unbounded() -> (
    tokio::sync::mpsc::UnboundedSender<String>,
    tokio::sync::mpsc::UnboundedReceiver<String>,
) {
    tokio::sync::mpsc::unbounded_channel()
}

/// Covers BT-11.
#[tokio::test]
async fn junk_is_told_by_its_place_only() {
    let error = get(|| Answer::ok("{\"secret\": eyJhbGciOi")).await.unwrap_err();
    let CallError::Junk(text) = &error else {
        panic!("{error:?}")
    };
    assert!(text.contains("1:12") && !text.contains("eyJ"), "{text}");
    let error = get(|| Answer::ok("x".repeat(101))).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Junk(text) if text.contains("100 bytes")),
        "{error:?}"
    );
}

#[tokio::test]
async fn only_kubernetes_itself_can_say_not_found() {
    let said = r#"{"kind":"Status","reason":"NotFound","code":404}"#;
    assert!(matches!(
        get(move || Answer::Json(404, said.into())).await,
        Err(CallError::NotFound)
    ));
    for body in [
        "404 page not found",
        "{}",
        r#"{"kind":"Status","reason":"Unknown"}"#,
    ] {
        let answer = get(move || Answer::Json(404, body.into())).await;
        assert!(
            matches!(answer, Err(CallError::Status { code: 404, .. })),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_broken_connection_is_no_verdict() {
    let script = Script::new(|_| Answer::Broken);
    let error = script.api.get::<Value>("/x", 100).await.unwrap_err();
    assert!(message(script.api.unavailable(PURPOSE, &error)).contains("cannot be reached"));
}

#[test]
fn names_of_kubernetes_are_path_segments_and_nothing_else_is() {
    assert!(is_path_segment("web-0.a"));
    for odd in ["", ".", "..", ".a", "a/b", "A", "a b", "a?x", "a%2f", "é"] {
        assert!(!is_path_segment(odd), "{odd}");
    }
}

/// Whoever has no turn is counted and told elsewhere; were it logged here it would stand in the way of failures.
#[tokio::test(start_paused = true)]
async fn a_caller_without_a_turn_hides_no_failure() {
    let script = Script::new(|_| Answer::Silence);
    let over = CallError::OverBudget(Duration::from_secs(3));
    assert!(message(script.api.unavailable(PURPOSE, &over)).contains("come back later"));
    assert_eq!(*script.api.logged_at.lock(), None);
    script.api.unavailable(PURPOSE, &CallError::Timeout);
    let logged = *script.api.logged_at.lock();
    assert!(logged.is_some());
    advance(Duration::from_secs(10)).await;
    script.api.unavailable(PURPOSE, &over);
    assert_eq!(*script.api.logged_at.lock(), logged);
}

#[tokio::test(start_paused = true)]
async fn callers_have_no_more_calls_under_way_than_there_is_room_for_and_take_none_of_the_servers_own() {
    let script = Script::with_budget(Budget::new(1000, 1000, 2), |_| Answer::ok("1"));
    let admit = |node| script.api.admit(Payer::PodsOf(node));
    let (first, _second) = (admit("a").await.unwrap(), admit("b").await.unwrap());
    let refused = admit("c").await.err();
    assert!(
        matches!(refused, Some(CallError::OverBudget(CALL_TIMEOUT))),
        "{refused:?}"
    );
    assert_eq!(script.api.get::<u8>("/version", 100).await.unwrap(), 1);
    let freed = async {
        sleep(Duration::from_secs(1)).await;
        drop(first);
    };
    let (third, ()) = tokio::join!(admit("c"), freed);
    assert!(third.is_ok(), "it waited for the first one's end");
}

/// However slow the API server is: room is given by turns, not to whoever came first.
#[tokio::test(start_paused = true)]
async fn where_room_is_short_another_node_is_next_however_many_calls_of_one_wait() {
    let script = Script::with_budget(Budget::new(1000, 1000, 2), |_| Answer::Silence);
    let call = |node: &'static str| {
        let api = Arc::clone(&script.api);
        tokio::spawn(async move {
            let under_way = api.admit(Payer::PodsOf(node)).await?;
            sleep(Duration::from_secs(1)).await;
            drop(under_way);
            Ok::<(), CallError>(())
        })
    };
    let flood: Vec<_> = (0..2 + 256).map(|_| call("bad")).collect();
    sleep(Duration::from_millis(500)).await;
    assert!(!flood.iter().any(JoinHandle::is_finished));
    let began = Instant::now();
    let good = call("good").await.unwrap();
    assert!(good.is_ok(), "{good:?}");
    let took = began.elapsed();
    assert!(
        took < Duration::from_millis(1600),
        "half a second until the first answer, and one for its own: {took:?}"
    );
}

/// Who finds no room in time has used up nothing of the rate.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_made_takes_no_turn() {
    let script = Script::with_budget(Budget::new(1, 100, 1), |_| Answer::Silence);
    let admit = || script.api.admit(Payer::PodsOf("a"));
    let under_way = admit().await.unwrap();
    let refused = join_all((0..99).map(|_| admit())).await;
    assert!(refused.iter().all(Result::is_err));
    drop(under_way);
    let began = Instant::now();
    for _ in 0..99 {
        drop(admit().await.unwrap());
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}
