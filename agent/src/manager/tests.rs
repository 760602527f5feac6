//! The manager over a fake server, in paused time.

use std::time::Duration;

use signet_certs::id::SpiffeId;
use signet_certs::signer::LeafKey;
use signet_certs::svid::X509Svid;
use signet_runtime::clock::FakeClock;
use signet_testkit::{DOMAIN, at, authority, id, serial};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::*;
use crate::cache::Affected;
use crate::context::X509Context;
use crate::server_client::RefusalReason;
use crate::server_client::fake::{FakeServer, Mode, signer_of};

mod attaching;
mod outages;

pub(super) struct Bench {
    pub(super) manager: Manager,
    pub(super) server: Arc<FakeServer>,
    pub(super) clock: FakeClock,
    trust: watch::Sender<Option<Arc<TrustState>>>,
    outage: watch::Sender<Option<SystemTime>>,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) reports: watch::Receiver<TrustReport>,
    pub(super) objections: Arc<Objections>,
    pub(super) drain: Drain,
    /// Where volumes are.
    folder: PathBuf,
}

impl Bench {
    /// A manager with trust in the server's present authority.
    pub(super) fn new() -> Self {
        let bench = Self::without_trust();
        bench.push(1, &[]);
        bench
    }

    fn without_trust() -> Self {
        let clock = FakeClock::new(at(0));
        let server = FakeServer::new(Arc::new(clock.clone()));
        Self::over(server, clock, "/run/x".into(), Places::default())
    }

    /// A manager without trust, whose volumes are in this folder.
    pub(super) fn over(server: Arc<FakeServer>, clock: FakeClock, folder: PathBuf, places: Places) -> Self {
        let time = Arc::new(clock.clone());
        Self::timed(server, clock, time, folder, places)
    }

    /// The same by another time than the machine's.
    pub(super) fn timed(
        server: Arc<FakeServer>,
        clock: FakeClock,
        time: Arc<dyn Clock>,
        folder: PathBuf,
        places: Places,
    ) -> Self {
        let trust = watch::Sender::new(None);
        let reports = watch::Sender::new(TrustReport::default());
        let (notices, heard) = mpsc::channel(8);
        let objections = Arc::new(Objections::default());
        let outage = watch::Sender::default();
        let drain = Drain::new();
        let parts = ManagerParts {
            api: server.clone(),
            clock: time,
            trust: trust.subscribe(),
            outage: outage.subscribe(),
            notices: heard,
            reports: reports.clone(),
            objections: objections.clone(),
            unix: Some(UnixAttestor::default()),
            backoff: Backoff::between(Duration::from_secs(1), Duration::from_secs(30)),
            places,
        };
        let manager = Manager::spawn(parts, &drain);
        manager.volumes_named();
        Self {
            manager,
            server,
            clock,
            trust,
            outage,
            notices,
            reports: reports.subscribe(),
            objections,
            drain,
            folder,
        }
    }

    pub(super) fn svid_file(&self, volume_id: &str) -> PathBuf {
        self.folder.join(format!("{volume_id}.json"))
    }

    /// Trust in the server's present authority, with these serials revoked.
    pub(super) fn push(&self, sequence: u64, revoked: &[signet_certs::serial::SerialNumber]) {
        let signer = self.server.state().signer.clone();
        self.trust
            .send_replace(Some(self.server.trust(sequence, &[signer], revoked)));
    }

    pub(super) fn add_pod(&self, number: usize) {
        self.add_volume(&format!("vol-{number}"), &format!("pod-{number}"), 7200);
    }

    pub(super) fn add_volume(&self, volume_id: &str, pod_uid: &str, token_life: u64) {
        self.manager.volume_ready(PodVolume {
            volume_id: volume_id.to_owned(),
            pod_uid: pod_uid.to_owned(),
            pod: format!("demo/{pod_uid}"),
            socket: "/run/x/spiffe.sock".into(),
            svid_file: self.svid_file(volume_id),
        });
        let expires = self.clock.now() + Duration::from_secs(token_life);
        self.manager.token_refreshed(
            volume_id,
            PodToken::new(&format!("token of {volume_id}"), expires),
        );
    }

