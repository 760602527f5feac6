//! Who connects to a shared socket, and what a socket is used for.

use std::os::fd::AsRawFd;
use std::time::Duration;

use signet_agent::testing::{Caller, Origin, Settings};
use signet_proto::workload::X509svidRequest;
use tokio::sync::watch;

use crate::support::raw::{RawClient, call_headers};
use crate::support::{Socket, example, ready, settings, soon, with_header};

/// Covers EP-08, EP-26.
#[tokio::test]
async fn the_shared_socket_knows_the_process_that_connected() {
    let socket = Socket::with(settings(), Origin::Shared, ready(example()));
    let mut client = socket.client().await;
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    let callers = socket.script.callers.lock().unwrap();
    let Caller::Peer(peer) = &callers[0] else {
        panic!("not a peer: {callers:?}")
    };
    assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
    assert_eq!(peer.uid, nix::unistd::getuid().as_raw());
    assert_eq!(peer.gid, nix::unistd::getgid().as_raw());
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", peer.pidfd.as_raw_fd())).unwrap();
    assert!(
        info.lines().any(|line| line == format!("Pid:\t{}", peer.pid)),
        "{info}"
    );
}

/// Covers BG-17.
#[tokio::test]
async fn on_the_shared_socket_a_user_is_one_caller() {
    let bounds = Settings {
        max_connections_per_caller: 1,
        ..settings()
    };
    let socket = Socket::with(bounds, Origin::Shared, ready(example()));
    let mut first = RawClient::connect(&socket.path).await;
    first
        .call(1, &call_headers("/SpiffeWorkloadAPI/FetchX509SVID", None), b"")
        .await;
    assert!(!first.first_data(1).await.data.is_empty());
    RawClient::connect(&socket.path).await.until_closed().await;
}

/// Covers BG-17, RS-15.
#[tokio::test]
async fn a_storm_of_short_calls_is_served() {
    let socket = Socket::ready();
    for _ in 0..50 {
        let mut client = RawClient::connect(&socket.path).await;
        client
            .call(
                1,
                &call_headers("/SpiffeWorkloadAPI/FetchX509SVID", Some(b"%2Fa.sock")),
                b"",
            )
            .await;
        assert!(!client.first_data(1).await.data.is_empty());
    }
    socket.subscribed(0).await;
}

/// Runs itself again with few file descriptors, so that the other tests keep theirs; and with few seconds of the
/// processor, because whoever tries without a pause never lets the paused time pass.
///
/// Covers BG-17.
#[test]
fn without_file_descriptors_accepting_pauses_and_then_goes_on() {
    let inner = "sockets::accepting_survives_a_lack_of_file_descriptors";
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -n 64 && ulimit -t 20 && exec \"$0\" --ignored --exact \"$1\"",
        ])
        .arg(std::env::current_exe().unwrap())
        .arg(inner)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Counts the warnings of this process, and lets somebody wait for one.
struct Warnings(watch::Sender<usize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.send_modify(|count| *count += 1);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
#[ignore = "takes all file descriptors of its process; started by the test above"]
async fn accepting_survives_a_lack_of_file_descriptors() {
    let (sender, mut warnings) = watch::channel(0);
    let counting = tracing::subscriber::set_default(Warnings(sender));
    let socket = Socket::ready();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    drop(hoard.pop());
    let mut client = RawClient::connect(&socket.path).await;
    client
        .call(1, &call_headers("/SpiffeWorkloadAPI/FetchX509SVID", None), b"")
        .await;
    soon(warnings.wait_for(|count| *count > 0)).await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(60)).await;
    tokio::time::resume();
    drop(hoard);
    assert!(!client.first_data(1).await.data.is_empty());
    // Pauses grow to a second; failures 1, 2, 4 … 64 are told.
    assert_eq!(*warnings.borrow(), 7, "64 to 127 attempts in a minute");
    drop(counting);
}

const AS_A_COPY: &str = "SIGNET_TEST_AS_A_COPY";

/// Whoever holds a connection gets nothing more once the process that made it is not what it was. Here the executable is written to, which no test
/// can do to its own: so a copy of this program does it to itself.
///
/// Covers EP-26, BG-16.
#[tokio::test]
async fn a_stream_ends_when_its_caller_is_not_what_connected() {
    if std::env::var_os(AS_A_COPY).is_some() {
        stream_to_a_copy_that_changes().await;
    } else {
        run_a_copy("sockets::a_stream_ends_when_its_caller_is_not_what_connected");
    }
}

/// Runs a test again, in a copy of this program.
fn run_a_copy(test: &str) {
    let directory = signet_testkit::folder();
    let copy = directory.path().join("copy");
    // By another process: children of other tests would inherit the open copy, and nothing that is open for writing can be executed.
    let mut cp = std::process::Command::new("cp");
    cp.arg(std::env::current_exe().unwrap()).arg(&copy);
    assert!(cp.status().unwrap().success());
    let mut command = std::process::Command::new(copy);
    command.args(["--exact", test]).env(AS_A_COPY, "1");
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
}

async fn stream_to_a_copy_that_changes() {
    let socket = Socket::with(settings(), Origin::Shared, ready(example()));
    let mut client = socket.client().await;
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    let own = std::env::current_exe().unwrap();
    std::fs::set_permissions(&own, std::fs::metadata(&own).unwrap().permissions()).unwrap();
    let mut renewed = example();
    renewed
        .federated_bundles
        .insert("spiffe://b.example".to_owned(), bytes::Bytes::from_static(b"b"));
    socket.script.states.send_replace(ready(renewed));
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().contains("connect again"), "{status}");
    let refused = client.fetch_x509svid(with_header(X509svidRequest {})).await;
    let mut refused = refused.unwrap().into_inner();
    assert_eq!(
        soon(refused.message()).await.unwrap_err().code(),
        tonic::Code::Unavailable
    );
}
