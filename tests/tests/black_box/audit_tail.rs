//! The audit log of a running server, for an admin who looks on.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use signet_tests::{
    domain::{Domain, Plan},
    process::{Process, binary, unread_pipe},
    wait::eventually,
};
use tokio::time::Instant;

use super::support::{audited, id_of, identity_of, workload_svids};

/// How soon a line is seen.
const SOON: Duration = Duration::from_secs(1);

fn following(domain: &Domain, args: &[&str]) -> Process {
    let socket = domain.server.admin_socket();
    let args = [&["audit", "tail", "--follow", "-o", "json"], args].concat();
    let env = [("SIGNET_ADMIN_SOCKET", socket.to_str().unwrap())];
    Process::start("audit tail", &binary("signet-server"), args, &env).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits for a line of this event, and says when it was seen.
async fn seen(process: &Process, event: &str) -> (Vec<Value>, Instant) {
    eventually(event, async || {
        let lines = lines(&process.stdout());
        let is_there = lines.iter().any(|line| line["event"] == event);
        is_there.then(|| (lines, Instant::now()))
    })
    .await
}

async fn last(domain: &Domain, args: &[&str]) -> Vec<Value> {
    let args = [&["audit", "tail", "-o", "json"], args].concat();
    let finished = domain.server.command(&args).await.unwrap();
    assert!(finished.status.success(), "{}", finished.stderr);
    lines(&finished.stdout)
}

#[tokio::test]
async fn whoever_looks_on_sees_what_his_filter_wants_within_a_second() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let mut of_id = following(&domain, &["--spiffe-id", "/ns/shop/sa/front", "--last", "0"]);
    let of_pod = following(&domain, &["--pod", "shop/front"]);
    audited(&domain, &["TailAudit"]).await;
    identity_of(&domain, &agent, "other").await;
    identity_of(&domain, &agent, "front").await;
    let issued_at = Instant::now();
    let (_, at) = seen(&of_id, "issued").await;
    assert!(at.duration_since(issued_at) < SOON);
    seen(&of_pod, "issued").await;

    let revoked = domain
        .server
        .admin(&["revoke", "--spiffe-id", "/ns/shop/sa/front"])
        .await
        .unwrap();
    let revoked_at = Instant::now();
    let (seen_lines, at) = seen(&of_id, "revoked").await;
    assert!(at.duration_since(revoked_at) < SOON);
    let about = [id_of("front"), "/ns/shop/sa/front".to_owned()];
    for line in &seen_lines {
        let names = |member: &str| about.iter().any(|id| line[member] == **id);
        assert!(names("spiffe_id") || names("target"), "{line}");
    }
    // Byte for byte as the log has them.
    let log = fs::read_to_string(domain.server.folder().join("audit.log")).unwrap();
    for line in of_id.stdout().lines() {
        assert!(log.lines().any(|written| written == line), "{line}");
    }
    let serial = revoked["revoked"][0]["serial"].as_str().unwrap();
    let of_serial = last(&domain, &["--serial", serial, "--last", "100"]).await;
    let events: Vec<_> = of_serial
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["issued", "revoked"]);
    let uid = format!("uid:{}", nix::unistd::getuid());
    let ordered = last(&domain, &["--author", &uid, "--last", "100"]).await;
    assert!(ordered.iter().all(|line| line["author"] == *uid) && ordered.len() > 2);

    let text = domain
        .server
        .command(&["audit", "tail", "--serial", serial])
        .await
        .unwrap()
        .stdout;
    assert!(
        text.lines().count() == 2 && text.contains(" revoked author=uid:"),
        "{text}"
    );
    of_id.stop().await.unwrap();
}

/// The rotated files too, and over a restart.
#[tokio::test]
async fn older_lines_are_read_from_the_files_of_the_log() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    identity_of(&domain, &agent, "front").await;
    audited(&domain, &["issued", "/ns/shop/sa/front"]).await;
    let log = domain.server.folder().join("audit.log");
    domain.server.stop().await.unwrap();
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    domain.server.start().await.unwrap();
    let of_pod = last(&domain, &["--pod", "shop/front", "--last", "1000"]).await;
    assert!(of_pod.iter().any(|line| line["event"] == "issued"), "{of_pod:?}");
    let all = last(&domain, &["--last", "10000"]).await;
    let sequences: Vec<_> = all
        .iter()
        .filter(|line| line["event"] != "head")
        .map(|line| line["sequence"].as_u64().unwrap())
        .collect();
    let newest = *sequences.last().unwrap();
    assert_eq!(sequences, (1..=newest).collect::<Vec<_>>(), "each once, in order");
}

/// He holds up neither the log nor those beside him, and the server ends in time.
#[tokio::test]
async fn a_reader_that_takes_nothing_holds_up_nobody() {
    let mut domain = Plan::default()
        .server("/log/format", json!("text"))
        .start()
        .await
        .unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let socket = domain.server.admin_socket();
    let (_unread, pipe) = unread_pipe(true).unwrap();
    let mut resting = std::process::Command::new(binary("signet-server"))
        .args(["audit", "tail", "--follow", "--last", "10000"])
        .env_clear()
        .env("SIGNET_ADMIN_SOCKET", &socket)
        .stdin(std::process::Stdio::null())
        .stdout(pipe)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    audited(&domain, &["TailAudit"]).await;
    let looking_on = following(&domain, &["--pod", "shop/late"]);
    for name in ["a", "b", "c", "late"] {
        identity_of(&domain, &agent, name).await;
    }
    seen(&looking_on, "issued").await;
    assert!(workload_svids(&domain).await.len() >= 4);
    assert!(resting.try_wait().unwrap().is_none(), "it waits for its reader");
    let begun = Instant::now();
    domain.server.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let said = eventually("its end", async || {
        let said = looking_on.stderr();
        said.contains("the server is stopping").then_some(said)
    });
    said.await;
    resting.kill().unwrap();
    resting.wait().unwrap();
}
