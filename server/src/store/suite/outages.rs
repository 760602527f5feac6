use std::sync::Arc;

use super::fixture::{at, by_id, id, issuance, issue, issued, of_agent, revocation};
use crate::store::{IssueRefusal, NewIssuance, Store};

/// The renewal of what `issuance` gives, in an outage.
fn in_outage(path: &str, pod: &str, seconds: u64) -> NewIssuance {
    NewIssuance {
        outage: true,
        ..issuance(path, pod, at(seconds))
    }
}

pub(crate) async fn what_rests_on_an_outage_waits_for_its_review(store: Arc<dyn Store>) {
    issued(&store, "/ns/shop/sa/web", "pod-1", at(0)).await;
    let of_pod = [1, 2, 3].map(|second| in_outage("/ns/shop/sa/web", "pod-1", second));
    let of_agent = NewIssuance {
        outage: true,
        ..of_agent("n", at(4))
    };
    let mut serials = Vec::new();
    for item in of_pod.into_iter().chain([of_agent]) {
        serials.push(item.serial);
        issue(&store, item, at(5)).await.unwrap();
    }
    let waiting = async |after, limit| {
        let rows = store.unreviewed(after, limit).await.unwrap();
        rows.into_iter().map(|row| row.serial).collect::<Vec<_>>()
    };
    assert_eq!(
        waiting(None, 10).await,
        serials,
        "the first was reviewed when it was issued"
    );
    assert_eq!(waiting(None, 2).await, serials[..2]);
    assert_eq!(waiting(Some(serials[1]), 10).await, serials[2..]);
    let row = store.unreviewed(None, 1).await.unwrap().remove(0);
    assert_eq!(
        (row.workload.pod_uid.as_str(), row.workload.cluster_uid.as_str()),
        ("pod-1", "cluster")
    );
    let unknown = issuance("/ns/shop/sa/web", "pod-1", at(9)).serial;
    store
        .reviewed(vec![serials[0], serials[2], unknown])
        .await
        .unwrap();
    assert_eq!(waiting(None, 10).await, [serials[1], serials[3]]);
}

pub(crate) async fn tokens_of_pods_are_told_while_certificates_rest_on_them(store: Arc<dyn Store>) {
    let with_token = |pod: &str, jti: Option<&str>| NewIssuance {
        token_jti: jti.map(str::to_owned),
        ..issuance("/ns/shop/sa/web", pod, at(0))
    };
    let of_node = NewIssuance {
        token_jti: Some("of-a-node".into()),
        ..of_agent("n", at(0))
    };
    for item in [
        with_token("pod-1", Some("one")),
        with_token("pod-1", Some("one")),
        with_token("pod-2", Some("two")),
        with_token("pod-3", None),
        of_node,
    ] {
        issue(&store, item, at(1)).await.unwrap();
    }
    let told = async |now| {
        let tokens = store.pod_tokens(now).await.unwrap();
        let mut tokens: Vec<_> = tokens
            .into_iter()
            .map(|token| (token.cluster_uid, token.pod_uid, token.jti))
            .collect();
        tokens.sort();
        tokens
    };
    let of = |pod: &str, jti: &str| ("cluster".to_owned(), pod.to_owned(), jti.to_owned());
    assert_eq!(told(at(1)).await, [of("pod-1", "one"), of("pod-2", "two")]);
    assert_eq!(told(at(3600)).await, [], "the certificates have ended");
}

/// Covers INV-11.
pub(crate) async fn an_outage_gives_nobody_more_than_he_had(store: Arc<dyn Store>) {
    issued(&store, "/ns/shop/sa/web", "pod-1", at(0)).await;
    let other_agent = {
        let mut item = in_outage("/ns/shop/sa/web", "pod-1", 1);
        item.workload.agent_id = id("/signet/agent/c/another").to_string();
        item
    };
    for (new, what) in [
        (in_outage("/ns/shop/sa/web", "pod-2", 1), "a pod that is new"),
        (in_outage("/ns/shop/sa/db", "pod-1", 1), "an identity that is new"),
        (other_agent, "another agent"),
    ] {
        let answer = issue(&store, new, at(1)).await;
        assert_eq!(answer, Err(IssueRefusal::NewInOutage), "{what}");
    }
    issue(&store, in_outage("/ns/shop/sa/web", "pod-1", 2), at(2))
        .await
        .unwrap();
    store
        .revoke(revocation(by_id("/ns/shop/sa/web"), at(3)))
        .await
        .unwrap();
    let denied = issue(&store, in_outage("/ns/shop/sa/web", "pod-1", 4), at(4)).await;
    assert!(matches!(denied, Err(IssueRefusal::Denied { .. })), "{denied:?}");
}

/// Also when it is written after the review.
pub(crate) async fn an_issued_line_says_that_it_rests_on_an_outage(store: Arc<dyn Store>) {
    issued(&store, "/ns/shop/sa/web", "pod-1", at(0)).await;
    let item = in_outage("/ns/shop/sa/web", "pod-1", 1);
    let serial = item.serial;
    issue(&store, item, at(1)).await.unwrap();
    store.reviewed(vec![serial]).await.unwrap();
    let lines = store.lines_after(0, 10).await.unwrap();
    let says: Vec<_> = lines
        .iter()
        .map(|line| line.body.contains(r#""outage":true"#))
        .collect();
    assert_eq!(says, [false, true]);
}