    pub(super) async fn attach(&self, number: usize) -> watch::Receiver<WorkloadState> {
        self.manager
            .attach(&volume(&format!("vol-{number}"), &format!("pod-{number}")))
            .await
            .unwrap()
    }

    pub(super) async fn pod(&self) -> watch::Receiver<WorkloadState> {
        self.add_pod(0);
        self.attach(0).await
    }
}

pub(super) fn volume(volume_id: &str, pod_uid: &str) -> Caller {
    Caller::Volume {
        volume_id: volume_id.to_owned(),
        pod_uid: pod_uid.to_owned(),
    }
}

pub(super) async fn until(
    states: &mut watch::Receiver<WorkloadState>,
    what: &str,
    wanted: impl Fn(&WorkloadState) -> bool,
) -> WorkloadState {
    let found = timeout(
        Duration::from_secs(20_000),
        states.wait_for(|state| wanted(state)),
    )
    .await;
    found
        .unwrap_or_else(|_| panic!("never came: {what}"))
        .unwrap()
        .clone()
}

pub(super) async fn ready(states: &mut watch::Receiver<WorkloadState>) -> Arc<X509Context> {
    match until(states, "ready", |state| matches!(state, WorkloadState::Ready(_))).await {
        WorkloadState::Ready(context) => context,
        _ => unreachable!(),
    }
}

/// The next context that differs in its leaf.
pub(super) async fn renewed(
    states: &mut watch::Receiver<WorkloadState>,
    old: &X509Context,
) -> Arc<X509Context> {
    let chain = old.svids[0].chain.clone();
    let newer = |state: &WorkloadState| matches!(state, WorkloadState::Ready(context) if context.svids[0].chain != chain);
    match until(states, "renewed", newer).await {
        WorkloadState::Ready(context) => context,
        _ => unreachable!(),
    }
}

pub(super) async fn pending(states: &mut watch::Receiver<WorkloadState>) -> String {
    let state = until(states, "pending with a problem", |state| {
        matches!(state, WorkloadState::Pending { problem: Some(_) })
    });
    match state.await {
        WorkloadState::Pending { problem } => problem.unwrap(),
        _ => unreachable!(),
    }
}

pub(super) async fn refused(states: &mut watch::Receiver<WorkloadState>) -> String {
    match until(states, "refused", |state| {
        matches!(state, WorkloadState::Refused { .. })
    })
    .await
    {
        WorkloadState::Refused { message } => message,
        _ => unreachable!(),
    }
}

pub(super) fn svid_of(context: &X509Context) -> X509Svid {
    let svid = &context.svids[0];
    let rng = ring::rand::SystemRandom::new();
    let key = LeafKey::from_pkcs8(Zeroizing::new(svid.key.bytes().to_vec()), &rng).unwrap();
    X509Svid::new(vec![svid.chain.to_vec()], key).unwrap()
}

/// Covers X5S-02, X5S-03, X5S-04, X5S-05, X5S-06, X5S-07, X5S-08.
#[tokio::test(start_paused = true)]
async fn a_pod_gets_its_identity_with_key_bundle_and_crl() {
    let bench = Bench::new();
    let mut states = bench.pod().await;
    let context = ready(&mut states).await;
    let svid = svid_of(&context);
    assert_eq!(*svid.spiffe_id(), id("/ns/demo/sa/app"));
    assert_eq!(context.svids[0].spiffe_id, svid.spiffe_id().as_str());
    assert_eq!(context.svids[0].hint, "hint");
    let signer = bench.server.state().signer.clone();
    assert_eq!(context.bundle.as_ref(), signer.certificate().der());
    assert_eq!(context.crls.ders().len(), 1);
    let asked = bench.server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].evidence, "token of vol-0");
    assert_eq!(asked[0].spiffe_id, None);
}

