//! The node attestor over a fake server, in paused time.

use std::fs;

use signet_runtime::clock::FakeClock;
use signet_testkit::{DOMAIN, at, control_authority, id, trust_domain};
use tokio::time::{Instant, timeout};

use super::*;
use crate::server_client::fake::{FakeServer, offered};

struct Bench {
    server: Arc<FakeServer>,
    directory: Arc<tempfile::TempDir>,
    state: watch::Receiver<NodeState>,
    certificate: watch::Receiver<Option<SerialNumber>>,
    trust: watch::Sender<Option<Arc<TrustState>>>,
    objections: Arc<Objections>,
    anchors: Arc<ControlAnchors>,
    clock: FakeClock,
    drain: Drain,
}

impl Bench {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// `script` prepares the server before the attestor starts.
    fn start_with(script: impl FnOnce(&FakeServer)) -> Self {
        let clock = FakeClock::new(at(0));
        let server = FakeServer::new(Arc::new(clock.clone()));
        script(&server);
        let directory = Arc::new(signet_testkit::folder());
        let file = |name: &str| directory.path().join(name);
        fs::write(file("anchors.pem"), server.state().control.certificate().pem()).unwrap();
        fs::write(file("token"), "token-1\n").unwrap();
        Self::over(server, directory, clock, None)
    }

    /// The agent again, after it was killed, with the trust state that it kept.
    fn restarted(self, trust: Option<Arc<TrustState>>) -> Self {
        self.drain.start();
        Self::over(self.server, self.directory, self.clock, trust)
    }

    fn over(
        server: Arc<FakeServer>,
        directory: Arc<tempfile::TempDir>,
        clock: FakeClock,
        believed: Option<Arc<TrustState>>,
    ) -> Self {
        let file = |name: &str| directory.path().join(name);
        let drain = Drain::new();
        let anchors = ControlAnchors::load(
            &trust_domain(),
            &file("anchors.pem"),
            directory.path(),
            clock.now(),
        )
        .unwrap();
        let sender = watch::Sender::new(NodeState::default());
        let state = sender.subscribe();
        let certificates = watch::Sender::new(None);
        let trust = watch::Sender::new(believed);
        let objections = Arc::new(Objections::default());
        let attestor = NodeAttestor {
            api: server.clone(),
            anchors: anchors.clone(),
            identity: Arc::new(RotatingIdentity::new()),
            token_file: file("token"),
            state_dir: Some(directory.path().to_owned()),
            cluster: "kind".to_owned(),
            trust_domain: trust_domain(),
            clock: Arc::new(clock.clone()),
            trust: trust.subscribe(),
            objections: objections.clone(),
            state: sender,
            certificate: certificates.clone(),
            reread: Reread::never(),
            backoff: Backoff::between(Duration::from_secs(1), Duration::from_secs(30)),
        };
        tokio::spawn(attestor.run(drain.clone()));
        Self {
            server,
            directory,
            state,
            certificate: certificates.subscribe(),
            trust,
            objections,
            anchors,
            clock,
            drain,
        }
    }

    async fn until(&mut self, wanted: impl Fn(&NodeState) -> bool) -> NodeState {
        timeout(
            Duration::from_secs(20_000),
            self.state.wait_for(|state| wanted(state)),
        )
        .await
        .unwrap()
        .unwrap()
        .clone()
    }

    async fn attested(&mut self) -> NodeIdentity {
        self.until(|state| state.identity.is_some())
            .await
            .identity
            .unwrap()
    }

    async fn renewed(&mut self, old: &NodeIdentity) -> NodeIdentity {
        self.until(|state| {
            state
                .identity
                .as_ref()
                .is_some_and(|identity| identity.serial != old.serial)
        })
        .await
        .identity
        .unwrap()
    }

    async fn problem(&mut self) -> String {
        self.until(|state| !state.problem.is_empty()).await.problem
    }

    /// A trust state whose control list names this certificate.
    fn trust_without(&self, identity: &NodeIdentity) -> Arc<TrustState> {
        let signer = self.server.state().signer.clone();
        let mut update = self.server.update(1, &[signer], &[]);
        let control = self.server.state().control.clone();
        update.control = vec![offered(&control, &[identity.serial], self.clock.now())];
        let accepted = crate::server_client::trust::accept(
            None,
            &update,
            &trust_domain(),
            &crate::server_client::trust::FileWord::default(),
            self.clock.now(),
        )
        .unwrap();
        Arc::new(accepted.state)
    }

    fn passed(&self) -> u64 {
        self.clock.now().duration_since(at(0)).unwrap().as_secs()
    }
}

