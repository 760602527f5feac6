//! What one caller can take from the others: nothing.

use std::time::Duration;

use bytes::Bytes;
use signet_agent::testing::{Origin, Settings};
use signet_proto::workload::X509svidRequest;
use tonic::Code;

use crate::support::raw::{RawClient, call_headers};
use crate::support::{Socket, example, ready, settings, soon, svid, volume, with_header};

const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// Covers EP-13, BG-17, RS-15.
#[tokio::test]
async fn calls_beyond_the_bound_are_told_to_retry_and_room_comes_back() {
    let socket = Socket::with(
        Settings {
            max_streams_per_caller: 3,
            ..settings()
        },
        volume(),
        ready(example()),
    );
    let mut client = socket.client().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = client
            .fetch_x509svid(with_header(X509svidRequest {}))
            .await
            .unwrap()
            .into_inner();
        soon(stream.message()).await.unwrap().unwrap();
        open.push(stream);
    }
    let status = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    // Without the header the answer is about the header, full or not (EP-04).
    let status = client.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    open.pop();
    socket.subscribed(2).await;
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(stream.message()).await.unwrap().unwrap();
}

/// Covers BG-17.
#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_the_open_ones_go_on() {
    let bounds = Settings {
        max_connections_per_caller: 2,
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), ready(example()));
    let mut first = RawClient::connect(&socket.path).await;
    first.call(1, &call_headers(FETCH, None), b"").await;
    first.first_data(1).await;
    let mut second = RawClient::connect(&socket.path).await;
    second.call(1, &call_headers(FETCH, None), b"").await;
    second.first_data(1).await;
    let mut third = RawClient::connect(&socket.path).await;
    third.until_closed().await;
    first.call(3, &call_headers(FETCH, None), b"").await;
    assert!(!first.first_data(3).await.data.is_empty());
}

/// Covers BG-17.
#[tokio::test]
async fn one_volume_does_not_use_up_the_share_of_another() {
    let bounds = Settings {
        max_connections_per_caller: 1,
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), ready(example()));
    let other_path = socket.path.with_file_name("other.sock");
    let listener = signet_runtime::uds::bind(&other_path, 0o777, None, None).unwrap();
    let origin = Origin::Volume {
        volume_id: "csi-2".to_owned(),
        pod_uid: "pod-2".to_owned(),
    };
    let served = socket.endpoint.serve(listener, origin);
    let mut greedy = RawClient::connect(&socket.path).await;
    greedy.call(1, &call_headers(FETCH, None), b"").await;
    greedy.first_data(1).await;
    let mut other = RawClient::connect(&other_path).await;
    other.call(1, &call_headers(FETCH, None), b"").await;
    assert!(!other.first_data(1).await.data.is_empty());
    soon(served.close()).await;
}

/// A pod's author decides how many volumes it mounts. Covers BG-17.
#[tokio::test]
async fn the_volumes_of_one_pod_share_what_one_caller_may_use() {
    let bounds = Settings {
        max_connections_per_caller: 1,
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), ready(example()));
    let Origin::Volume { pod_uid, .. } = volume() else {
        unreachable!()
    };
    let second_path = socket.path.with_file_name("second.sock");
    let listener = signet_runtime::uds::bind(&second_path, 0o777, None, None).unwrap();
    let origin = Origin::Volume {
        volume_id: "csi-second".to_owned(),
        pod_uid,
    };
    let served = socket.endpoint.serve(listener, origin);
    let mut greedy = RawClient::connect(&socket.path).await;
    greedy.call(1, &call_headers(FETCH, None), b"").await;
    greedy.first_data(1).await;
    RawClient::connect(&second_path).await.until_closed().await;
    soon(served.close()).await;
}

/// A reader that stops reading: its stream is not rendered again until it has taken what it was sent.
/// Covers EP-27, BG-17.
#[tokio::test]
async fn a_caller_that_stops_reading_holds_one_message_and_gets_the_newest_later() {
    const LARGE: usize = 1024 * 1024;
    let large = |serial: u8| {
        let mut context = example();
        context.svids = vec![svid("spiffe://example.org/ns/a/sa/b", serial)];
        context.crls = vec![Bytes::from(vec![serial; LARGE])];
        ready(context)
    };
    let bounds = Settings {
        max_untaken_bytes_per_caller: LARGE + 8 * 1024,
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), large(1));
    // No window updates are ever sent, so 64 KiB arrive and the rest waits in the agent.
    let mut stuck = RawClient::connect(&socket.path).await;
    stuck.call(1, &call_headers(FETCH, None), b"").await;
    stuck.until(1, |answer| answer.data.len() == 65_535).await;
    for serial in 2..20 {
        socket.say(large(serial));
    }
    // The budget is used up: a second stream of the same caller waits, and gets the newest state once there is room.
    let mut client = socket.client().await.max_decoding_message_size(4 * LARGE);
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    socket.subscribed(2).await;
    socket.round_trip().await;
    socket.say(large(21));
    drop(stuck);
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.crl[0][0], 21);
}

/// Covers BG-06, EP-27.
#[tokio::test]
async fn a_client_that_gives_no_sign_of_life_is_closed() {
    let impatient = Settings {
        keep_alive_interval: Duration::from_millis(50),
        keep_alive_limit: Duration::from_millis(50),
        ..settings()
    };
    let socket = Socket::with(impatient, volume(), ready(example()));
    // It reads, but answers no ping.
    let mut mute = RawClient::connect(&socket.path).await;
    mute.call(1, &call_headers(FETCH, None), b"").await;
    assert!(!mute.first_data(1).await.data.is_empty());
    mute.until_closed().await;
    socket.subscribed(0).await;
}
