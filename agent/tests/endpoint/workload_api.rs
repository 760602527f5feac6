//! The Workload API over real Unix sockets, against a scripted source.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use signet_agent::testing::{AttachError, Caller, Lists, WorkloadState};
use signet_proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest, X509svidResponse,
};
use signet_testkit::{MINUTE, now};
use tonic::{Code, Streaming};

use crate::support::{Socket, ended_with, example, ready, settings, soon, svid, volume, with_header};

async fn watch(socket: &Socket) -> Streaming<X509svidResponse> {
    let mut client = socket.client().await;
    soon(client.fetch_x509svid(with_header(X509svidRequest {})))
        .await
        .unwrap()
        .into_inner()
}

fn refused(message: &str) -> WorkloadState {
    WorkloadState::Refused {
        message: message.to_owned(),
    }
}

/// Covers API-03, API-07, API-10, API-13, X5S-02, X5S-03, X5S-08, X5S-09.
/// Covers EP-01, EP-06, EP-07.
#[tokio::test]
async fn the_first_message_is_complete_and_comes_at_once() {
    let socket = Socket::ready();
    let message = soon(watch(&socket).await.message()).await.unwrap().unwrap();
    let ids: Vec<_> = message.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    assert_eq!(
        ids,
        ["spiffe://example.org/ns/a/sa/b", "spiffe://example.org/other"]
    );
    let first = &message.svids[0];
    assert_eq!(first.x509_svid[..], [0x30, 1]);
    assert_eq!(first.x509_svid_key[..], [0x30, 0x80, 1]);
    assert_eq!(first.bundle[..], [0x30, 0x10]);
    assert_eq!(first.hint, "");
    assert_eq!(message.crl, [Bytes::from_static(&[0x30, 0x20])]);
    assert_eq!(message.federated_bundles.len(), 1);
    assert_eq!(
        message.federated_bundles["spiffe://friend.example"][..],
        [0x30, 0x30]
    );
}

/// Covers API-04, API-05, API-08, API-09, API-16, RS-12.
#[tokio::test]
async fn each_change_is_sent_in_full_and_an_equal_state_is_not() {
    let socket = Socket::ready();
    let mut stream = watch(&socket).await;
    soon(stream.message()).await.unwrap().unwrap();

    socket.say(ready(example()));
    socket.round_trip().await;
    let mut changed = example();
    changed.svids[0] = svid("spiffe://example.org/ns/a/sa/b", 9);
    changed
        .federated_bundles
        .insert("new.example".to_owned(), Bytes::from_static(&[0x30, 0x40]));
    socket.say(ready(changed.clone()));
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.svids.len(), 2);
    assert_eq!(message.svids[0].x509_svid[..], [0x30, 9]);
    assert_eq!(message.federated_bundles.len(), 2);

    changed.federated_bundles = BTreeMap::new();
    socket.say(ready(changed));
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.svids[0].x509_svid[..], [0x30, 9]);
    assert!(message.federated_bundles.is_empty());

    let again = soon(watch(&socket).await.message()).await.unwrap().unwrap();
    assert_eq!(again, message);
}

/// Covers EP-13, EP-18, BG-15.
#[tokio::test]
async fn a_workload_that_is_not_known_yet_waits_and_is_then_told_to_retry() {
    let socket = Socket::pending();
    let status = ended_with(soon(watch(&socket).await.message()).await, Code::Unavailable);
    assert!(status.contains("no answer from the server"), "{status}");

    socket.say(WorkloadState::Pending {
        problem: Some("server unreachable".to_owned()),
    });
    let status = ended_with(soon(watch(&socket).await.message()).await, Code::Unavailable);
    assert_eq!(status, "server unreachable");
}

/// Covers API-03.
#[tokio::test]
async fn a_waiting_stream_is_served_the_moment_the_identity_is_there() {
    let socket = Socket::patient(crate::support::SOON, WorkloadState::Pending { problem: None });
    let mut stream = watch(&socket).await;
    socket.subscribed(1).await;
    socket.say(ready(example()));
    assert_eq!(soon(stream.message()).await.unwrap().unwrap().svids.len(), 2);
}

