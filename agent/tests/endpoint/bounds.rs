//! What one caller can take from the others: nothing.

use std::time::Duration;

use bytes::Bytes;
use signet_agent::testing::{Lists, Origin, Settings};
use signet_proto::workload::X509svidRequest;
use signet_runtime::bucket::Rate;
use signet_runtime::quota::Division;
use tonic::Code;

use crate::support::raw::{DATA, PING, PREFACE, RawClient, SETTINGS, WINDOW_UPDATE, call_headers, frame};
use crate::support::{Socket, example, ready, serve_pod, settings, soon, svid, volume, with_header};

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// So many bytes for each caller, and none to share.
fn bytes(cap: usize) -> Division {
    Division {
        share: cap,
        cap,
        pool: 0,
    }
}

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

/// Whoever has more gives way to who has fewer, the newest first, and nobody else does. Covers BG-17.
#[tokio::test]
async fn pods_that_take_every_place_lose_one_to_whoever_has_none() {
    let bounds = Settings {
        connections_of_pods: 6,
        max_connections_per_caller: 5,
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), ready(example()));
    let mut greedy = Vec::new();
    for _ in 0..5 {
        let mut client = RawClient::connect(&socket.path).await;
        client.call(1, &call_headers(FETCH, None), b"").await;
        client.first_data(1).await;
        greedy.push(client);
    }
    let mut served = Vec::new();
    let mut others = Vec::new();
    for pod in ["pod-2", "pod-3", "pod-4"] {
        let (path, socket) = serve_pod(&socket, pod);
        let mut client = RawClient::connect(&path).await;
        client.call(1, &call_headers(FETCH, None), b"").await;
        assert!(!client.first_data(1).await.data.is_empty(), "{pod}");
        served.push(socket);
        others.push(client);
    }
    for client in &mut greedy[3..] {
        client.until_closed().await;
    }
    for client in greedy[..3].iter_mut().chain(&mut others) {
        client.call(3, &call_headers(FETCH, None), b"").await;
        assert!(!client.first_data(3).await.data.is_empty());
    }
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
        context.bundle = Bytes::from(vec![serial; LARGE]);
        ready(context)
    };
    let bounds = Settings {
        bytes: bytes(LARGE + 200 * 1024),
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
    assert_eq!(message.svids[0].bundle[0], 21);
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

/// Calls that need no header take no long message either. Covers EP-05, BG-17.
#[tokio::test]
async fn long_messages_to_reflection_and_health_are_refused_from_their_announcement() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    for (stream, path) in [(1, REFLECTION), (3, "/grpc.health.v1.Health/Check")] {
        client.open(stream, &call_headers(path, None)).await;
        let announced = [0, 0, 0, 0x20, 0];
        client.send(&frame(DATA, 0, stream, &announced)).await;
        let answer = client.end(stream).await;
        // A stream of reflection ends where it is not understood any more.
        assert!(
            matches!(answer.grpc_status(), Some("0" | "8")),
            "{path}: {answer:?}"
        );
        assert!(answer.data.is_empty(), "{path}: {answer:?}");
    }
}

/// Half of a message is no way to hold a call open. Covers BG-17, EP-13.
#[tokio::test]
async fn a_request_that_does_not_arrive_ends_soon_and_gives_back_what_it_held() {
    let bounds = Settings {
        max_streams_per_caller: 1,
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), ready(example()));
    let mut client = RawClient::connect(&socket.path).await;
    client.open(1, &call_headers(FETCH, None)).await;
    client.send(&frame(DATA, 0, 1, &[0, 0, 0, 1, 0, 0x0a])).await;
    assert_eq!(client.end(1).await.grpc_status(), Some("14"));
    client.call(3, &call_headers(FETCH, None), b"").await;
    assert!(!client.first_data(3).await.data.is_empty());
}

/// Calls without a header are charged before they begin. Covers BG-17.
#[tokio::test]
async fn what_reflection_may_hold_counts_against_its_caller_and_no_other() {
    let bounds = Settings {
        bytes: bytes(400 * 1024),
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
    for stream in [1, 3, 5] {
        greedy.open(stream, &call_headers(REFLECTION, None)).await;
    }
    greedy.open(7, &call_headers(REFLECTION, None)).await;
    assert_eq!(greedy.end(7).await.grpc_status(), Some("14"));
    let mut other = RawClient::connect(&other_path).await;
    other.call(1, &call_headers(FETCH, None), b"").await;
    assert!(!other.first_data(1).await.data.is_empty());
    soon(served.close()).await;
}

/// What ends a connection in order has to be written first, and so never is where the client takes nothing. Covers EP-27, BG-06, BG-17.
#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_though_it_cannot_be_told() {
    let bounds = Settings {
        max_connections_per_caller: 1,
        stuck_limit: Duration::from_millis(100),
        ..settings()
    };
    let mut context = example();
    context.crls = Lists::new(vec![Bytes::from(vec![1; 1024 * 1024])]);
    let socket = Socket::with(bounds, volume(), ready(context));
    let mut stuck = RawClient::silent(&socket.path).await;
    stuck.send(PREFACE).await;
    stuck
        .send(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]))
        .await;
    stuck.send(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0])).await;
    stuck.call(1, &call_headers(FETCH, None), b"").await;
    socket.subscribed(1).await;
    socket.subscribed(0).await;
}