/// Covers INV-5.
#[tokio::test(start_paused = true)]
async fn the_key_stays_with_the_agent() {
    let bench = Bench::new();
    let mut states = bench.pod().await;
    let context = ready(&mut states).await;
    let key = context.svids[0].key.bytes();
    let marker = [0x02, 0x01, 0x01, 0x04, 0x20];
    let start = key.windows(marker.len()).position(|part| part == marker).unwrap() + marker.len();
    let scalar = &key[start..start + 32];
    let asked = bench.server.asked();
    assert!(!asked[0].csr.windows(32).any(|part| part == scalar));
}

/// Covers API-16.
#[tokio::test(start_paused = true)]
async fn a_push_without_news_for_workloads_wakes_no_stream() {
    let bench = Bench::new();
    let mut states = bench.pod().await;
    ready(&mut states).await;
    states.mark_unchanged();
    let held = bench.trust.borrow().clone();
    bench.trust.send_replace(held);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!states.has_changed().unwrap());
}

/// Covers API-11, API-13.
#[tokio::test(start_paused = true)]
async fn all_identities_come_at_once_in_the_servers_order() {
    let bench = Bench::new();
    let ids: Vec<SpiffeId> = ["/z", "/a", "/m"].map(id).to_vec();
    bench.server.set(Mode::Issue(ids.clone()));
    let mut states = bench.pod().await;
    let context = ready(&mut states).await;
    let names: Vec<_> = context.svids.iter().map(|svid| svid.spiffe_id.clone()).collect();
    assert_eq!(
        names,
        ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>()
    );
    assert_eq!(context.hints(), ["hint", "", ""], "a hint names one identity");
}

/// Covers X5S-12, X5S-15.
#[tokio::test(start_paused = true)]
async fn renewal_comes_near_half_life_with_a_fresh_key() {
    let bench = Bench::new();
    let mut states = bench.pod().await;
    let first = ready(&mut states).await;
    let second = renewed(&mut states, &first).await;
    let passed = bench.clock.now().duration_since(at(0)).unwrap().as_secs();
    assert!((1600..2000).contains(&passed), "renewed after {passed} s of 3600");
    let asked = bench.server.asked();
    assert_ne!(asked[0].key, asked[1].key);
    assert_ne!(
        svid_of(&first).key().pkcs8_der(),
        svid_of(&second).key().pkcs8_der()
    );
}

/// Covers INV-9.
#[tokio::test(start_paused = true)]
async fn with_the_server_away_the_last_good_is_served_until_it_expires() {
    let bench = Bench::new();
    let mut states = bench.pod().await;
    let context = ready(&mut states).await;
    bench.server.set(Mode::Away);
    let problem = pending(&mut states).await;
    assert!(problem.contains("server is away"), "{problem}");
    let ended = bench
        .clock
        .now()
        .duration_since(context.svids[0].not_after)
        .unwrap();
    assert!(
        ended < Duration::from_secs(1),
        "withdrawn {ended:?} after its end"
    );
    bench.server.set(Mode::Issue(vec![id("/ns/demo/sa/app")]));
    bench.notices.send(Notice::Connected).await.unwrap();
    let back_at = bench.clock.now();
    renewed(&mut states, &context).await;
    let waited = bench.clock.now().duration_since(back_at).unwrap();
    assert!(
        waited < Duration::from_secs(1),
        "nobody waits out a backoff once the server is back: {waited:?}"
    );
}

/// Covers EP-18, X5S-10.
#[tokio::test(start_paused = true)]
async fn only_a_verdict_refuses_and_only_until_the_policy_changes() {
    let bench = Bench::new();
    bench.server.set(Mode::Refuse(RefusalReason::NotAttested, 1));
    let mut states = bench.pod().await;
    assert!(pending(&mut states).await.contains("NotAttested"));
    bench.server.set(Mode::Refuse(RefusalReason::NoMatch, 1));
    assert!(refused(&mut states).await.contains("NoMatch"));
    let before = bench.server.asked().len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        bench.server.asked().len(),
        before,
        "a verdict is not asked for again"
    );
    bench.server.set(Mode::Issue(vec![id("/ns/demo/sa/app")]));
    let affected = Affected::Pods(vec!["pod-0".to_owned()]);
    bench.notices.send(Notice::Affected(affected)).await.unwrap();
    ready(&mut states).await;
}

