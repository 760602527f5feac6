//! Restarts of the manager over a fake server, in paused time.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::clock::{Clock, FakeClock};
use signet_testkit::{HOUR, at};
use tokio::sync::watch;

use super::*;
use crate::context::{Caller, WorkloadSource, WorkloadState, X509Context};
use crate::manager::tests::{Bench, pending, ready, refused, renewed, svid_of, until, volume};
use crate::server_client::RefusalReason;
use crate::server_client::fake::{FakeServer, Mode};
use crate::server_client::sync::Notice;

/// A node whose agent is started again and again.
struct Node {
    folder: tempfile::TempDir,
    server: Arc<FakeServer>,
    clock: FakeClock,
}

impl Node {
    fn new() -> Self {
        let clock = FakeClock::new(at(0));
        Self {
            folder: signet_testkit::folder(),
            server: FakeServer::new(Arc::new(clock.clone())),
            clock,
        }
    }

    fn places(&self) -> Places {
        Places {
            state_dir: Some(self.folder.path().to_owned()),
            volumes: true,
            problem: String::new(),
        }
    }

    /// A run that dies without a word when it is dropped or replaced; trust was kept.
    fn start(&self) -> Bench {
        let folder = self.folder.path().to_owned();
        let bench = Bench::over(self.server.clone(), self.clock.clone(), folder, self.places());
        bench.push(1, &[]);
        bench
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("vol-0.json")
    }

    async fn served(&self) -> Arc<X509Context> {
        ready(&mut self.start().pod().await).await
    }

    fn asked(&self) -> usize {
        self.server.asked().len()
    }
}

