use std::time::Duration;

use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use signet_certs::id::SpiffeId;
use signet_runtime::refusals::Refusals;
use tonic::Code;

use super::*;
use crate::api::allowance::{Allowances, Line, Shape};

fn agent(n: usize) -> Line {
    let id = SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/node-{n}")).unwrap();
    Line::new(Caller::Agent(id))
}

fn door() -> Allowances {
    Allowances::new(Refusals::untold("a test's"))
}

fn bytes(count: usize) -> Body {
    Body::new(Full::new(Bytes::from(vec![7; count])))
}

fn answer(door: &Allowances, line: &Line, shape: Shape, body: Body) -> Body {
    let granted = door.grant(line.clone()).unwrap();
    let granted = door.grant_stream(granted, shape).unwrap();
    door.answer(granted, shape, http::Response::new(body)).into_body()
}

const ONE: Shape = Shape::One(usize::MAX);

async fn data(body: &mut Body) -> usize {
    body.frame().await.unwrap().unwrap().into_data().unwrap().len()
}

/// The status that a body ends with.
async fn last(body: &mut Body) -> Status {
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    Status::from_header_map(&trailers).unwrap()
}

/// Gives what it is told to, and says when it is gone.
fn shared(frame: Bytes) -> (Body, Weak<()>) {
    let token = Arc::new(());
    let weak = Arc::downgrade(&token);
    let frames = futures_util::stream::unfold((Some(frame), token), |(frame, token)| async move {
        match frame {
            Some(frame) => Some((Ok::<_, Status>(Frame::data(frame)), (None, token))),
            None => std::future::pending().await,
        }
    });
    let boxed: UnsyncBoxBody<Bytes, Status> = StreamBody::new(frames).boxed_unsync();
    (Body::new(boxed), weak)
}

#[tokio::test(start_paused = true)]
async fn little_of_an_answer_waits_in_http2_and_a_reader_that_takes_none_is_found_out() {
    let (door, line) = (door(), agent(1));
    let mut body = answer(&door, &line, ONE, bytes(3 * PIECE + 1));
    assert_eq!(data(&mut body).await, PIECE);
    for _ in 0..2 {
        // A slow reader is no stuck one.
        tokio::time::advance(STALL - Duration::from_secs(1)).await;
        assert!(!line.is_stuck());
        assert_eq!(data(&mut body).await, PIECE);
    }
    tokio::time::advance(STALL).await;
    assert!(line.is_stuck());
    assert_eq!(data(&mut body).await, 1);
    assert!(body.frame().await.is_none());
    tokio::time::advance(STALL).await;
    assert!(!line.is_stuck(), "nothing is left to be taken");
    let unread = answer(&door, &line, ONE, bytes(1));
    tokio::time::advance(2 * STALL).await;
    assert!(!line.is_stuck(), "nothing was handed on yet");
    drop(unread);
}