/// Covers EP-12, EP-19, X5S-10, X5B-03, BG-14.
#[tokio::test]
async fn a_refused_workload_is_denied_in_the_words_that_clients_know() {
    let socket = Socket::with(settings(), volume(), refused("no rule matches pod a/b"));
    let status = ended_with(soon(watch(&socket).await.message()).await, Code::PermissionDenied);
    assert_eq!(status, "no identity issued: no rule matches pod a/b");

    let mut client = socket.client().await;
    let mut bundles = client
        .fetch_x509_bundles(with_header(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    ended_with(soon(bundles.message()).await, Code::PermissionDenied);
}

/// Covers X5S-11, API-14.
#[tokio::test]
async fn a_removed_entry_disappears_from_the_next_message_and_the_last_one_ends_the_stream() {
    let socket = Socket::ready();
    let mut stream = watch(&socket).await;
    soon(stream.message()).await.unwrap().unwrap();
    let mut fewer = example();
    fewer.svids.remove(0);
    socket.say(ready(fewer));
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.svids.len(), 1);
    assert_eq!(message.svids[0].spiffe_id, "spiffe://example.org/other");
    socket.say(refused(""));
    let status = ended_with(soon(stream.message()).await, Code::PermissionDenied);
    assert_eq!(status, "no identity issued");
}

/// Covers EP-26.
#[tokio::test]
async fn what_the_source_says_of_a_caller_becomes_the_right_status() {
    let socket = Socket::ready();
    *socket.script.refusal.lock().unwrap() = Some(AttachError::Refused("denied".to_owned()));
    let mut client = socket.client().await;
    let status = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "no identity issued: denied")
    );
    *socket.script.refusal.lock().unwrap() =
        Some(AttachError::Unavailable("the caller has ended".to_owned()));
    let status = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the caller has ended")
    );
    assert!(matches!(&socket.script.callers.lock().unwrap()[0],
        Caller::Volume { volume_id, pod_uid } if volume_id == "csi-1" && pod_uid == "pod-1"));
}

/// Covers EP-20, EP-21, RS-02.
#[tokio::test]
async fn a_stream_never_ends_with_ok() {
    let socket = Socket::ready();
    let mut stream = watch(&socket).await;
    soon(stream.message()).await.unwrap().unwrap();
    socket.say(WorkloadState::Gone);
    ended_with(soon(stream.message()).await, Code::Unavailable);
    ended_with(soon(watch(&socket).await.message()).await, Code::Unavailable);
}

/// Covers EP-22, RS-03.
#[tokio::test]
async fn a_panic_reaches_the_client_as_unavailable() {
    let socket = Socket::ready();
    let mut stream = watch(&socket).await;
    soon(stream.message()).await.unwrap().unwrap();
    socket.clock.panics.store(true, Ordering::SeqCst);
    let mut changed = example();
    changed.svids.pop();
    socket.say(ready(changed));
    ended_with(soon(stream.message()).await, Code::Unavailable);

    *socket.script.panics.lock().unwrap() = true;
    let mut client = socket.client().await;
    let status = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

/// Covers X5S-12, BG-22.
#[tokio::test]
async fn an_expired_leaf_is_never_sent() {
    let socket = Socket::ready();
    let mut stream = watch(&socket).await;
    soon(stream.message()).await.unwrap().unwrap();
    socket.clock.set_offset(24 * 3600);
    let status = ended_with(soon(watch(&socket).await.message()).await, Code::Unavailable);
    assert!(status.contains("expired"), "{status}");

    let mut half = example();
    half.svids[1].not_after += Duration::from_secs(48 * 3600);
    socket.say(ready(half));
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.svids.len(), 1);
    assert_eq!(message.svids[0].spiffe_id, "spiffe://example.org/other");
}

/// Covers X5S-12.
#[tokio::test]
async fn a_leaf_from_the_future_is_held_back_until_its_time() {
    let mut early = example();
    early.svids.truncate(1);
    early.svids[0].not_before = now() + MINUTE;
    let socket = Socket::patient(crate::support::SOON, ready(early));
    let mut stream = watch(&socket).await;
    socket.subscribed(1).await;
    socket.clock.set_offset(59);
    let mut client = socket.client().await;
    let mut hurried = with_header(X509svidRequest {});
    hurried.set_timeout(Duration::from_millis(100));
    let mut second = client.fetch_x509svid(hurried).await.unwrap().into_inner();
    ended_with(soon(second.message()).await, Code::DeadlineExceeded);
    socket.clock.set_offset(61);
    // The first stream looks again only at the time it worked out; a new one sees the clock at once.
    assert_eq!(
        soon(watch(&socket).await.message())
            .await
            .unwrap()
            .unwrap()
            .svids
            .len(),
        1
    );
    let mut changed = example();
    changed.svids.truncate(1);
    socket.say(ready(changed));
    assert_eq!(soon(stream.message()).await.unwrap().unwrap().svids.len(), 1);
}

