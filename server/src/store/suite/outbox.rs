use std::sync::Arc;

use serde_json::{Value, json};
use signet_certs::authority::AuthorityKind;
use signet_testkit::provoked;

use super::fixture::{at, authority, by_id, issuance, issue, issued, revocation};
use crate::audit_event::{AuditAction, AuditCursor, AuditEvent};
use crate::store::{KeyChanges, Store};

fn stopped(reason: &str) -> AuditEvent {
    let reason = reason.to_owned();
    AuditEvent::new(at(9), AuditAction::ServerStopped { reason })
}

/// What is stored after `sequence`, as JSON, with its positions.
async fn lines(store: &Arc<dyn Store>, sequence: u64) -> Vec<(u64, Value)> {
    let lines = store.lines_after(sequence, 1_000).await.unwrap();
    assert!(lines.iter().all(|line| line.boot == store.info().boot));
    lines
        .into_iter()
        .map(|line| (line.sequence, serde_json::from_str(&line.body).unwrap()))
        .collect()
}

async fn names(store: &Arc<dyn Store>, sequence: u64) -> Vec<(u64, String)> {
    let lines = lines(store, sequence).await.into_iter();
    lines
        .map(|(sequence, line)| (sequence, line["event"].as_str().unwrap().to_owned()))
        .collect()
}

pub(crate) async fn every_change_leaves_its_lines_in_order(store: Arc<dyn Store>) {
    let mut stored = store.stored();
    assert_eq!(*stored.borrow_and_update(), 0);
    let one = issued(&store, "/a", "one", at(0)).await;
    let revoked = store.revoke(revocation(by_id("/a"), at(1))).await.unwrap();
    store
        .append(vec![stopped("first"), stopped("second")])
        .await
        .unwrap();
    issue(&store, issuance("/a", "one", at(2)), at(2))
        .await
        .expect_err("a refusal is no change");
    let denial = revoked.denial.unwrap().id;
    store.allow(&denial, "bob", at(3)).await.unwrap();
    store.allow(&denial, "bob", at(4)).await.unwrap();
    let expected = ["issued", "revoked", "server_stopped", "server_stopped", "allowed"];
    let expected: Vec<_> = (1..).zip(expected.map(str::to_owned)).collect();
    assert_eq!(names(&store, 0).await, expected);
    assert_eq!(names(&store, 3).await, expected[3..]);
    assert_eq!(*stored.borrow_and_update(), 5);
    let lines = lines(&store, 0).await;
    let (first, second) = (&lines[0].1, &lines[1].1);
    assert_eq!(first["serial"], one.to_string());
    assert_eq!(second["serials"][0]["serial"], one.to_string());
    assert_eq!(
        (&second["denial"], &second["author"]),
        (&json!(denial), &json!("alice"))
    );
    assert_eq!(
        (&lines[2].1["reason"], &lines[3].1["reason"]),
        (&json!("first"), &json!("second"))
    );
}

pub(crate) async fn an_issued_line_says_what_the_row_says(store: Arc<dyn Store>) {
    let item = issuance("/ns/shop/sa/web", "pod-1", at(0));
    let (serial, key) = (item.serial.to_string(), hex::encode(item.spki_sha256));
    issue(&store, item, at(5)).await.unwrap();
    let line = json!({
        "time": "2027-01-15T08:00:05Z",
        "event": "issued",
        "serial": serial,
        "authority_id": authority(1).to_string(),
        "spiffe_id": "spiffe://example.org/ns/shop/sa/web",
        "cluster_uid": "cluster",
        "pod_namespace": "shop",
        "pod_name": "pod-1-name",
        "pod_uid": "pod-1",
        "node_name": "node-1",
        "node_uid": "node-uid-1",
        "agent_id": "spiffe://example.org/signet/agent/c/node-uid-1",
        "process": "",
        "evidence": "pod-token",
        "token_jti": "3f3a8d7e-0000-4000-8000-000000000001",
        "spki_sha256": key,
        "rule": "builtin",
        "policy_revision": "ffffffffffffffff",
        "not_before": "2027-01-15T07:58:00Z",
        "not_after": "2027-01-15T09:00:00Z",
        "epoch": 1,
    });
    assert_eq!(lines(&store, 0).await, [(1, line)]);
}