/// Covers API-14, X5S-11.
#[tokio::test(start_paused = true)]
async fn a_denied_pod_is_refused_as_soon_as_the_server_names_it() {
    let bench = Bench::new();
    let mut states = bench.pod().await;
    ready(&mut states).await;
    bench.server.set(Mode::Refuse(RefusalReason::Denied, 1));
    bench
        .notices
        .send(Notice::Affected(Affected::Pods(vec!["pod-0".to_owned()])))
        .await
        .unwrap();
    refused(&mut states).await;
    assert!(bench.clock.now().duration_since(at(0)).unwrap() < Duration::from_secs(1));
}

/// Covers X5S-14.
#[tokio::test(start_paused = true)]
async fn a_leaf_waits_for_the_bundle_that_verifies_it() {
    let bench = Bench::new();
    let old = bench.server.state().signer.clone();
    let new = authority(DOMAIN);
    bench.server.state().signer = new.clone();
    let mut states = bench.pod().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(matches!(*states.borrow(), WorkloadState::Pending { .. }));
    assert_eq!(bench.server.asked().len(), 1, "it waits and does not ask again");
    bench
        .trust
        .send_replace(Some(bench.server.trust(2, &[old, new.clone()], &[])));
    let context = ready(&mut states).await;
    assert_eq!(signer_of(&context.svids[0].chain), new.certificate().id());
    let held = context.bundle.windows(new.certificate().der().len());
    assert!(
        held.into_iter().any(|part| part == new.certificate().der()),
        "the bundle came with it"
    );
}

