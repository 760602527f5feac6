//! What time alone changes about secrets.

use std::time::Duration;

use signet_agent::testing::X509Context;
use signet_testkit::now;
use tonic::Code;

use super::{Facts, Proxy, asking, delta, names, taking};
use crate::support::{SOON, Socket, ready, soon};

const MIX: [&str; 2] = ["ROOTCA", "default"];

/// One certificate, that is valid from so long after the clock's beginning on.
fn early(facts: &Facts, wait: Duration) -> X509Context {
    let mut context = facts.context(1);
    context.svids.truncate(1);
    context.svids[0].not_before = now() + wait;
    context
}

/// Trust comes at once, the certificate when its time has come, though nobody says anything then.
///
/// Covers X5S-12.
#[tokio::test]
async fn a_certificate_from_the_future_comes_at_its_time() {
    let facts = Facts::new();
    let socket = Socket::patient(SOON, ready(early(&facts, Duration::from_millis(500))));
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(asking(&MIX)).await;
    let mut by_delta = delta::Proxy::of(&socket).await;
    by_delta.asks(delta::subscribing(&MIX)).await;
    let answer = proxy.hears().await;
    assert_eq!(names(&answer), ["ROOTCA"]);
    assert_eq!(delta::names(&by_delta.hears().await), ["ROOTCA"]);
    proxy.asks(taking(&answer, &MIX)).await;
    socket.clock.set_offset(1);
    assert_eq!(names(&proxy.hears().await), MIX);
    assert_eq!(delta::names(&by_delta.hears().await), ["default"]);
}

/// Whoever asks for it alone waits for it.
///
/// Covers X5S-12.
#[tokio::test]
async fn whoever_asks_for_a_certificate_from_the_future_alone_waits_for_it() {
    let facts = Facts::new();
    let socket = Socket::patient(SOON, ready(early(&facts, Duration::from_millis(500))));
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(asking(&["default"])).await;
    socket.round_trip().await;
    socket.clock.set_offset(1);
    assert_eq!(names(&proxy.hears().await), ["default"]);
}

/// What had it keeps it, for it is told of nothing; whoever comes later hears why there is none, and has his trust in any case.
///
/// Covers X5S-12, BG-22.
#[tokio::test]
async fn a_certificate_that_has_ended_is_not_sent_and_holds_back_no_trust() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut had_it = Proxy::of(&socket).await;
    had_it.asks(asking(&MIX)).await;
    let answer = had_it.hears().await;
    assert_eq!(names(&answer), MIX);
    had_it.asks(taking(&answer, &MIX)).await;
    had_it.hears_nothing(&socket).await;

    socket.clock.set_offset(24 * 3600);
    had_it.hears_nothing(&socket).await;
    let mut alone = Proxy::of(&socket).await;
    alone.asks(asking(&["default"])).await;
    let status = alone.ends().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("expired"), "{status}");
    let mut mixed = Proxy::of(&socket).await;
    mixed.asks(asking(&MIX)).await;
    assert_eq!(names(&mixed.hears().await), ["ROOTCA"]);
    let mut by_delta = delta::Proxy::of(&socket).await;
    by_delta.asks(delta::subscribing(&MIX)).await;
    assert_eq!(delta::names(&by_delta.hears().await), ["ROOTCA"]);

    // A clock that was wrong is put right: nothing has been lost.
    socket.clock.set_offset(0);
    let mut later = Proxy::of(&socket).await;
    later.asks(asking(&MIX)).await;
    assert_eq!(names(&soon(later.hears()).await), MIX);
}