#[tokio::test]
async fn answers_of_one_caller_count_until_they_are_taken() {
    let (door, line) = (door(), agent(1));
    let mut untaken = Vec::new();
    let refused = loop {
        let mut body = answer(&door, &line, ONE, bytes(1 << 20));
        let frame = body.frame().await.unwrap().unwrap();
        match frame.into_trailers() {
            Ok(trailers) => break Status::from_header_map(&trailers).unwrap(),
            Err(_) => untaken.push(body),
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(untaken.len(), 12);
    let mut neighbour = answer(&door, &agent(2), ONE, bytes(1 << 20));
    assert_eq!(data(&mut neighbour).await, PIECE, "another has its own");
    while untaken[0].frame().await.is_some() {}
    let mut body = answer(&door, &line, ONE, bytes(1 << 20));
    assert_eq!(data(&mut body).await, PIECE, "what was taken counts no more");
}

#[tokio::test]
async fn a_second_trust_stream_ends_the_first_with_all_that_waits_in_it() {
    let (door, line) = (door(), agent(1));
    let (first, first_alive) = shared(Bytes::from(vec![7; 1 << 20]));
    let mut first = answer(&door, &line, Shape::Trust, first);
    assert_eq!(data(&mut first).await, PIECE);
    // It is not read on.
    let (second, second_alive) = shared(Bytes::from_static(b"state"));
    let mut second = answer(&door, &line, Shape::Trust, second);
    assert!(
        first_alive.upgrade().is_none(),
        "nothing is held for a stream that is over"
    );
    assert_eq!(data(&mut second).await, 5);
    let (of_another, _alive) = shared(Bytes::from_static(b"state"));
    let _of_another = answer(&door, &agent(2), Shape::Trust, of_another);
    let ended = last(&mut first).await;
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert!(first.frame().await.is_none());
    drop(first);
    assert!(second_alive.upgrade().is_some(), "the newest goes on");
    let (third, _alive) = shared(Bytes::new());
    let waiting = tokio::spawn(async move { last(&mut second).await });
    tokio::task::yield_now().await;
    let _third = answer(&door, &line, Shape::Trust, third);
    assert_eq!(
        waiting.await.unwrap().code(),
        Code::Unavailable,
        "who waits is woken"
    );
}

#[tokio::test]
async fn whoever_reads_little_takes_the_place_of_whoever_reads_much() {
    let door = door();
    let public = Shape::Public(1000);
    let mut readers: Vec<Body> = (0..8)
        .flat_map(|n| {
            let line = agent(n);
            (0..4)
                .map(|_| answer(&door, &line, public, bytes(1 << 20)))
                .collect::<Vec<_>>()
        })
        .collect();
    let refused = door.grant_stream(door.grant(agent(0)).unwrap(), public);
    assert_eq!(refused.err().unwrap().code(), Code::ResourceExhausted);
    let mut late = answer(&door, &agent(9), public, bytes(1 << 20));
    assert_eq!(data(&mut late).await, PIECE);
    tokio::task::yield_now().await;
    let mut ended = 0;
    for body in &mut readers {
        ended += usize::from(body.frame().await.unwrap().unwrap().is_trailers());
    }
    assert_eq!(ended, 1);
}

#[tokio::test]
async fn a_reader_gives_its_place_back_at_the_end() {
    let (door, line) = (door(), agent(1));
    let public = Shape::Public(1000);
    let mut readers: Vec<Body> = (0..4).map(|_| answer(&door, &line, public, bytes(1))).collect();
    let room = || {
        door.grant_stream(door.grant(line.clone()).unwrap(), public)
            .is_ok()
    };
    assert_eq!(data(&mut readers[0]).await, 1);
    tokio::task::yield_now().await;
    assert!(!room(), "it is still being read");
    drop(readers.remove(0));
    tokio::task::yield_now().await;
    assert!(room());
}

#[test]
fn an_answer_that_is_a_status_alone_ends_with_its_head() {
    let (door, line) = (door(), agent(1));
    let mut context = Context::from_waker(Waker::noop());
    let mut body = answer(&door, &line, ONE, Body::empty());
    assert!(body.is_end_stream());
    assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
}

/// The neighbour may be behind the same address.
#[tokio::test(start_paused = true)]
async fn a_stranger_makes_so_many_calls_on_a_connection_and_no_other_waits_for_it() {
    let door = door();
    let stranger = || Line::new(Caller::Stranger(std::net::IpAddr::from([10, 0, 0, 1]).into()));
    let made = |line: &Line| (0..1000).filter(|_| door.grant(line.clone()).is_ok()).count();
    let flood = stranger();
    assert_eq!(made(&flood), 16);
    let refused = door.grant(flood.clone()).err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.metadata().get("retry-after-ms").is_some());
    assert!(door.grant(stranger()).is_ok() && door.grant(agent(1)).is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(made(&flood), 8);
}