fn not_accepted() -> ServerError {
    ServerError::Unauthenticated("who are you?".to_owned())
}

fn revoked(identity: &NodeIdentity) -> ServerError {
    ServerError::Revoked {
        message: "it is revoked".to_owned(),
        serial: identity.serial,
    }
}

#[tokio::test(start_paused = true)]
async fn the_node_proves_itself_with_its_token_and_becomes_an_agent() {
    let mut bench = Bench::start();
    let identity = bench.attested().await;
    assert_eq!(
        identity.spiffe_id.as_str(),
        "spiffe://example.org/signet/agent/kind/node-1"
    );
    assert_eq!(bench.server.state().node_tokens, ["token-1"]);
    assert_eq!(bench.server.state().identity_changes, 1);
}

#[tokio::test(start_paused = true)]
async fn renewal_uses_the_token_as_it_then_is_and_a_new_key() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    fs::write(bench.directory.path().join("token"), "token-2").unwrap();
    let second = bench.renewed(&first).await;
    assert!(
        (1600..2000).contains(&bench.passed()),
        "near half of 3600 s: {}",
        bench.passed()
    );
    assert_ne!(first.serial, second.serial);
    assert_eq!(bench.server.state().node_tokens, ["token-1", "token-2"]);
    let keys = bench.server.state().node_keys.clone();
    assert_ne!(keys["token-1"], keys["token-2"]);
}

#[tokio::test(start_paused = true)]
async fn an_early_renewal_with_the_same_token_keeps_the_key() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    bench.objections.hear(&not_accepted());
    bench.renewed(&first).await;
    assert_eq!(bench.server.state().node_tokens, ["token-1", "token-1"]);
}

/// Covers INV-9.
#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_certificate_and_tries_again() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    bench.server.state().node_mode.extend([
        ServerError::Unavailable {
            message: "away".to_owned(),
            retry_after: Some(Duration::from_secs(90)),
        },
        ServerError::unavailable("still away"),
    ]);
    assert_eq!(*bench.certificate.borrow_and_update(), Some(first.serial));
    let state = bench.until(|state| state.problem.contains("away")).await;
    assert_eq!(state.identity.as_ref(), Some(&first));
    assert!(
        !bench.certificate.has_changed().unwrap(),
        "nobody connects anew for a failure"
    );
    let failed_at = bench.passed();
    let second = bench.renewed(&first).await;
    assert!(second.not_after > first.not_after);
    assert!(bench.passed() >= failed_at + 90, "the server's wish is heeded");
    assert!(bench.state.borrow().problem.is_empty());
}

#[tokio::test(start_paused = true)]
async fn fifty_restarts_ask_for_no_certificate_and_keep_the_time_of_its_renewal() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        bench = bench.restarted(None);
        assert_eq!(bench.attested().await, first);
    }
    assert_eq!(bench.server.state().node_tokens, ["token-1"]);
    assert_eq!(bench.server.state().identity_changes, 51);
    bench.renewed(&first).await;
    assert!((1200..2000).contains(&bench.passed()), "{}", bench.passed());
}

#[tokio::test(start_paused = true)]
async fn a_kept_certificate_that_is_damaged_or_has_ended_is_not_used() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    let path = bench.directory.path().join("node.json");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("node-1", "node-2")).unwrap();
    bench = bench.restarted(None);
    assert_ne!(bench.attested().await.serial, first.serial);
    fs::write(&path, &good).unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    bench = bench.restarted(None);
    assert_ne!(bench.attested().await.serial, first.serial);
}

#[tokio::test(start_paused = true)]
async fn a_kept_certificate_that_a_held_list_names_costs_its_key() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    let trust = bench.trust_without(&first);
    bench = bench.restarted(Some(trust));
    let problem = bench.problem().await;
    assert!(problem.contains("another key"), "{problem}");
    assert_eq!(bench.state.borrow().identity, None);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_certificate_is_replaced_with_a_new_key_as_soon_as_there_is_a_new_token() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    bench.trust.send_replace(Some(bench.trust_without(&first)));
    let problem = bench.problem().await;
    assert!(
        problem.contains("another key"),
        "a revoked key is not certified again: {problem}"
    );
    fs::write(bench.directory.path().join("token"), "token-2").unwrap();
    bench.renewed(&first).await;
    assert!(bench.passed() < 60);
}

