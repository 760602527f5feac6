//! Requests that no proxy makes.

use std::time::Duration;

use prost::Message as _;
use signet_agent::testing::{Settings, WorkloadState};
use signet_proto::envoy::config::core::v3::Node;
use signet_proto::envoy::service::discovery::v3::DiscoveryRequest;
use signet_runtime::bucket::Rate;
use signet_runtime::quota::Division;
use tonic::Code;

use super::{Facts, Proxy, TYPE, asking, delta, names};
use crate::support::raw::{DATA, END_STREAM, PREFACE, RawClient, SETTINGS, call_headers, frame, message};
use crate::support::{SOON, Socket, ready, serve_pod, settings, soon, volume};

const STREAM: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
const FETCH: &str = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets";

/// Covers BG-24.
#[tokio::test]
async fn requests_that_make_no_sense_end_their_call() {
    let facts = Facts::new();
    let many: Vec<String> = (0..1000)
        .map(|number| format!("spiffe://example.org/{number}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = format!("spiffe://example.org/{}", "a".repeat(3000));
    for request in [
        DiscoveryRequest {
            type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
            ..asking(&["default"])
        },
        asking(&many),
        asking(&[&long]),
    ] {
        let socket = Socket::pending();
        socket.say(ready(facts.context(1)));
        let mut proxy = Proxy::of(&socket).await;
        proxy.asks(request).await;
        assert_eq!(proxy.ends().await.code(), Code::InvalidArgument);
    }
}

/// Covers BG-24.
#[tokio::test]
async fn ten_thousand_names_are_more_than_a_request_may_have() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let many: Vec<String> = (0..10_000)
        .map(|number| format!("spiffe://example.org/{number}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(asking(&many)).await;
    assert_eq!(proxy.ends().await.code(), Code::ResourceExhausted);
}

/// Covers BG-24.
#[tokio::test]
async fn a_proxy_that_says_nothing_of_itself_is_served_and_one_that_says_much_too() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    // As long as Envoy's list of extensions, several times.
    let id = "x".repeat(200_000);
    for node in [
        None,
        Some(Node {
            id,
            ..Node::default()
        }),
    ] {
        let mut proxy = Proxy::of(&socket).await;
        proxy
            .asks(DiscoveryRequest {
                node,
                ..asking(&["default"])
            })
            .await;
        assert_eq!(names(&proxy.hears().await), ["default"]);
    }
}

async fn status_of(socket: &Socket, path: &str, body: &[u8]) -> String {
    let mut client = RawClient::connect(&socket.path).await;
    client.open(1, &call_headers(path, None)).await;
    client.send(&frame(DATA, END_STREAM, 1, body)).await;
    let answer = soon(client.until(1, |_| false)).await;
    assert!(answer.ended && answer.reset.is_none(), "{answer:?}");
    answer.grpc_status().unwrap().to_owned()
}

/// Covers BG-08, BG-09, BG-10.
#[tokio::test]
async fn malformed_bodies_end_their_call_alone() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let good = asking(&["default"]).encode_to_vec();
    let mut with_unknown = good.clone();
    // Field 90, a varint.
    with_unknown.extend_from_slice(&[0xd0, 0x05, 0x07]);
    let compressed = [&[1][..], &message(&good)[1..]].concat();
    let announced = [&[0][..], &1_000_000_000_u32.to_be_bytes()].concat();
    for path in [STREAM, FETCH] {
        for (body, status) in [
            (vec![], "3"),
            (compressed.clone(), "12"),
            (announced.clone(), "8"),
            (message(&good)[..7].to_vec(), "3"),
            // A truncated field, a wrong wire type, a string that is none, field number zero.
            (message(&[0x1a, 0x05, b'a']), "3"),
            (message(&[0x18, 0x05]), "3"),
            (message(&[0x1a, 0x01, 0xff]), "3"),
            (message(&[0x02, 0x00]), "3"),
        ] {
            assert_eq!(status_of(&socket, path, &body).await, status, "{path} {body:?}");
        }
    }
    assert_eq!(status_of(&socket, FETCH, &message(&with_unknown)).await, "0");
}

/// Each request asks for another name than the one before, and is answered; nothing else is.
///
/// Covers BG-24.
#[tokio::test]
async fn names_that_go_to_and_fro_are_answered_once_each() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut proxy = Proxy::of(&socket).await;
    let mut answer = {
        proxy.asks(asking(&["default"])).await;
        proxy.hears().await
    };
    for name in ["ROOTCA", "default"].repeat(20) {
        proxy.asks(super::taking(&answer, &[name])).await;
        answer = proxy.hears().await;
        assert_eq!(names(&answer), [name]);
    }
    proxy.hears_nothing(&socket).await;
}