/// Frames that cost the agent more than the sender wait, on that caller's connections alone. Covers EP-27, BG-17.
#[tokio::test]
async fn a_flood_of_frames_waits_behind_itself_and_behind_nobody_else() {
    let bounds = Settings {
        work: Rate {
            per_second: 200.0,
            burst: 100.0,
        },
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), ready(example()));
    let (other_path, _served) = serve_pod(&socket, "pod-2");
    let mut flood = RawClient::connect(&socket.path).await;
    let begun = tokio::time::Instant::now();
    for _ in 0..500 {
        flood.send(&frame(PING, 0, 0, &[0; 8])).await;
    }
    flood.call(1, &call_headers(FETCH, None), b"").await;
    let mut other = RawClient::connect(&other_path).await;
    other.call(1, &call_headers(FETCH, None), b"").await;
    assert!(!other.first_data(1).await.data.is_empty());
    let others = begun.elapsed();
    assert!(!flood.first_data(1).await.data.is_empty());
    let (own, second) = (begun.elapsed(), Duration::from_secs(1));
    assert!(own > second && others < second, "{own:?}, {others:?}");
}

/// Whoever goes on sending more than it may does not hold its place; a quiet connection of the same caller keeps its own.
/// Covers EP-27, BG-17.
#[tokio::test]
async fn a_connection_that_floods_without_end_is_closed_and_a_quiet_one_is_not() {
    let bounds = Settings {
        work: Rate {
            per_second: 2000.0,
            burst: 200.0,
        },
        over_limit: Duration::from_millis(500),
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), ready(example()));
    let mut quiet = RawClient::connect(&socket.path).await;
    quiet.call(1, &call_headers(FETCH, None), b"").await;
    assert!(!quiet.first_data(1).await.data.is_empty());
    let mut flood = RawClient::connect(&socket.path).await;
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(100);
    let flooding = async {
        while !flood.closed {
            flood.send(&pings).await;
            flood.take_what_came().await;
        }
    };
    soon(flooding).await;
    quiet.call(3, &call_headers(FETCH, None), b"").await;
    assert!(!quiet.first_data(3).await.data.is_empty());
}

/// Covers BG-17.
#[tokio::test]
async fn calls_that_come_too_often_are_told_to_retry_and_those_of_others_are_not() {
    let bounds = Settings {
        attaches: Rate {
            per_second: 0.001,
            burst: 3.0,
        },
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), ready(example()));
    let mut client = RawClient::connect(&socket.path).await;
    for stream in [1, 3, 5] {
        client.call(stream, &call_headers(FETCH, None), b"").await;
        assert!(!client.first_data(stream).await.data.is_empty());
    }
    client.call(7, &call_headers(FETCH, None), b"").await;
    assert_eq!(client.end(7).await.grpc_status(), Some("14"));
    assert_eq!(socket.script.asked(), 3);
    let (other, _served) = serve_pod(&socket, "pod-2");
    let mut other = RawClient::connect(&other).await;
    other.call(1, &call_headers(FETCH, None), b"").await;
    assert!(!other.first_data(1).await.data.is_empty());
}

/// As above; and the quiet one says something now and then.
#[tokio::test]
async fn a_connection_that_only_has_a_part_in_a_flood_stays() {
    let bounds = Settings {
        work: Rate {
            per_second: 2000.0,
            burst: 200.0,
        },
        over_limit: Duration::from_millis(500),
        ..settings()
    };
    let socket = Socket::with(bounds, volume(), ready(example()));
    let mut quiet = RawClient::connect(&socket.path).await;
    quiet.call(1, &call_headers(FETCH, None), b"").await;
    assert!(!quiet.first_data(1).await.data.is_empty());
    let mut flood = RawClient::connect(&socket.path).await;
    let pings = frame(PING, 0, 0, &[0; 8]);
    let (many, mut said) = (pings.repeat(100), tokio::time::Instant::now());
    let flooding = async {
        while !flood.closed {
            flood.send(&many).await;
            flood.take_what_came().await;
            if said.elapsed() > Duration::from_millis(50) {
                said = tokio::time::Instant::now();
                quiet.send(&pings).await;
            }
        }
    };
    soon(flooding).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    quiet.send(&pings).await;
    quiet.call(3, &call_headers(FETCH, None), b"").await;
    assert!(!quiet.first_data(3).await.data.is_empty());
}