/// The word may come before the list does.
#[tokio::test(start_paused = true)]
async fn a_certificate_that_the_server_calls_revoked_is_replaced_with_another_key_and_the_next_token() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    let key = bench.server.state().node_keys["token-1"];
    bench.server.state().node_revoked.push(key);
    bench.objections.hear(&revoked(&first));
    let problem = bench.problem().await;
    assert!(
        problem.contains("another key"),
        "a revoked key is not certified again: {problem}"
    );
    fs::write(bench.directory.path().join("token"), "token-2").unwrap();
    let second = bench.renewed(&first).await;
    let keys = bench.server.state().node_keys.clone();
    assert_ne!(keys["token-1"], keys["token-2"]);
    // What is said late about the former one takes no key from the present one.
    bench.objections.hear(&revoked(&first));
    bench.renewed(&second).await;
    assert_eq!(bench.server.state().node_tokens.last().unwrap(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_called_revoked_while_it_is_renewed_costs_its_key_as_well() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    bench.server.state().node_mode.push_back(revoked(&first));
    bench.objections.hear(&not_accepted());
    bench.until(|state| state.problem.contains("another key")).await;
    fs::write(bench.directory.path().join("token"), "token-2").unwrap();
    bench.renewed(&first).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_accepts_is_not_asked_in_a_tight_loop() {
    let mut bench = Bench::start();
    bench.attested().await;
    let again = bench.objections.clone();
    let nagging = tokio::spawn(async move {
        loop {
            again.hear(&not_accepted());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(120)).await;
    nagging.abort();
    let attempts = bench.server.state().node_tokens.len();
    assert!((3..12).contains(&attempts), "{attempts} attempts in two minutes");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_for_another_node_or_role_is_not_used() {
    for path in [
        "/signet/agent/kind/node-2",
        "/signet/agent/other/node-1",
        "/signet/server",
        "/ns/a/sa/b",
    ] {
        let mut bench = Bench::start_with(|server| server.state().node_id = Some(id(path)));
        let problem = bench.problem().await;
        assert!(problem.contains("not this node"), "{path}: {problem}");
        assert_eq!(bench.server.state().identity_changes, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_a_newer_control_authority_is_verified_by_what_the_server_names() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    let newer = control_authority(DOMAIN);
    bench.server.state().control = newer.clone();
    bench.objections.hear(&not_accepted());
    let second = bench.renewed(&first).await;
    assert_eq!(second.authority, newer.certificate().id());
    let roots = bench.anchors.roots().load();
    assert_eq!(
        roots.authorities(&trust_domain()).len(),
        2,
        "the former anchor stays until the server drops it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_or_oversized_token_is_named_and_awaited() {
    let mut bench = Bench::start();
    let first = bench.attested().await;
    let path = bench.directory.path().join("token");
    fs::remove_file(&path).unwrap();
    let problem = bench.problem().await;
    assert!(
        problem.contains("token") && problem.contains("projected service account token"),
        "{problem}"
    );
    fs::write(&path, "x".repeat(17 * 1024)).unwrap();
    bench.until(|state| state.problem.contains("larger")).await;
    fs::write(&path, "\n").unwrap();
    bench.until(|state| state.problem.contains("empty")).await;
    fs::write(&path, "token-3").unwrap();
    bench.renewed(&first).await;
    assert_eq!(bench.server.state().node_tokens.last().unwrap(), "token-3");
}

/// Its authority is stolen: every agent of the trust domain hears of it at once, and each attests at another moment.
#[tokio::test(start_paused = true)]
async fn a_certificate_of_a_distrusted_authority_is_replaced_with_a_spread_and_once() {
    let mut moments = Vec::new();
    for _ in 0..8 {
        let mut bench = Bench::start();
        let old = bench.attested().await;
        let next = control_authority(DOMAIN);
        let text = format!("distrusted: {}\n{}", old.authority, next.certificate().pem());
        fs::write(bench.directory.path().join("anchors.pem"), text).unwrap();
        bench.server.state().control = next.clone();
        let told = Instant::now();
        bench.anchors.server_not_verified(at(1)).unwrap();
        // Meanwhile the server does not know it any more.
        bench.objections.hear(&not_accepted());
        assert!(
            bench.certificate.borrow().is_some(),
            "kept until there is another"
        );
        let new = bench.renewed(&old).await;
        assert_eq!(new.authority, next.certificate().id());
        assert!(
            told.elapsed() < SPREAD + Duration::from_secs(3),
            "{:?}",
            told.elapsed()
        );
        moments.push(told.elapsed());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bench.server.state().node_tokens.len(), 2, "attested anew, once");
    }
    moments.dedup();
    assert_eq!(moments.len(), 8, "not all at once");
}
