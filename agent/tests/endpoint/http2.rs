//! Clients that are odd, broken or hostile at the level of HTTP/2 and protobuf.

use std::time::Duration;

use crate::support::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PREFACE, PRIORITY, PUSH_PROMISE, RawClient,
    SETTINGS, call_headers, frame, message,
};
use crate::support::{Socket, soon};

const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// That a fresh client is served.
async fn assert_others_are_served(socket: &Socket) {
    let mut client = RawClient::connect(&socket.path).await;
    client
        .call(1, &call_headers(FETCH, Some(b"localhost")), b"")
        .await;
    assert!(!client.first_data(1).await.data.is_empty());
}

/// Covers EP-23, BG-05, RS-01.
#[tokio::test]
async fn every_authority_that_clients_send_is_served() {
    let socket = Socket::ready();
    let good: [Option<&[u8]>; 9] = [
        None,
        Some(b""),
        Some(b"localhost"),
        Some(b"/run/a.sock"),
        Some(b"%2Frun%2Fa.sock"),
        Some(b"run/a.sock"),
        Some(b"unix:/run/a.sock"),
        Some(b"sds|x"),
        Some(b"spire_agent"),
    ];
    // Twice on one connection: the second time out of the client's dynamic table.
    let mut client = RawClient::connect(&socket.path).await;
    for (index, authority) in good.iter().chain(&good).enumerate() {
        let stream = 1 + 2 * index as u32;
        client.call(stream, &call_headers(FETCH, *authority), b"").await;
        let answer = client.first_data(stream).await;
        assert!(!answer.data.is_empty(), "{authority:?} {answer:?}");
    }
}

/// Covers BG-05.
#[tokio::test]
async fn junk_as_authority_costs_its_stream_only() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    client
        .call(1, &call_headers(FETCH, Some(b"localhost")), b"")
        .await;
    for (index, junk) in [
        vec![b'a'; 8192],
        vec![b'/'; 8192],
        b"a\0b".to_vec(),
        vec![0xff; 20],
    ]
    .iter()
    .enumerate()
    {
        let stream = 3 + 2 * index as u32;
        client.call(stream, &call_headers(FETCH, Some(junk)), b"").await;
        let answer = client.end(stream).await;
        assert!(answer.reset.is_some() || client.closed, "{junk:?}");
    }
    assert!(!client.first_data(1).await.data.is_empty());
    assert_others_are_served(&socket).await;
}

/// Covers BG-03.
#[tokio::test]
async fn an_upper_case_header_name_is_an_error() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    let mut headers = call_headers(FETCH, None);
    headers.last_mut().unwrap().0 = b"Workload.Spiffe.IO".to_vec();
    client.call(1, &headers, b"").await;
    let answer = client.end(1).await;
    assert!(answer.reset.is_some() || answer.data.is_empty());
    assert_eq!(socket.script.asked(), 0);
    assert_others_are_served(&socket).await;
}

/// Covers BG-06.
#[tokio::test]
async fn what_is_not_http2_is_closed_soon() {
    let socket = Socket::ready();
    let mut bystander = RawClient::connect(&socket.path).await;
    let tls = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let noise: Vec<u8> = (0..4096_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let inputs: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /SpiffeWorkloadAPI/FetchX509SVID HTTP/1.1\r\n\r\n",
        &tls,
        &noise,
        PREFACE,
        &PREFACE[..10],
        b"",
    ];
    for input in inputs {
        let mut client = RawClient::silent(&socket.path).await;
        client.send(input).await;
        client.until_closed().await;
    }
    bystander.call(1, &call_headers(FETCH, None), b"").await;
    assert!(!bystander.first_data(1).await.data.is_empty());
}

/// Covers BG-07.
#[tokio::test]
async fn what_is_not_a_call_of_ours_gets_an_error() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    for (stream, path) in [
        (1, "/SpiffeWorkloadAPI/Nothing"),
        (3, "/no.such.Service/Get"),
        (5, "/"),
    ] {
        client.call(stream, &call_headers(path, None), b"").await;
        assert_eq!(client.end(stream).await.grpc_status(), Some("12"), "{path}");
    }
    let mut headers = call_headers(FETCH, None);
    headers[0].1 = b"GET".to_vec();
    client.call(7, &headers, b"").await;
    assert_eq!(client.end(7).await.headers[":status"], "405");
    for (stream, kind) in [(9, "text/html"), (11, "application/grpcx"), (13, "")] {
        let mut headers = call_headers(FETCH, None);
        let position = headers
            .iter()
            .position(|(name, _)| name == b"content-type")
            .unwrap();
        headers[position].1 = kind.as_bytes().to_vec();
        client.call(stream, &headers, b"").await;
        assert_eq!(client.end(stream).await.headers[":status"], "415", "{kind}");
    }
    assert_eq!(socket.script.asked(), 0);
}

