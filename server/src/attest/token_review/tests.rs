use std::time::Duration;

use futures_util::future::join_all;
use signet_testkit::kube::{recording, reviewed_claims};
use tokio::time::Instant;

use super::*;
use crate::attest::RefusedReason;
use crate::kubernetes::budget::Budget;
use crate::kubernetes::testing::{Answer, Script};

const TOKEN: &str = "header.payload.signature";
const PAYER: Payer<'_> = Payer::PodsOf("uid-of-the-node");

fn claims() -> KubernetesClaims {
    KubernetesClaims::parse(&reviewed_claims("tokenreview-ok")).unwrap()
}

/// The API server repeats the token that it was asked about.
fn recorded(name: &str) -> Answer {
    let mut response = recording(name)["response"].clone();
    response["spec"]["token"] = TOKEN.into();
    Answer::Json(201, response.to_string())
}

fn positive() -> Answer {
    recorded("tokenreview-ok")
}

async fn review(reviewer: &TokenReviewer) -> Outcome {
    reviewer
        .review(TokenKey::new("signet", TOKEN), PAYER, TOKEN, "signet", &claims())
        .await
}

fn is_unavailable(outcome: &Outcome) -> bool {
    matches!(outcome, Err(AttestError::Unavailable { .. }))
}

#[tokio::test]
async fn a_recorded_review_is_read() {
    let script = Script::new(|_| positive());
    let reviewer = TokenReviewer::new(Arc::clone(&script.api));
    let reviewed = review(&reviewer).await.unwrap();
    assert_eq!(reviewed.pod_name, "frontend-0");
    assert_eq!(
        script
            .asked("POST /apis/authentication.k8s.io/v1/tokenreviews")
            .len(),
        1
    );
    assert!(reviewer.running.is_empty());
}

#[tokio::test]
async fn a_refusal_is_asked_again_each_time_and_shows_no_token() {
    let script = Script::new(|_| recorded("tokenreview-tampered"));
    let reviewer = TokenReviewer::new(Arc::clone(&script.api));
    for _ in 0..2 {
        let Err(AttestError::Refused(reason @ RefusedReason::NotAuthenticated { .. })) =
            review(&reviewer).await
        else {
            panic!()
        };
        assert!(!reason.to_string().contains(TOKEN));
    }
    assert_eq!(script.asked("tokenreviews").len(), 2);
}

/// Covers BT-11.
#[tokio::test(start_paused = true)]
async fn whatever_is_no_review_is_no_verdict() {
    type Answers = fn() -> Answer;
    let answers: [Answers; 10] = [
        || Answer::Silence,
        || Answer::Broken,
        || Answer::Busy(3),
        || Answer::Json(401, "{}".into()),
        || Answer::Json(403, "{}".into()),
        || Answer::Json(500, "<html>".into()),
        || Answer::Json(201, String::new()),
        || Answer::Json(201, "[]".into()),
        || Answer::Json(201, r#"{"kind":"TokenReview","spec":{}}"#.into()),
        || Answer::Json(200, r#"{"kind":"Status","status":{"authenticated":true}}"#.into()),
    ];
    for answer in answers {
        let reviewer = TokenReviewer::new(Arc::clone(&Script::new(move |_| answer()).api));
        let outcome = review(&reviewer).await;
        assert!(is_unavailable(&outcome), "{outcome:?}");
        assert!(reviewer.running.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_asking_caller_leaves_a_waiting_one_goes_on() {
    let script = Script::new(|_| positive());
    let reviewer = TokenReviewer::new(Arc::clone(&script.api));
    {
        let mut first = Box::pin(review(&reviewer));
        // Begun, not finished, and dropped.
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(review(&reviewer));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(reviewer.running.len(), 1);
        drop(first);
        assert!(second.await.is_ok());
    }
    assert!(reviewer.running.is_empty());
    let only = Box::pin(review(&reviewer));
    drop(only);
    assert!(reviewer.running.is_empty());
}

#[tokio::test(start_paused = true)]
async fn over_the_budget_callers_wait_and_are_told_when_to_come_back() {
    let script = Script::with_budget(Budget::new(2, 1, 1000), |_| positive());
    let reviewer = TokenReviewer::new(Arc::clone(&script.api));
    let asks = |number: usize| {
        let (key, claims) = (TokenKey::new("signet", &number.to_string()), claims());
        let reviewer = &reviewer;
        async move { reviewer.review(key, PAYER, TOKEN, "signet", &claims).await }
    };
    let began = Instant::now();
    assert!(asks(0).await.is_ok());
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(asks(0).await.is_ok());
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_millis(500) && waited < Duration::from_millis(550),
        "{waited:?}"
    );
    let answers = join_all((0..100).map(asks)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "not without end");
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(refused.len() >= 90, "{}", refused.len());
    for error in refused {
        let AttestError::Unavailable { message, retry_after } = error else {
            panic!("{error:?}")
        };
        assert!(message.contains("rate of calls"), "{message}");
        assert!(retry_after >= Duration::from_secs(1), "{retry_after:?}");
    }
    assert!(script.asked("tokenreviews").len() <= 11, "two a second");
}

#[tokio::test]
async fn reviews_are_kept_by_audience_and_token_until_the_token_expires() {
    let script = Script::new(|_| positive());
    let reviewer = TokenReviewer::new(Arc::clone(&script.api));
    let (key, reviewed) = (TokenKey::new("signet", TOKEN), review(&reviewer).await.unwrap());
    let (before, after) = (reviewed.expires - Duration::from_secs(1), reviewed.expires);
    assert!(reviewer.kept(&key, before).is_none());
    reviewer.keep(key, Arc::clone(&reviewed), 1);
    assert!(reviewer.kept(&key, before).is_some());
    assert!(reviewer.kept(&key, after).is_none());
    for other in [
        TokenKey::new("other", TOKEN),
        TokenKey::new("signet", "x"),
        TokenKey::new("signeth", "eader"),
    ] {
        assert!(reviewer.kept(&other, before).is_none());
    }
    reviewer.sweep(before, |_| true).await;
    assert!(reviewer.kept(&key, before).is_some());
    reviewer
        .sweep(before, |pod_uid| pod_uid != reviewed.pod_uid)
        .await;
    assert!(reviewer.kept(&key, before).is_none());
    let keep = || reviewer.keep(key, Arc::clone(&reviewed), 1);
    let is_empty = || reviewer.kept_and_displaced() == (0, 0);
    keep();
    reviewer.sweep(after, |_| true).await;
    assert!(is_empty());
    keep();
    reviewer.forget(&key, &reviewed);
    assert!(is_empty());
    keep();
    reviewer.forget_pod(&reviewed.pod_uid);
    assert!(is_empty());
    keep();
    reviewer.forget_all();
    assert!(is_empty());
}
