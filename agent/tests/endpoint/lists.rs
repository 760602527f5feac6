//! Lists that everybody is told are held once, whoever takes them or does not.

use bytes::Bytes;
use signet_agent::testing::{Lists, WorkloadState};
use signet_proto::workload::X509svidRequest;

use crate::support::raw::{PREFACE, RawClient, SETTINGS, WINDOW_UPDATE, call_headers, frame};
use crate::support::{Socket, example, ready, serve_pod, settings, soon, volume, with_header};

const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// Nearly as long as the server makes them.
const LONG: usize = 2_600_000;

/// What an agent may grow to (KiB).
const MOST: u64 = 128 << 10;

fn with_list(length: usize, mark: u8) -> WorkloadState {
    let mut context = example();
    context.crls = Lists::new(vec![Bytes::from(vec![mark; length])]);
    ready(context)
}

/// A client that would be sent everything at once, and reads none of it.
async fn unread(path: &std::path::Path, calls: u32) -> RawClient {
    let mut client = RawClient::silent(path).await;
    client.send(PREFACE).await;
    let window = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    client.send(&window).await;
    client
        .send(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]))
        .await;
    for call in 0..calls {
        client.call(2 * call + 1, &call_headers(FETCH, None), b"").await;
    }
    client
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In a process of its own: what other tests take is not this one's. Covers BG-17, EP-27.
#[test]
fn lists_that_fifty_pods_do_not_take_keep_no_further_pod_waiting() {
    const NAME: &str = "lists::measured_by_lists_that_fifty_pods_do_not_take";
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let status = alone.args([NAME, "--exact", "--ignored", "--nocapture"]).status();
    assert!(status.unwrap().success());
}

#[tokio::test]
#[ignore = "run by the test above, in a process of its own"]
async fn measured_by_lists_that_fifty_pods_do_not_take() {
    signet_runtime::limits::raise_open_files().unwrap();
    let socket = Socket::with(settings(), volume(), with_list(LONG, 0x30));
    let before = resident_kib();
    let (mut sockets, mut clients) = (Vec::new(), Vec::new());
    for number in 0..50 {
        let (path, served) = serve_pod(&socket, &format!("greedy-{number}"));
        sockets.push(served);
        for _ in 0..2 {
            clients.push(unread(&path, 4).await);
        }
    }
    socket.subscribed(50 * 2 * 4).await;
    let mut client = socket.client().await;
    let request = with_header(X509svidRequest {});
    let mut stream = client.fetch_x509svid(request).await.unwrap().into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.crl[0].len(), LONG);
    let most = resident_kib();
    println!("{before} KiB before, {most} KiB with 400 streams that are not read");
    assert!(most < MOST, "it grew to {most} KiB");
}

/// Covers BG-17, EP-27.
#[tokio::test]
async fn a_client_that_takes_nothing_while_lists_are_replaced_many_times_is_told_to_call_again() {
    let socket = Socket::with(settings(), volume(), with_list(LONG, 0));
    // No window is ever given, so 64 KiB arrive and the rest is read when there is one.
    let mut behind = RawClient::connect(&socket.path).await;
    behind.call(1, &call_headers(FETCH, None), b"").await;
    behind.until(1, |answer| answer.data.len() == 65_535).await;
    let mut others = Vec::new();
    for mark in 1..=8 {
        socket.say(with_list(LONG, mark));
        let mut other = RawClient::connect(&socket.path).await;
        other.call(1, &call_headers(FETCH, None), b"").await;
        other.until(1, |answer| answer.data.len() == 65_535).await;
        others.push(other);
    }
    let window = |stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0x7f, 0xff, 0xff]);
    behind.send(&[window(0), window(1)].concat()).await;
    let answer = behind.end(1).await;
    assert_eq!(answer.grpc_status(), Some("14"), "{:?}", answer.headers);
    assert!(answer.data.len() < LONG);
    let first = &mut others[0];
    first.send(&[window(0), window(1)].concat()).await;
    let answer = first.until(1, |answer| answer.data.len() > LONG).await;
    assert!(answer.data[100_000..LONG].iter().all(|byte| *byte == 1));
}