/// Covers EP-28, BG-08.
#[tokio::test]
async fn unknown_fields_are_ignored_and_bad_bodies_fail_their_call_only() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    // Field 7, a string; field 100, a varint.
    client
        .call(
            1,
            &call_headers(FETCH, None),
            &[0x3a, 2, b'h', b'i', 0xa0, 0x06, 1],
        )
        .await;
    assert!(!client.first_data(1).await.data.is_empty());
    let jwt = "/SpiffeWorkloadAPI/FetchJWTSVID";
    let bad: [(&str, &[u8]); 5] = [
        (FETCH, &[0x3a, 9, b'h']),
        (FETCH, &[0x02, 0]),
        (FETCH, &[0xff; 12]),
        (jwt, &[0x08, 1]),
        (jwt, &[0x0a, 2, 0xff, 0xfe]),
    ];
    for (index, (path, body)) in bad.iter().enumerate() {
        let stream = 3 + 2 * index as u32;
        client.call(stream, &call_headers(path, None), body).await;
        let answer = client.end(stream).await;
        assert!(
            !matches!(answer.grpc_status(), None | Some("0" | "1")),
            "{body:?} {answer:?}"
        );
    }
    client.call(101, &call_headers(FETCH, None), b"").await;
    assert!(!client.first_data(101).await.data.is_empty());
}

/// Covers BG-09.
#[tokio::test]
async fn large_and_compressed_messages_are_refused_from_their_announcement() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    for (stream, announced) in [(1_u32, 4 * 1024 * 1024 + 1_u32), (3, 1 << 30), (5, u32::MAX)] {
        client.open(stream, &call_headers(FETCH, None)).await;
        let mut prefix = vec![0];
        prefix.extend_from_slice(&announced.to_be_bytes());
        client.send(&frame(DATA, 0, stream, &prefix)).await;
        assert_eq!(client.end(stream).await.grpc_status(), Some("8"));
    }
    client.open(7, &call_headers(FETCH, None)).await;
    client
        .send(&frame(DATA, END_STREAM, 7, &[1, 0, 0, 0, 2, 0x1f, 0x8b]))
        .await;
    assert!(!matches!(
        client.end(7).await.grpc_status(),
        None | Some("0" | "1")
    ));
    let mut headers = call_headers(FETCH, None);
    headers.push((b"grpc-encoding".to_vec(), b"gzip".to_vec()));
    client.open(9, &headers).await;
    client
        .send(&frame(DATA, END_STREAM, 9, &[1, 0, 0, 0, 2, 0x1f, 0x8b]))
        .await;
    assert_eq!(client.end(9).await.grpc_status(), Some("12"));
}

/// Covers BG-10.
#[tokio::test]
async fn two_messages_or_none_do_not_hang() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    client.open(1, &call_headers(FETCH, None)).await;
    client
        .send(&frame(
            DATA,
            END_STREAM,
            1,
            &[message(b""), message(b"")].concat(),
        ))
        .await;
    let answer = client.first_data(1).await;
    assert!(!answer.data.is_empty() || answer.grpc_status().is_some());
    client.open(3, &call_headers(FETCH, None)).await;
    client.send(&frame(DATA, END_STREAM, 3, b"")).await;
    assert!(!matches!(
        client.end(3).await.grpc_status(),
        None | Some("0" | "1")
    ));
}

/// Covers BG-19, RS-06.
#[tokio::test]
async fn a_clients_own_deadline_is_honoured_and_never_becomes_cancelled() {
    let socket = Socket::pending();
    let mut client = RawClient::connect(&socket.path).await;
    for (index, (value, status)) in [
        ("0S", "4"),
        ("1n", "4"),
        ("5m", "4"),
        ("99999999H", "14"),
        ("", "3"),
        ("5", "3"),
        ("S", "3"),
        ("-1S", "3"),
        ("123456789S", "3"),
        ("1x", "3"),
        ("5\u{00e9}", "3"),
    ]
    .iter()
    .enumerate()
    {
        let stream = 1 + 2 * index as u32;
        let mut headers = call_headers(FETCH, None);
        headers.push((b"grpc-timeout".to_vec(), value.as_bytes().to_vec()));
        client.call(stream, &headers, b"").await;
        assert_eq!(client.end(stream).await.grpc_status(), Some(*status), "{value}");
    }
}

/// Covers BG-05.
#[tokio::test]
async fn header_blocks_in_any_legal_shape_are_served() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    let block = client.encode(&call_headers(FETCH, Some(b"/run/a.sock")));
    // Padded, with priority, in three fragments, the middle one empty.
    let mut first = vec![4, 0, 0, 0, 0, 16];
    first.extend_from_slice(&block[..7]);
    first.extend_from_slice(&[0; 4]);
    client.send(&frame(HEADERS, PADDED | PRIORITY, 1, &first)).await;
    client.send(&frame(CONTINUATION, 0, 1, b"")).await;
    client
        .send(&frame(CONTINUATION, END_HEADERS, 1, &block[7..]))
        .await;
    client
        .send(&frame(
            DATA,
            END_STREAM | PADDED,
            1,
            &[vec![3], message(b""), vec![0; 3]].concat(),
        ))
        .await;
    assert!(!client.first_data(1).await.data.is_empty());
}

