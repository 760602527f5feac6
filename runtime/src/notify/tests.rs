use std::io::ErrorKind;
use std::path::Path;

use super::*;
use crate::ready::Reason;

const AWAY: Reason = Reason {
    name: "server_away",
    level: Level::Issue,
    meaning: "",
};
const OLD: Reason = Reason {
    name: "lists_old",
    level: Level::Serve,
    meaning: "",
};
const END: Reason = Reason {
    name: STOPPING,
    level: Level::Serve,
    meaning: "",
};
const TABLE: &[Reason] = &[AWAY, OLD, END];

/// Where TMPDIR leads a socket's path could be too long.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/tmp").unwrap()
}

fn listening(path: &Path) -> StdDatagram {
    let socket = StdDatagram::bind(path).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

async fn heard(socket: &StdDatagram) -> String {
    let mut buffer = [0; 4096];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => return String::from_utf8(buffer[..length].to_vec()).unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn systemd_hears_that_the_program_serves_what_is_in_the_way_and_that_it_ends() {
    let folder = folder();
    let path = folder.path().join("notify");
    let socket = listening(&path);
    let readiness = Readiness::new(TABLE);
    let notify = Notify::at(path.to_str().unwrap()).unwrap();
    let follow = tokio::spawn(notify.follow(readiness.clone()));
    assert_eq!(heard(&socket).await, "READY=1\nSTATUS=ready");
    let away = readiness.condition(AWAY);
    away.set(Some("refused\nMAINPID=1".to_owned()));
    assert_eq!(
        heard(&socket).await,
        "READY=1\nSTATUS=serves, not ready to issue: server_away: refused MAINPID=1"
    );
    let old = readiness.hold(OLD);
    assert_eq!(
        heard(&socket).await,
        "READY=1\nSTATUS=not ready: lists_old (and 1 more)"
    );
    old.done();
    away.set(None);
    while heard(&socket).await != "READY=1\nSTATUS=ready" {}
    let _stopping = readiness.hold(END);
    assert_eq!(heard(&socket).await, "STOPPING=1\nSTATUS=stopping");
    follow.await.unwrap();
}

/// What has nothing to serve yet is no start that hangs without a word.
#[tokio::test]
async fn systemd_hears_what_a_program_waits_for_that_does_not_serve_yet() {
    let folder = folder();
    let path = folder.path().join("notify");
    let socket = listening(&path);
    let readiness = Readiness::new(TABLE);
    let old = readiness.hold(OLD);
    let notify = Notify::at(path.to_str().unwrap()).unwrap();
    let follow = tokio::spawn(notify.follow_behind(readiness.clone(), OLD.name));
    assert_eq!(heard(&socket).await, "STATUS=starts, and waits: lists_old");
    let away = readiness.condition(AWAY);
    away.set(Some("refused".to_owned()));
    let waits = "STATUS=starts, and waits: server_away: refused (and 1 more)";
    assert_eq!(heard(&socket).await, waits);
    old.done();
    while heard(&socket).await != "READY=1\nSTATUS=serves, not ready to issue: server_away: refused" {}
    // It serves for good.
    let _old = readiness.hold(OLD);
    assert_eq!(
        heard(&socket).await,
        "READY=1\nSTATUS=not ready: lists_old (and 1 more)"
    );
    follow.abort();
}

#[tokio::test]
async fn a_name_without_a_file_is_heard_as_well() {
    let name = format!("signet-notify-{}", std::process::id());
    let socket = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let notify = Notify::at(&format!("@{name}")).unwrap();
    let follow = tokio::spawn(notify.follow(Readiness::new(TABLE)));
    assert_eq!(heard(&socket).await, "READY=1\nSTATUS=ready");
    follow.abort();
}

/// Nobody reads: the first message that finds no room waits, and who reads at last hears how things are by then.
#[tokio::test(start_paused = true)]
async fn a_socket_that_is_full_holds_nobody_up_and_is_told_once_there_is_room() {
    let folder = folder();
    let path = folder.path().join("notify");
    let socket = listening(&path);
    let filler = StdDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", &path).is_ok() {}
    let readiness = Readiness::new(TABLE);
    let away = readiness.hold(AWAY);
    let notify = Notify::at(path.to_str().unwrap()).unwrap();
    let follow = tokio::spawn(notify.follow(readiness.clone()));
    sleep(ROOM * 3).await;
    assert!(!follow.is_finished());
    away.done();
    while heard(&socket).await != "READY=1\nSTATUS=ready" {
        sleep(Duration::from_secs(1)).await;
    }
    follow.abort();
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_was_away_is_told_when_it_is_back() {
    let folder = folder();
    let path = folder.path().join("notify");
    let notify = Notify::at(path.to_str().unwrap()).unwrap();
    let follow = tokio::spawn(notify.follow(Readiness::new(TABLE)));
    sleep(AGAIN * 3).await;
    let socket = listening(&path);
    sleep(AGAIN * 2).await;
    assert_eq!(heard(&socket).await, "READY=1\nSTATUS=ready");
    follow.abort();
}

#[tokio::test]
async fn what_names_no_socket_is_refused_and_nobody_is_told_nothing() {
    for name in [
        "",
        "@",
        "run/notify",
        "vsock:2:1234",
        &format!("/{}", "x".repeat(200)),
    ] {
        assert!(Notify::at(name).is_err(), "{name}");
    }
    Notify::nobody().follow(Readiness::new(TABLE)).await;
}

#[test]
fn a_line_is_short_whatever_a_reason_says() {
    let long = Standing {
        reason: AWAY,
        detail: "x".repeat(10_000),
    };
    assert!(message(&[long], true).len() < MAX_STATUS + 50);
}