pub(crate) async fn a_journal_that_lost_leaves_no_line(store: Arc<dyn Store>) {
    let save = |reason| {
        let audit = vec![stopped(reason)];
        store.save_journal(AuthorityKind::X509, 0, vec![], KeyChanges::default(), audit)
    };
    save("kept").await.unwrap();
    save("lost").await.unwrap_err();
    let lines = lines(&store, 0).await;
    assert_eq!((lines.len(), &lines[0].1["reason"]), (1, &json!("kept")));
}

/// Lines that are stored and not yet emitted.
async fn waiting(store: &Arc<dyn Store>) -> u64 {
    let stored = *store.stored().borrow();
    stored - store.cursor().await.unwrap().sequence
}

pub(crate) async fn lines_leave_once_they_are_emitted(store: Arc<dyn Store>) {
    assert_eq!(store.cursor().await.unwrap(), AuditCursor::default());
    assert_eq!(store.head().await.unwrap(), None);
    for reason in ["one", "two", "three"] {
        store.append(vec![stopped(reason)]).await.unwrap();
    }
    assert_eq!(waiting(&store).await, 3);
    let emitted = |sequence: u64| AuditCursor {
        sequence,
        hash: [7; 32],
    };
    let head = Some("a head".to_owned());
    store.advance(emitted(2), head).await.unwrap();
    store.advance(emitted(1), None).await.unwrap();
    assert_eq!(store.cursor().await.unwrap(), emitted(2), "it never goes back");
    assert_eq!(store.head().await.unwrap().as_deref(), Some("a head"));
    assert_eq!(names(&store, 0).await, [(3, "server_stopped".to_owned())]);
    assert_eq!(waiting(&store).await, 1);
    store.advance(emitted(3), None).await.unwrap();
    store.append(vec![stopped("four")]).await.unwrap();
    assert_eq!(names(&store, 0).await[0].0, 4, "positions go on");
}

pub(crate) async fn a_probe_says_nothing_but_that_the_store_takes_something(store: Arc<dyn Store>) {
    for _ in 0..2 {
        store.probe().await.unwrap();
    }
    assert_eq!(*store.failed_writes().borrow(), 0);
    assert_eq!(*store.stored().borrow(), 0, "it leaves no line");
}

/// What they tell of is stored all the same.
pub(crate) async fn beyond_the_bound_lines_are_left_out_and_told(store: Arc<dyn Store>) {
    store.bound(Some(2));
    store
        .append(vec![stopped("first"), stopped("second")])
        .await
        .unwrap();
    store.append(vec![stopped("third")]).await.unwrap();
    issued(&store, "/a", "one", at(0)).await;
    store.revoke(revocation(by_id("/a"), at(1))).await.unwrap();
    let waiting = [1, 2].map(|sequence| (sequence, "server_stopped".to_owned()));
    assert_eq!(names(&store, 0).await, waiting);
    assert_eq!((*store.stored().borrow(), store.left_out()), (2, 3));

    let cursor = AuditCursor {
        sequence: 2,
        ..AuditCursor::default()
    };
    store.advance(cursor, None).await.unwrap();
    store.append(vec![stopped("fourth")]).await.unwrap();
    let told = lines(&store, 2).await;
    let values: Vec<Value> = told.iter().map(|(_, line)| line.clone()).collect();
    provoked("audit_lines_dropped", &values);
    let told: Vec<_> = told
        .iter()
        .map(|(sequence, line)| (*sequence, &line["event"], &line["lines"]))
        .collect();
    assert_eq!(
        told,
        [
            (3, &json!("audit_lines_dropped"), &json!(3)),
            (4, &json!("server_stopped"), &Value::Null)
        ]
    );
    store.bound(None);
    store.append(vec![stopped("fifth")]).await.unwrap();
    assert_eq!((*store.stored().borrow(), store.left_out()), (5, 3));
}