/// Covers EP-27, BG-06.
#[tokio::test]
async fn a_breach_of_framing_ends_its_connection_with_goaway_and_no_other() {
    let socket = Socket::ready();
    let mut bystander = RawClient::connect(&socket.path).await;
    bystander.call(1, &call_headers(FETCH, None), b"").await;
    assert!(!bystander.first_data(1).await.data.is_empty());

    let continuations: Vec<u8> = std::iter::once(frame(HEADERS, 0, 1, b""))
        .chain((0..9).map(|_| frame(CONTINUATION, 0, 1, b"")))
        .flatten()
        .collect();
    // A long field put into the table, then named by a thousand one-byte references.
    let mut bomb = vec![0x40, 1, b'x', 0x7f, 0x81, 0x1e];
    bomb.extend(std::iter::repeat_n(b'y', 127 + 1 + 30 * 128));
    bomb.extend(std::iter::repeat_n(0xbe, 1000));
    let breaches = [
        frame(HEADERS, END_HEADERS, 0, b""),
        frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0]),
        frame(HEADERS, END_HEADERS | PADDED, 1, b""),
        frame(HEADERS, END_HEADERS | PRIORITY, 1, &[0, 0]),
        frame(HEADERS, END_HEADERS, 1, &[0x80]),
        frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        frame(HEADERS, END_HEADERS, 1, &[0x3f, 0xff, 0x7f]),
        frame(
            HEADERS,
            END_HEADERS,
            1,
            &[0x00, 0x85, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        frame(HEADERS, END_HEADERS, 1, &bomb),
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        [frame(HEADERS, 0, 1, b""), frame(DATA, 0, 1, b"")].concat(),
        [frame(HEADERS, 0, 1, b""), frame(CONTINUATION, 0, 3, b"")].concat(),
        [
            frame(HEADERS, 0, 1, &[0; 16000]),
            frame(CONTINUATION, 0, 1, &[0; 1000]),
        ]
        .concat(),
        frame(DATA, 0, 1, &[0; 16 * 1024 + 1]),
        continuations,
    ];
    for breach in breaches {
        let mut client = RawClient::connect(&socket.path).await;
        client.send(&breach).await;
        client.until_closed().await;
        assert_eq!(client.goaway, Some(1), "{:?}", &breach[..breach.len().min(30)]);
    }
    let mut client = RawClient::silent(&socket.path).await;
    client.send(PREFACE).await;
    client.send(&frame(HEADERS, END_HEADERS, 1, b"")).await;
    client.until_closed().await;

    bystander.call(3, &call_headers(FETCH, None), b"").await;
    assert!(!bystander.first_data(3).await.data.is_empty());
}

/// Covers BG-06.
#[tokio::test]
async fn a_request_in_single_bytes_is_served() {
    let socket = Socket::ready();
    let mut client = RawClient::silent(&socket.path).await;
    let block = client.encode(&call_headers(FETCH, Some(b"%2Frun%2Fa.sock")));
    let bytes = [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &block),
        frame(DATA, END_STREAM, 1, &message(b"")),
    ]
    .concat();
    for byte in bytes {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(!client.first_data(1).await.data.is_empty());
}

/// Covers EP-27.
#[tokio::test]
async fn ordinary_keep_alive_pings_are_answered() {
    let socket = Socket::ready();
    let (mut request, connection) =
        h2::client::handshake(tokio::net::UnixStream::connect(&socket.path).await.unwrap())
            .await
            .unwrap();
    let mut connection = connection;
    let mut pings = connection.ping_pong().unwrap();
    let driver = tokio::spawn(connection);
    for _ in 0..20 {
        soon(pings.ping(h2::Ping::opaque())).await.unwrap();
    }
    let mut call = http::Request::post("http://localhost/SpiffeWorkloadAPI/FetchX509SVID");
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("workload.spiffe.io", "true"),
        ("te", "trailers"),
    ] {
        call = call.header(name, value);
    }
    let (response, mut body) = request.send_request(call.body(()).unwrap(), false).unwrap();
    body.send_data(message(b"").into(), true).unwrap();
    let mut response = soon(response).await.unwrap();
    assert!(soon(response.body_mut().data()).await.unwrap().is_ok());

    // BG-18: a reset drops the subscription, and the connection lives on.
    socket.subscribed(1).await;
    body.send_reset(h2::Reason::CANCEL);
    drop(response);
    socket.subscribed(0).await;
    soon(pings.ping(h2::Ping::opaque())).await.unwrap();
    driver.abort();
    tokio::time::timeout(Duration::from_secs(1), driver)
        .await
        .unwrap()
        .unwrap_err();
}