/// A stream that is cut, whatever was said last, leaves nothing behind, and the next one is answered from the beginning.
///
/// Covers BG-18.
#[tokio::test]
async fn a_stream_that_is_cut_at_any_message_leaves_nothing_behind() {
    let facts = Facts::new();
    let socket = Socket::pending();
    for cut_after in 0..6 {
        socket.say(ready(facts.context(1)));
        let mut proxy = Proxy::of(&socket).await;
        for said in 0..cut_after {
            match said {
                0 => proxy.asks(asking(&["ROOTCA"])).await,
                1 => drop(proxy.hears().await),
                2 => socket.say(ready(facts.context(2))),
                3 => {
                    let answer = proxy.hears().await;
                    proxy.asks(super::refusing(&answer, &["ROOTCA"])).await;
                }
                _ => proxy.hears_nothing(&socket).await,
            }
        }
        socket.subscribed(1).await;
        drop(proxy);
        socket.subscribed(0).await;
    }
}

/// Whoever takes nothing of one answer has no room for another, and gets it as soon as there is.
#[tokio::test]
async fn an_answer_that_waits_for_room_comes_when_there_is_some() {
    let facts = Facts::new();
    let settings = Settings {
        bytes: Division {
            share: 0,
            cap: 350_000,
            pool: 350_000,
        },
        ..settings()
    };
    // So long that there is room for one answer and the calls of tools, and not for two.
    let mut context = facts.context(1);
    context.bundle = context.bundle.repeat(200).into();
    let socket = Socket::with(settings, volume(), ready(context));
    let mut takes_nothing = RawClient::silent(&socket.path).await;
    takes_nothing.send(PREFACE).await;
    takes_nothing
        .send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .await;
    takes_nothing.open(1, &call_headers(STREAM, None)).await;
    let request = message(&asking(&["default", "ROOTCA"]).encode_to_vec());
    takes_nothing.send(&frame(DATA, 0, 1, &request)).await;
    socket.subscribed(1).await;
    socket.round_trip().await;
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(asking(&["default", "ROOTCA"])).await;
    proxy.hears_nothing(&socket).await;
    drop(takes_nothing);
    assert_eq!(names(&proxy.hears().await), ["ROOTCA", "default"]);
}

/// Requests that come together are paid for one by one, as they would be in frames of their own.
#[tokio::test]
async fn a_flood_of_requests_in_one_frame_is_answered_at_the_callers_rate() {
    let facts = Facts::new();
    let settings = Settings {
        work: Rate {
            per_second: 10.0,
            burst: 300.0,
        },
        ..settings()
    };
    let socket = Socket::with(settings, volume(), ready(facts.context(1)));
    let mut client = RawClient::connect(&socket.path).await;
    client.open(1, &call_headers(STREAM, None)).await;
    let flood: Vec<u8> = ["ROOTCA", "default"]
        .repeat(300)
        .iter()
        .flat_map(|name| message(&asking(&[name]).encode_to_vec()))
        .collect();
    for part in flood.chunks(16_000) {
        client.send(&frame(DATA, 0, 1, part)).await;
    }
    // A pod beside it has no part in that.
    let (beside, _served) = serve_pod(&socket, "pod-2");
    let mut neighbour = RawClient::connect(&beside).await;
    neighbour.open(1, &call_headers(STREAM, None)).await;
    neighbour
        .send(&frame(
            DATA,
            0,
            1,
            &message(&asking(&["default"]).encode_to_vec()),
        ))
        .await;
    soon(neighbour.until(1, |answer| !answer.data.is_empty())).await;
    let _ = tokio::time::timeout(
        Duration::from_millis(500),
        client.until(1, |answer| answers(&answer.data) > 60),
    )
    .await;
    let answered = answers(&client.until(1, |_| true).await.data);
    assert!((1..=60).contains(&answered), "{answered}");
}