/// Covers X5S-14.
#[tokio::test(start_paused = true)]
async fn a_leaf_whose_authority_never_comes_is_given_up() {
    let bench = Bench::new();
    bench.server.state().signer = authority(DOMAIN);
    let mut states = bench.pod().await;
    let problem = pending(&mut states).await;
    assert!(problem.contains("has not arrived"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_the_first_trust_state() {
    let bench = Bench::without_trust();
    let mut states = bench.pod().await;
    assert!(pending(&mut states).await.contains("trust bundle"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        bench.server.asked().is_empty(),
        "nothing could be done with an answer"
    );
    bench.push(1, &[]);
    ready(&mut states).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_for_another_identity_or_key_is_not_published() {
    for mode in [Mode::Mislabel, Mode::OtherKey] {
        let bench = Bench::new();
        bench.server.set(mode.clone());
        let mut states = bench.pod().await;
        let problem = pending(&mut states).await;
        assert!(problem.contains("not usable"), "{mode:?}: {problem}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_serial_is_replaced_at_once() {
    let bench = Bench::new();
    let mut states = bench.pod().await;
    let first = ready(&mut states).await;
    bench.push(2, &[svid_of(&first).serial()]);
    let second = renewed(&mut states, &first).await;
    assert!(bench.clock.now().duration_since(at(0)).unwrap() < Duration::from_secs(1));
    assert_ne!(first.crls, second.crls);
}

#[tokio::test(start_paused = true)]
async fn a_new_crl_reaches_everyone_with_the_same_leaf() {
    let bench = Bench::new();
    let mut states = bench.pod().await;
    let first = ready(&mut states).await;
    let other = serial(9);
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.push(2, &[other]);
    states.changed().await.unwrap();
    let second = ready(&mut states).await;
    assert_eq!(first.svids, second.svids);
    assert_ne!(first.crls, second.crls);
}

#[tokio::test(start_paused = true)]
async fn many_pods_are_asked_for_in_bounded_batches() {
    let bench = Bench::new();
    let mut streams = Vec::new();
    for number in 0..500 {
        bench.add_pod(number);
    }
    for number in 0..500 {
        streams.push(bench.attach(number).await);
    }
    for states in &mut streams {
        ready(states).await;
    }
    let state = bench.server.state();
    assert!(state.batches.iter().all(|batch| batch.len() <= 64));
    assert_eq!(
        state.batches.iter().map(Vec::len).sum::<usize>(),
        500,
        "one request for each"
    );
    let most = bench
        .server
        .most_running
        .load(std::sync::atomic::Ordering::SeqCst);
    assert!(most <= 4, "{most} requests at once");
}

#[tokio::test(start_paused = true)]
async fn volumes_of_one_pod_share_its_leaves_and_its_last_one_ends_it() {
    let bench = Bench::new();
    bench.add_volume("vol-a", "pod-1", 7200);
    bench.add_volume("vol-b", "pod-1", 9000);
    let mut first = bench.manager.attach(&volume("vol-a", "pod-1")).await.unwrap();
    let mut second = bench.manager.attach(&volume("vol-b", "pod-1")).await.unwrap();
    let context = ready(&mut first).await;
    assert_eq!(context.svids, ready(&mut second).await.svids);
    assert_eq!(bench.server.asked().len(), 1);
    renewed(&mut first, &context).await;
    assert_eq!(
        bench.server.asked()[1].evidence,
        "token of vol-b",
        "the one that lives longest"
    );
    bench.manager.volume_removed("vol-b");
    assert_eq!(bench.manager.status().await.len(), 1);
    assert!(matches!(*second.borrow(), WorkloadState::Ready(_)));
    bench.manager.volume_removed("vol-a");
    until(&mut first, "gone", |state| matches!(state, WorkloadState::Gone)).await;
    assert!(bench.manager.status().await.is_empty());
}

/// Its certificate is fine, and yet containers of the pod reach nobody.
#[tokio::test(start_paused = true)]
async fn a_pod_whose_folder_was_lost_has_a_problem_until_its_volume_is_gone() {
    let bench = Bench::new();
    ready(&mut bench.pod().await).await;
    let problem = async || bench.manager.status().await[0].problem.clone();
    assert_eq!(problem().await, "");
    bench.manager.volume_cut_off("vol-0");
    assert!(problem().await.contains("restart the pod"), "{}", problem().await);
    bench.manager.volume_removed("vol-0");
    bench.add_pod(0);
    assert_eq!(bench.manager.status().await.len(), 1);
    assert!(!problem().await.contains("restart the pod"));
}

#[tokio::test(start_paused = true)]
async fn a_volume_stays_with_the_pod_it_was_first_reported_for() {
    let bench = Bench::new();
    bench.add_volume("vol-a", "pod-1", 7200);
    bench.add_volume("vol-a", "pod-2", 7200);
    for (volume_id, pod_uid) in [("vol-a", "pod-2"), ("vol-b", "pod-1")] {
        let outcome = bench.manager.attach(&volume(volume_id, pod_uid)).await;
        assert!(
            matches!(outcome, Err(AttachError::Unavailable(_))),
            "{volume_id} of {pod_uid}"
        );
    }
    assert!(bench.manager.attach(&volume("vol-a", "pod-1")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_is_used_until_it_expires_and_then_the_next_one() {
    let bench = Bench::new();
    bench.add_volume("vol-0", "pod-0", 60);
    let mut states = bench.attach(0).await;
    let first = ready(&mut states).await;
    let problem = pending(&mut states).await;
    assert!(
        problem.contains("token expired"),
        "no request without a token: {problem}"
    );
    assert_eq!(bench.server.asked().len(), 1);
    bench.manager.token_refreshed(
        "vol-0",
        PodToken::new("fresh", bench.clock.now() + Duration::from_secs(3600)),
    );
    bench
        .manager
        .token_refreshed("vol-0", PodToken::new("late", bench.clock.now()));
    renewed(&mut states, &first).await;
    assert_eq!(bench.server.asked()[1].evidence, "fresh");
}

#[tokio::test(start_paused = true)]
async fn a_volume_without_a_token_waits_for_it() {
    let bench = Bench::new();
    bench.manager.volume_ready(PodVolume {
        volume_id: "vol-0".to_owned(),
        pod_uid: "pod-0".to_owned(),
        pod: "demo/app-0".to_owned(),
        socket: "/run/x".into(),
        svid_file: bench.svid_file("vol-0"),
    });
    let mut states = bench.attach(0).await;
    pending(&mut states).await;
    assert!(bench.server.asked().is_empty());
    bench.manager.token_refreshed(
        "vol-0",
        PodToken::new("first", bench.clock.now() + Duration::from_secs(3600)),
    );
    ready(&mut states).await;
}

/// Covers INV-13.
#[tokio::test(start_paused = true)]
async fn a_token_is_held_once_and_gone_with_its_volume() {
    let bench = Bench::new();
    bench.manager.volume_ready(PodVolume {
        volume_id: "vol-0".to_owned(),
        pod_uid: "pod-0".to_owned(),
        pod: "demo/app-0".to_owned(),
        socket: "/run/x".into(),
        svid_file: bench.svid_file("vol-0"),
    });
    let token = PodToken::new("a token", bench.clock.now() + Duration::from_secs(3600));
    let held = Arc::downgrade(&token);
    bench.manager.token_refreshed("vol-0", token);
    let mut states = bench.attach(0).await;
    ready(&mut states).await;
    assert_eq!(bench.server.asked()[0].evidence, "a token");
    assert_eq!(held.strong_count(), 1, "the request has let go of it");
    bench.manager.volume_removed("vol-0");
    until(&mut states, "gone", |state| matches!(state, WorkloadState::Gone)).await;
    assert_eq!(held.strong_count(), 0, "wiped");
}

/// Covers EP-08.
#[tokio::test(start_paused = true)]
async fn a_process_is_served_while_it_waits_and_not_renewed_for_nobody() {
    let bench = Bench::new();
    let caller = Caller::Peer(crate::unix::tests::own_peer());
    let mut states = bench.manager.attach(&caller).await.unwrap();
    let first = ready(&mut states).await;
    let uid = nix::unistd::geteuid().as_raw();
    assert_eq!(bench.server.asked()[0].evidence, format!("uid:{uid}"));
    renewed(&mut states, &first).await;
    assert_eq!(bench.server.asked().len(), 2);
    let mut again = bench.manager.attach(&caller).await.unwrap();
    ready(&mut again).await;
    assert_eq!(bench.server.asked().len(), 2, "the same program shares the leaf");
    drop((states, again));
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    assert_eq!(bench.server.asked().len(), 2);
    assert!(bench.manager.status().await.is_empty(), "forgotten with its leaf");
}

#[tokio::test(start_paused = true)]
async fn a_user_with_countless_programs_leaves_room_for_others() {
    let bench = Bench::new();
    let attach = async |uid: u32, program: usize| {
        let (reply, answer) = oneshot::channel();
        let turn = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let question = Question::AttachProcess {
            facts: UnixFacts {
                uid,
                gid: uid,
                path: Some(format!("/srv/{uid}/{program}")),
                sha256: None,
            },
            peer: crate::unix::tests::own_peer(),
            reply,
            turn,
        };
        assert!(bench.manager.questions.send(question).await.is_ok());
        answer.await.unwrap()
    };
    let mut held = Vec::new();
    for program in 0..admission::MAX_PROGRAMS_PER_USER {
        held.push(attach(1000, program).await.unwrap());
    }
    assert!(matches!(
        attach(1000, usize::MAX).await,
        Err(AttachError::Unavailable(_))
    ));
    attach(1001, 0).await.unwrap();
    held.pop();
    attach(1000, usize::MAX).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_agent_is_told_to_everyone() {
    let bench = Bench::new();
    let mut states = bench.pod().await;
    ready(&mut states).await;
    assert!(bench.drain.finish(Duration::from_secs(5)).await);
    assert!(matches!(*states.borrow(), WorkloadState::Gone));
    let outcome = bench.manager.attach(&volume("vol-0", "pod-0")).await;
    assert!(matches!(outcome, Err(AttachError::Unavailable(_))));
}