/// Covers INV-9.
#[tokio::test(start_paused = true)]
async fn fifty_restarts_issue_nothing_and_serve_at_once_with_the_server_away_too() {
    let node = Node::new();
    let first = node.served().await;
    let begun = node.clock.now();
    node.server.set(Mode::Away);
    for _ in 0..50 {
        let bench = node.start();
        let context = ready(&mut bench.pod().await).await;
        assert_eq!(context.svids, first.svids);
        assert_eq!(
            svid_of(&context).key().pkcs8_der(),
            svid_of(&first).key().pkcs8_der()
        );
        assert_eq!(context.svids[0].hint, "hint");
        assert!(!context.crls.ders().is_empty());
    }
    assert_eq!(node.asked(), 1);
    assert_eq!(node.clock.now(), begun, "at once");
    let mode = node.file().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_renewed_at_half_of_its_whole_life() {
    let node = Node::new();
    let first = node.served().await;
    tokio::time::sleep(Duration::from_secs(1300)).await;
    let bench = node.start();
    let mut states = bench.pod().await;
    ready(&mut states).await;
    renewed(&mut states, &first).await;
    let passed = node.clock.now().duration_since(at(0)).unwrap().as_secs();
    assert!((1300..2000).contains(&passed), "renewed after {passed} s of 3600");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_foreign_or_expired_file_is_not_served_and_goes() {
    let node = Node::new();
    let first = node.served().await;
    let good = fs::read_to_string(node.file()).unwrap();
    let other_key = hex::encode(signet_testkit::leaf_key().pkcs8_der());
    let own_key = hex::encode(first.svids[0].key.bytes());
    for faulty in [
        good[..good.len() / 2].to_owned(),
        good.replace("pod:pod-0", "pod:pod-1"),
        good.replace(&own_key, &other_key),
        String::new(),
    ] {
        fs::write(node.file(), &faulty).unwrap();
        let context = node.served().await;
        assert_ne!(context.svids, first.svids, "{faulty}");
    }
    fs::write(node.file(), &good).unwrap();
    tokio::time::sleep(HOUR).await;
    assert_ne!(node.served().await.svids, first.svids, "an expired one");
    assert_eq!(node.asked(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_kept_leaf_that_was_revoked_or_whose_authority_is_gone_is_not_served() {
    let node = Node::new();
    let first = node.served().await;
    let bench = Bench::over(
        node.server.clone(),
        node.clock.clone(),
        node.folder.path().to_owned(),
        node.places(),
    );
    bench.push(2, &[svid_of(&first).serial()]);
    node.server.set(Mode::Away);
    let mut states = bench.pod().await;
    pending(&mut states).await;
    assert!(!node.file().exists());

    let node = Node::new();
    node.served().await;
    node.server.state().signer = signet_testkit::authority(signet_testkit::DOMAIN);
    node.server.set(Mode::Away);
    let bench = node.start();
    pending(&mut bench.pod().await).await;
    assert!(!node.file().exists());
}

/// By a clock that is wrong after a start nothing is thrown away; once the server has told the time it is.
#[tokio::test(start_paused = true)]
async fn a_wrong_date_before_the_first_contact_costs_no_key() {
    let node = Node::new();
    let first = node.served().await;
    node.server.set(Mode::Away);
    node.clock.set_offset(400 * 86_400);
    let bench = node.start();
    let mut states = bench.pod().await;
    pending(&mut states).await;
    assert!(node.file().exists());
    node.clock.set_offset(0);
    bench.notices.send(Notice::Connected).await.unwrap();
    assert_eq!(ready(&mut states).await.svids, first.svids);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_and_the_end_of_the_volume_remove_the_file() {
    let node = Node::new();
    node.served().await;
    let bench = node.start();
    let mut states = bench.pod().await;
    ready(&mut states).await;
    node.server.set(Mode::Refuse(RefusalReason::Denied, 1));
    bench
        .notices
        .send(Notice::Affected(crate::cache::Affected::All))
        .await
        .unwrap();
    refused(&mut states).await;
    assert!(!node.file().exists());

    let node = Node::new();
    let bench = node.start();
    let mut states = bench.pod().await;
    ready(&mut states).await;
    assert!(node.file().exists());
    bench.manager.volume_removed("vol-0");
    until(&mut states, "gone", |state| matches!(state, WorkloadState::Gone)).await;
    assert!(!node.file().exists());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_last_leaf_removes_the_file_and_the_end_of_the_agent_does_not() {
    let node = Node::new();
    let bench = node.start();
    let mut states = bench.pod().await;
    ready(&mut states).await;
    node.server.set(Mode::Away);
    pending(&mut states).await;
    assert!(!node.file().exists());

    let node = Node::new();
    let bench = node.start();
    ready(&mut bench.pod().await).await;
    assert!(bench.drain.finish(Duration::from_secs(5)).await);
    assert!(node.file().exists());
}

#[tokio::test(start_paused = true)]
async fn what_rests_on_former_rules_is_served_and_asked_for_anew() {
    let node = Node::new();
    let first = node.served().await;
    let text = fs::read_to_string(node.file()).unwrap();
    fs::write(
        node.file(),
        text.replace("\"policy_revision\":1", "\"policy_revision\":0"),
    )
    .unwrap();
    let bench = node.start();
    let mut states = bench.pod().await;
    assert_eq!(ready(&mut states).await.svids, first.svids);
    renewed(&mut states, &first).await;
    let passed = node.clock.now().duration_since(at(0)).unwrap();
    assert!(
        passed <= crate::cache::TAINT_SPREAD + Duration::from_secs(1),
        "{passed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn every_volume_of_a_pod_has_what_the_pod_is_served() {
    let node = Node::new();
    let bench = node.start();
    bench.add_volume("vol-0", "pod-0", 7200);
    let mut states = bench.manager.attach(&volume("vol-0", "pod-0")).await.unwrap();
    let first = ready(&mut states).await;
    bench.add_volume("vol-1", "pod-0", 7200);
    bench.manager.status().await;
    bench.manager.volume_removed("vol-0");
    bench.manager.status().await;
    let again = node.start();
    again.add_volume("vol-1", "pod-0", 7200);
    let mut states = again.manager.attach(&volume("vol-1", "pod-0")).await.unwrap();
    assert_eq!(ready(&mut states).await.svids, first.svids);
}

async fn program(bench: &Bench) -> watch::Receiver<WorkloadState> {
    let caller = Caller::Peer(crate::unix::tests::own_peer());
    bench.manager.attach(&caller).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_programs_identity_survives_as_well_and_goes_at_its_end() {
    let node = Node::new();
    let first = ready(&mut program(&node.start()).await).await;
    let again = ready(&mut program(&node.start()).await).await;
    assert_eq!(first.svids, again.svids);
    assert_eq!(node.asked(), 1);
    let files = || fs::read_dir(node.folder.path().join(PROGRAMS)).unwrap().count();
    assert_eq!(files(), 1);
    // Nobody calls for it any more.
    tokio::time::sleep(2 * HOUR).await;
    let bench = node.start();
    bench.notices.send(Notice::Connected).await.unwrap();
    bench.manager.status().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(files(), 0);
}

/// Otherwise an upgrade, or the way back from one, asks for everything anew.
#[tokio::test(start_paused = true)]
async fn a_file_of_another_version_is_taken_over() {
    let node = Node::new();
    let first = node.served().await;
    let written = fs::read_to_string(node.file()).unwrap();
    node.server.set(Mode::Away);
    for (of, by) in [
        ("\"owner\"", "\"of_tomorrow\":1,\"owner\""),
        ("\"key\"", "\"of_tomorrow\":\"\",\"key\""),
        ("\"policy_revision\":1", "\"of_tomorrow\":1"),
    ] {
        let other = written.replace(of, by);
        assert_ne!(other, written, "{of}");
        fs::write(node.file(), other).unwrap();
        assert_eq!(node.served().await.svids, first.svids, "{of}");
    }
}