/// Of many streams each waits behind the others of its caller, and what they get together is no more than one would.
#[tokio::test]
async fn streams_of_one_caller_share_what_it_may_have_done_and_each_has_its_turn() {
    let facts = Facts::new();
    let settings = Settings {
        work: Rate {
            per_second: 200.0,
            burst: 600.0,
        },
        handshake_limit: SOON,
        ..settings()
    };
    let socket = Socket::with(settings, volume(), ready(facts.context(1)));
    let flood: Vec<u8> = ["ROOTCA", "default"]
        .repeat(100)
        .iter()
        .flat_map(|name| message(&asking(&[name]).encode_to_vec()))
        .collect();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = RawClient::connect(&socket.path).await;
        client.open(1, &call_headers(STREAM, None)).await;
        clients.push(client);
    }
    socket.subscribed(10).await;
    for client in &mut clients {
        for part in flood.chunks(16_000) {
            client.send(&frame(DATA, 0, 1, part)).await;
        }
    }
    for client in &mut clients {
        let heard = soon(client.until(1, |answer| answers(&answer.data) > 0)).await;
        assert!(answers(&heard.data) > 0, "{heard:?}");
    }
    let mut answered = 0;
    for client in &mut clients {
        answered += answers(&client.until(1, |_| true).await.data);
    }
    // A request that is answered costs twelve at least; those of one stream alone would be 200.
    assert!((10..200).contains(&answered), "{answered}");
}

/// What a stream keeps of its requests is its caller's.
#[tokio::test]
async fn names_that_are_kept_are_counted() {
    let facts = Facts::new();
    let settings = Settings {
        bytes: Division {
            share: 0,
            cap: 850_000,
            pool: 850_000,
        },
        ..settings()
    };
    let nothing_yet = WorkloadState::Pending { problem: None };
    let socket = Socket::new(SOON, settings, volume(), nothing_yet);
    let names: Vec<String> = (0..100).map(|number| format!("{number:0>2000}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let long = delta::subscribing(&names);
    let mut kept = Vec::new();
    for number in 1..=3 {
        let mut proxy = delta::Proxy::of(&socket).await;
        proxy.asks(long.clone()).await;
        proxy.hears_nothing(&socket).await;
        socket.subscribed(number).await;
        kept.push(proxy);
    }
    let mut one_more = delta::Proxy::of(&socket).await;
    one_more.asks(long.clone()).await;
    assert_eq!(one_more.ends().await.code(), Code::Unavailable);
    // It has harmed nobody, and what one gives back another has.
    kept.pop();
    socket.subscribed(2).await;
    let mut later = delta::Proxy::of(&socket).await;
    later.asks(long).await;
    later.hears_nothing(&socket).await;
    // Answers are as long as what was asked, and need their room too.
    kept.clear();
    kept.push(later);
    socket.subscribed(1).await;
    socket.say(ready(facts.context(1)));
    for proxy in &mut kept {
        assert_eq!(proxy.hears().await.removed_resources.len(), 100);
    }
}

/// How many answers these bytes hold: each names the type of its one secret, and its own.
fn answers(data: &[u8]) -> usize {
    let windows = data.windows(TYPE.len());
    windows.filter(|window| *window == TYPE.as_bytes()).count() / 2
}
