//! How sockets end.

use std::sync::atomic::Ordering;

use signet_proto::workload::X509svidRequest;
use tonic::Code;

use crate::support::raw::RawClient;
use crate::support::{
    PATIENCE, SOON, Socket, ended_with, endpoint, ready, settings, soon, volume, with_header,
};

/// Covers EP-21, RS-04.
#[tokio::test]
async fn closing_a_socket_ends_its_streams_first_each_with_unavailable() {
    let mut socket = Socket::ready();
    let mut client = socket.client().await;
    let mut busy = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(busy.message()).await.unwrap().unwrap();
    let mut other = socket.client().await;
    let mut idle = other
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    let closing = tokio::spawn(socket.served.take().unwrap().close());
    soon(async {
        while let Ok(message) = busy.message().await {
            assert!(message.is_some(), "a stream ended with OK");
        }
    })
    .await;
    soon(idle.message()).await.unwrap();
    ended_with(soon(idle.message()).await, Code::Unavailable);
    soon(closing).await.unwrap();
    assert!(tokio::net::UnixStream::connect(&socket.path).await.is_err());
    socket.subscribed(0).await;
}

/// Covers RS-04.
#[tokio::test]
async fn a_waiting_stream_does_not_hold_up_the_end() {
    let pending = signet_agent::testing::WorkloadState::Pending { problem: None };
    let socket = Socket::patient(SOON * 100, pending);
    let mut client = socket.client().await;
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    socket.subscribed(1).await;
    let endpoint = socket.endpoint.clone();
    let closing = tokio::spawn(async move { endpoint.shut_down().await });
    ended_with(soon(stream.message()).await, Code::Unavailable);
    soon(closing).await.unwrap();
}

/// Covers RS-04, BG-06.
#[tokio::test]
async fn clients_that_do_nothing_cannot_hold_up_the_end() {
    let mut socket = Socket::ready();
    let mut silent = RawClient::silent(&socket.path).await;
    let mut idle = RawClient::connect(&socket.path).await;
    idle.call(
        1,
        &crate::support::raw::call_headers("/grpc.health.v1.Health/Watch", None),
        b"",
    )
    .await;
    idle.first_data(1).await;
    soon(socket.served.take().unwrap().close()).await;
    silent.until_closed().await;
    idle.until_closed().await;
}

/// Covers EP-24.
#[tokio::test]
async fn a_second_endpoint_takes_over_a_stale_socket() {
    let mut socket = Socket::ready();
    soon(socket.served.take().unwrap().close()).await;
    assert!(socket.path.exists());
    let listener = signet_runtime::uds::bind(&socket.path, 0o777, None, None).unwrap();
    let again = endpoint(&socket.script, &socket.clock, PATIENCE, settings());
    let served = again.serve(listener, volume());
    let mut client = socket.client().await;
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert!(soon(stream.message()).await.unwrap().is_some());
    socket.say(ready(crate::support::example()));
    assert_eq!(socket.script.asked.load(Ordering::SeqCst), 1);
    soon(served.close()).await;
}