/// Covers API-11, API-12, BG-20.
#[tokio::test]
async fn hints_are_unique_and_short() {
    let mut context = example();
    for (index, hint) in ["a", "a", "", "", "b"].iter().enumerate() {
        let mut entry = svid(&format!("spiffe://example.org/{index}"), 10 + index as u8);
        entry.hint = (*hint).to_owned();
        context.svids.push(entry);
    }
    context.svids[0].hint = "x".repeat(1025);
    context.svids[1].hint = "x".repeat(1024);
    let socket = Socket::with(settings(), volume(), ready(context));
    let message = soon(watch(&socket).await.message()).await.unwrap().unwrap();
    let hints: Vec<_> = message.svids.iter().map(|svid| svid.hint.len()).collect();
    assert_eq!(hints, [0, 1024, 1, 0, 0, 0, 1]);
}

/// Covers API-17, X5S-13, X5B-05.
#[tokio::test]
async fn foreign_bundles_hold_neither_the_own_domain_nor_empty_ones() {
    let mut context = example();
    context
        .federated_bundles
        .insert("example.org".to_owned(), Bytes::from_static(b"evil"));
    context
        .federated_bundles
        .insert("empty.example".to_owned(), Bytes::new());
    let socket = Socket::with(settings(), volume(), ready(context));
    let message = soon(watch(&socket).await.message()).await.unwrap().unwrap();
    assert_eq!(
        message.federated_bundles.keys().collect::<Vec<_>>(),
        ["spiffe://friend.example"]
    );

    let mut client = socket.client().await;
    let mut stream = client
        .fetch_x509_bundles(with_header(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.bundles.len(), 2);
    assert_eq!(message.bundles["spiffe://example.org"][..], [0x30, 0x10]);
}

/// Covers X5B-01, X5B-04, API-16.
#[tokio::test]
async fn bundles_are_sent_in_full_with_crls_and_only_when_they_change() {
    let socket = Socket::ready();
    let mut client = socket.client().await;
    let mut stream = client
        .fetch_x509_bundles(with_header(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.crl.len(), 1);
    assert_eq!(message.bundles.len(), 2);

    let mut changed = example();
    changed.svids[0] = svid("spiffe://example.org/ns/a/sa/b", 7);
    socket.say(ready(changed.clone()));
    socket.round_trip().await;
    changed.federated_bundles.clear();
    changed.crls = Lists::new(vec![
        changed.crls.ders()[0].clone(),
        Bytes::from_static(&[0x30, 0x21]),
    ]);
    socket.say(ready(changed));
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.crl.len(), 2);
    assert_eq!(
        message.bundles.keys().collect::<Vec<_>>(),
        ["spiffe://example.org"]
    );
}

/// Covers CRL-34, API-05.
#[tokio::test]
async fn a_new_list_alone_is_a_message_on_both_streams() {
    let socket = Socket::ready();
    let mut svids = watch(&socket).await;
    soon(svids.message()).await.unwrap().unwrap();
    let mut client = socket.client().await;
    let mut bundles = client
        .fetch_x509_bundles(with_header(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(bundles.message()).await.unwrap().unwrap();

    let lists = vec![
        Bytes::from_static(&[0x30, 0x2e]),
        Bytes::from_static(&[0x30, 0x2f]),
    ];
    let mut changed = example();
    changed.crls = Lists::new(lists.clone());
    socket.say(ready(changed));
    assert_eq!(soon(svids.message()).await.unwrap().unwrap().crl, lists);
    assert_eq!(soon(bundles.message()).await.unwrap().unwrap().crl, lists);
}

/// Covers API-07, X5S-03.
#[tokio::test]
async fn a_message_with_an_empty_mandatory_field_is_not_sent() {
    let mut context = example();
    context.bundle = Bytes::new();
    let socket = Socket::with(settings(), volume(), ready(context));
    ended_with(soon(watch(&socket).await.message()).await, Code::Unavailable);
    let mut context = example();
    context.svids.truncate(1);
    context.svids[0].chain = Bytes::new();
    socket.say(ready(context));
    ended_with(soon(watch(&socket).await.message()).await, Code::Unavailable);
}

/// Keys and bundles are never withheld because of lists.
///
/// Covers EP-25.
#[tokio::test]
async fn lists_that_clients_could_not_take_stay_behind() {
    let mut context = example();
    let lists = vec![Bytes::from(vec![0x30; 2 * 1024 * 1024]); 2];
    context.crls = Lists::new(lists.clone());
    let socket = Socket::with(settings(), volume(), ready(context));
    let (mut svids, mut client) = (watch(&socket).await, socket.client().await);
    let message = soon(svids.message()).await.unwrap().unwrap();
    assert_eq!(
        (message.svids.len(), message.crl.len()),
        (example().svids.len(), 0)
    );
    let request = with_header(X509BundlesRequest {});
    let mut bundles = client.fetch_x509_bundles(request).await.unwrap().into_inner();
    let message = soon(bundles.message()).await.unwrap().unwrap();
    assert_eq!((message.bundles.is_empty(), message.crl.len()), (false, 0));
    let mut smaller = example();
    smaller.crls = Lists::new(lists[..1].to_vec());
    socket.say(ready(smaller));
    assert_eq!(soon(svids.message()).await.unwrap().unwrap().crl, lists[..1]);
}

/// Covers EP-25.
#[tokio::test]
async fn a_response_beyond_what_clients_accept_is_an_error_that_says_so() {
    let mut context = example();
    context.bundle = Bytes::from(vec![0x30; 4 * 1024 * 1024]);
    let socket = Socket::with(settings(), volume(), ready(context));
    let status = ended_with(soon(watch(&socket).await.message()).await, Code::Unavailable);
    assert!(status.contains("4 MiB"), "{status}");
    socket.say(refused(&"reason ".repeat(1000)));
    let status = ended_with(soon(watch(&socket).await.message()).await, Code::PermissionDenied);
    assert!(status.len() < 600);
}

/// Covers API-01, EP-14, WTS-01.
#[tokio::test]
async fn profiles_that_are_not_offered_are_unimplemented() {
    let socket = Socket::ready();
    let mut client = socket.client().await;
    let codes = [
        client
            .fetch_jwtsvid(with_header(JwtsvidRequest::default()))
            .await
            .err()
            .map(|s| s.code()),
        client
            .fetch_jwt_bundles(with_header(JwtBundlesRequest {}))
            .await
            .err()
            .map(|s| s.code()),
        client
            .validate_jwtsvid(with_header(ValidateJwtsvidRequest::default()))
            .await
            .err()
            .map(|s| s.code()),
        client
            .fetch_witsvid(with_header(WitsvidRequest::default()))
            .await
            .err()
            .map(|s| s.code()),
        client
            .fetch_wit_bundles(with_header(WitBundlesRequest {}))
            .await
            .err()
            .map(|s| s.code()),
    ];
    assert_eq!(codes, [Some(Code::Unimplemented); 5]);
}

/// Covers EP-27, BG-17, API-05.
#[tokio::test]
async fn a_burst_collapses_into_the_newest_state() {
    let socket = Socket::ready();
    let mut stream = watch(&socket).await;
    soon(stream.message()).await.unwrap().unwrap();
    // No await in between: the stream cannot run, as a slow reader's would not.
    for serial in 10..=200 {
        let mut context = example();
        context.svids[0] = svid("spiffe://example.org/ns/a/sa/b", serial);
        socket.say(ready(context));
    }
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.svids[0].x509_svid[..], [0x30, 200]);
}

/// Covers BG-18.
#[tokio::test]
async fn a_client_that_leaves_leaves_no_subscription_behind() {
    let socket = Socket::ready();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = watch(&socket).await;
        soon(stream.message()).await.unwrap().unwrap();
        streams.push(stream);
    }
    socket.subscribed(3).await;
    drop(streams.pop());
    socket.subscribed(2).await;
    drop(streams);
    socket.subscribed(0).await;
}
