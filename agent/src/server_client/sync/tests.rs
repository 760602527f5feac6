//! The trust stream over a fake server, in paused time.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use signet_certs::authority::X509Authority;
use signet_runtime::clock::FakeClock;
use signet_runtime::ready::{Level, Readiness, Reason};
use signet_testkit::{DOMAIN, at, control_authority, trust_domain};
use tokio::time::timeout;

use super::kept_out::KEPT_OUT;
use super::*;
use crate::server_client::fake::{FakeServer, offered};
use crate::server_client::trust::Said;

type Updates = mpsc::UnboundedSender<Result<TrustUpdate, ServerError>>;

const NOT_BELIEVED: Reason = Reason {
    name: "not_believed",
    level: Level::Issue,
    meaning: "a test's",
};

struct Bench {
    server: Arc<FakeServer>,
    directory: tempfile::TempDir,
    certificate: watch::Sender<Option<SerialNumber>>,
    state: watch::Receiver<Option<Arc<TrustState>>>,
    notices: mpsc::Receiver<Notice>,
    connection: watch::Receiver<Connection>,
    outage: watch::Receiver<Option<SystemTime>>,
    objections: Arc<Objections>,
    clock: FakeClock,
    readiness: Readiness,
    anchors: Arc<ControlAnchors>,
}

impl Bench {
    fn start() -> (Self, Updates) {
        let clock = FakeClock::new(at(0));
        let server = FakeServer::new(Arc::new(clock.clone()));
        let updates = server.next_stream();
        let directory = signet_testkit::folder();
        let pem = directory.path().join("anchors.pem");
        fs::write(&pem, server.state().control.certificate().pem()).unwrap();
        let anchors = ControlAnchors::load(&trust_domain(), &pem, directory.path(), clock.now()).unwrap();
        let certificate = watch::Sender::new(serial(1));
        let (state, connection) = (
            watch::Sender::new(None),
            watch::Sender::new(Connection::none_since(at(0))),
        );
        let outage = watch::Sender::default();
        let (notices, heard) = mpsc::channel(16);
        let readiness = Readiness::new(&[NOT_BELIEVED]);
        let objections = Arc::new(Objections::default());
        let sync = TrustSync {
            api: server.clone(),
            anchors: anchors.clone(),
            trust_domain: trust_domain(),
            time: AgentTime::new(Arc::new(clock.clone())),
            certificate: certificate.subscribe(),
            objections: objections.clone(),
            reports: watch::Sender::new(TrustReport::default()).subscribe(),
            state: state.clone(),
            notices,
            file: TrustFile::new(directory.path()),
            outage: outage.clone(),
            connection: connection.clone(),
            backoff: Backoff::between(Duration::from_secs(1), Duration::from_secs(30)),
            not_believed: readiness.condition(NOT_BELIEVED),
            kept_out: None,
        };
        tokio::spawn(sync.run(Drain::new()));
        let (state, connection) = (state.subscribe(), connection.subscribe());
        (
            Self {
                server,
                directory,
                certificate,
                state,
                notices: heard,
                connection,
                outage: outage.subscribe(),
                objections,
                clock,
                readiness,
                anchors,
            },
            updates,
        )
    }

    fn update(&self, sequence: u64) -> TrustUpdate {
        let signer = self.server.state().signer.clone();
        self.server.update(sequence, &[signer], &[])
    }

    async fn sequence(&mut self, wanted: u64) {
        let held = |state: &Option<Arc<TrustState>>| {
            state
                .as_ref()
                .is_some_and(|state| state.bundle.sequence_number == wanted)
        };
        timeout(Duration::from_secs(600), self.state.wait_for(held))
            .await
            .unwrap()
            .unwrap();
    }

    async fn connection(&mut self, wanted: impl Fn(&Connection) -> bool) -> Connection {
        let found = timeout(
            Duration::from_secs(600),
            self.connection.wait_for(|state| wanted(state)),
        );
        found.await.unwrap().unwrap().clone()
    }

    async fn notice(&mut self) -> Notice {
        timeout(Duration::from_secs(600), self.notices.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_named_and_not_held_is_asked_for_and_believed_when_it_comes() {
    let (mut bench, updates) = Bench::start();
    updates.send(Ok(bench.update(1))).unwrap();
    bench.sequence(1).await;
    let mut answers = bench.server.state().answers.take().unwrap();
    let mut named = bench.update(2);
    named.x509[0].named = Some([7; 32]);
    named.x509[0].crl = Bytes::new();
    updates.send(Ok(named)).unwrap();
    bench.sequence(2).await;
    let lacking = answers.recv().await.unwrap().lacking;
    assert_eq!(lacking, [bench.server.state().signer.certificate().id()]);
    assert_eq!(bench.connection.borrow().problem, "");
}

#[tokio::test(start_paused = true)]
async fn a_list_is_handed_over_once_and_only_when_it_is_asked_for() {
    let (mut bench, updates) = Bench::start();
    updates.send(Ok(bench.update(1))).unwrap();
    bench.sequence(1).await;
    let signer = bench.server.state().signer.certificate().id();
    let stranger = control_authority(DOMAIN).certificate().id();
    let mut answers = bench.server.state().answers.take().unwrap();
    for (sequence, wanted) in [
        (2, vec![]),
        (3, vec![stranger]),
        (4, vec![stranger, signer]),
        (5, vec![]),
    ] {
        let update = TrustUpdate {
            wanted,
            ..bench.update(sequence)
        };
        updates.send(Ok(update)).unwrap();
        bench.sequence(sequence).await;
    }
    let held = bench.state.borrow().as_ref().unwrap().x509[0]
        .crl
        .as_ref()
        .unwrap()
        .der()
        .clone();
    assert_eq!(answers.recv().await.unwrap().lists, [held]);
    drop(updates);
    assert_eq!(
        answers.recv().await,
        None,
        "the stream ended, and nothing else was said"
    );
}

fn serial(number: u8) -> Option<SerialNumber> {
    Some(SerialNumber::generate(at(0), &[number; 13]))
}

#[tokio::test(start_paused = true)]
async fn what_was_believed_stays_over_an_interruption() {
    let (mut bench, updates) = Bench::start();
    updates.send(Ok(bench.update(3))).unwrap();
    bench.sequence(3).await;
    assert_eq!(bench.notice().await, Notice::Connected);
    updates.send(Err(ServerError::unavailable("cut"))).unwrap();
    let lost = bench
        .connection(|connection| !connection.connected && !connection.problem.is_empty())
        .await;
    assert_eq!(lost.problem, "cut");
    bench.sequence(3).await;
    let again = bench.server.next_stream();
    again.send(Ok(bench.update(4))).unwrap();
    bench.sequence(4).await;
    assert_eq!(bench.notice().await, Notice::Connected);
    assert!(
        bench
            .connection(|connection| connection.connected)
            .await
            .problem
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn since_when_it_is_connected_changes_with_that_alone() {
    let (mut bench, updates) = Bench::start();
    assert_eq!(bench.connection.borrow().since, at(0));
    tokio::time::advance(Duration::from_secs(60)).await;
    updates.send(Ok(bench.update(9))).unwrap();
    let connected = bench.connection(|connection| connection.connected).await;
    let since = connected.since;
    assert!(since >= at(60), "{since:?}");
    tokio::time::advance(Duration::from_secs(60)).await;
    updates.send(Ok(bench.update(8))).unwrap();
    let troubled = bench
        .connection(|connection| !connection.problem.is_empty())
        .await;
    assert_eq!((troubled.connected, troubled.since), (true, since));
    updates.send(Err(ServerError::unavailable("cut"))).unwrap();
    let lost = bench.connection(|connection| !connection.connected).await;
    assert!(lost.since >= since + Duration::from_secs(60), "{:?}", lost.since);
}

/// Covers INV-3.
#[tokio::test(start_paused = true)]
async fn a_server_that_goes_back_is_not_believed_and_says_why() {
    let (mut bench, updates) = Bench::start();
    updates.send(Ok(bench.update(9))).unwrap();
    bench.sequence(9).await;
    updates.send(Ok(bench.update(8))).unwrap();
    let connection = bench
        .connection(|connection| !connection.problem.is_empty())
        .await;
    assert!(
        connection.problem.contains("fell from 9 to 8"),
        "{}",
        connection.problem
    );
    bench.sequence(9).await;
}

/// The bundle beside it counts.
#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_believed_is_said_and_holds_up_nothing() {
    let (mut bench, updates) = Bench::start();
    let mut update = bench.update(9);
    update.x509[0].crl = update.control[0].crl.clone();
    updates.send(Ok(update)).unwrap();
    bench.sequence(9).await;
    let said = bench
        .connection(|connection| connection.connected && !connection.problem.is_empty())
        .await;
    assert!(said.problem.contains("it has none"), "{}", said.problem);
    tokio::time::sleep(KEPT_OUT * 2).await;
    assert!(bench.readiness.is_ready(Level::Issue));
    updates.send(Ok(bench.update(10))).unwrap();
    bench
        .connection(|connection| connection.connected && connection.problem.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_believed_is_kept_for_a_restart() {
    let (mut bench, updates) = Bench::start();
    updates.send(Ok(bench.update(9))).unwrap();
    assert_eq!(bench.notice().await, Notice::Connected);
    let kept = TrustFile::new(bench.directory.path())
        .read(&trust_domain())
        .unwrap();
    assert_eq!(kept.bundle.sequence_number, 9);
}

/// What the server says of workloads concerns them though its bundle is not believed.
#[tokio::test(start_paused = true)]
async fn a_bundle_that_stays_kept_out_makes_the_agent_unready_until_one_is_believed() {
    let (mut bench, updates) = Bench::start();
    updates.send(Ok(bench.update(9))).unwrap();
    bench.sequence(9).await;
    assert_eq!(bench.notice().await, Notice::Connected);
    updates
        .send(Ok(TrustUpdate {
            affected: Some(Affected::All),
            ..bench.update(8)
        }))
        .unwrap();
    assert_eq!(bench.notice().await, Notice::Affected(Affected::All));
    let problem = bench.state.borrow().as_ref().unwrap().problem.clone();
    assert!(problem.contains("fell from 9 to 8"), "{problem}");
    tokio::time::sleep(KEPT_OUT - Duration::from_secs(1)).await;
    assert!(
        bench.readiness.is_ready(Level::Issue),
        "it may be over in a moment"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    let standing = bench.readiness.standing(Level::Issue);
    assert_eq!(standing[0].reason, NOT_BELIEVED);
    assert!(
        standing[0].detail.contains("fell from 9 to 8"),
        "{}",
        standing[0].detail
    );
    updates.send(Ok(bench.update(10))).unwrap();
    bench.sequence(10).await;
    assert!(bench.readiness.is_ready(Level::Issue));
}

#[tokio::test(start_paused = true)]
async fn what_keeps_the_server_from_issuing_is_known_until_it_says_otherwise_or_is_away() {
    let (mut bench, updates) = Bench::start();
    let reasons = vec!["clock_untrusted".to_owned()];
    let troubled = |sequence| TrustUpdate {
        not_issuing: reasons.clone(),
        ..bench.update(sequence)
    };
    // A bundle that is not believed says it as well.
    let (first, second) = (troubled(9), troubled(8));
    for update in [first, second] {
        updates.send(Ok(update)).unwrap();
        bench
            .connection(|connection| connection.connected && connection.not_issuing == reasons)
            .await;
    }
    updates.send(Ok(bench.update(9))).unwrap();
    bench
        .connection(|connection| connection.not_issuing.is_empty())
        .await;
    updates.send(Err(ServerError::unavailable("cut"))).unwrap();
    let lost = bench.connection(|connection| !connection.connected).await;
    assert!(lost.not_issuing.is_empty(), "an absent server says nothing");
}

/// Lists and bundle are public: whoever has no certificate, or one that is not accepted, hears of them all the same, and is not
/// taken for connected. Of the rules nothing is said there, and nothing is concluded.
#[tokio::test(start_paused = true)]
async fn without_a_certificate_that_counts_what_is_public_is_read_now_and_then() {
    let (mut bench, updates) = Bench::start();
    updates
        .send(Ok(TrustUpdate {
            policy_revision: 5,
            ..bench.update(1)
        }))
        .unwrap();
    bench.sequence(1).await;
    assert_eq!(bench.notice().await, Notice::Connected);
    assert_eq!(bench.server.state().reads, 0, "the stream says it all");
    let public = TrustUpdate {
        policy_revision: 0,
        ..bench.update(2)
    };
    bench.server.state().public = Some(public);
    updates
        .send(Err(ServerError::Unauthenticated("revoked".to_owned())))
        .unwrap();
    bench.sequence(2).await;
    assert_eq!(bench.state.borrow().as_ref().unwrap().policy_revision, 5);
    assert!(!bench.connection.borrow().connected);

    bench.certificate.send_replace(None);
    let before = bench.server.state().reads;
    tokio::time::sleep(Duration::from_secs(150)).await;
    let reads = bench.server.state().reads - before;
    assert!((9..=15).contains(&reads), "{reads} in 150 s");
    assert!(bench.notices.try_recv().is_err(), "no workload is concerned");
    let kept = TrustFile::new(bench.directory.path()).read(&trust_domain());
    assert_eq!(kept.unwrap().bundle.sequence_number, 2);
}

#[tokio::test(start_paused = true)]
async fn affected_pods_are_passed_on_and_missed_changes_concern_everyone() {
    let (mut bench, updates) = Bench::start();
    let pods = Affected::Pods(vec!["pod-1".to_owned()]);
    updates.send(Ok(bench.update(1))).unwrap();
    assert_eq!(bench.notice().await, Notice::Connected);
    updates
        .send(Ok(TrustUpdate {
            affected: Some(pods.clone()),
            ..bench.update(1)
        }))
        .unwrap();
    assert_eq!(bench.notice().await, Notice::Affected(pods));
    drop(updates);
    let again = bench.server.next_stream();
    again
        .send(Ok(TrustUpdate {
            policy_revision: 2,
            ..bench.update(1)
        }))
        .unwrap();
    assert_eq!(bench.notice().await, Notice::Connected);
    assert_eq!(bench.notice().await, Notice::Affected(Affected::All));
}

#[tokio::test(start_paused = true)]
async fn a_newer_certificate_opens_a_newer_stream() {
    let (mut bench, updates) = Bench::start();
    updates.send(Ok(bench.update(1))).unwrap();
    bench.sequence(1).await;
    let newer = bench.server.next_stream();
    newer.send(Ok(bench.update(2))).unwrap();
    bench.certificate.send_replace(serial(2));
    bench.sequence(2).await;
    assert_eq!(bench.server.state().streams_opened, 2);
    assert_eq!(bench.clock.now(), at(0), "at once");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_stays_does_not_disturb_the_stream() {
    let (mut bench, updates) = Bench::start();
    updates.send(Ok(bench.update(1))).unwrap();
    bench.sequence(1).await;
    bench.certificate.send_replace(serial(1));
    updates.send(Ok(bench.update(2))).unwrap();
    bench.sequence(2).await;
    assert_eq!(bench.server.state().streams_opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_accepted_wakes_the_node_attestor() {
    let (bench, updates) = Bench::start();
    updates
        .send(Err(ServerError::Unauthenticated("revoked".to_owned())))
        .unwrap();
    timeout(Duration::from_secs(1), bench.objections.heard())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn pushed_control_authorities_are_kept_for_a_restart() {
    let (mut bench, updates) = Bench::start();
    let newer = control_authority(DOMAIN);
    let mut update = bench.update(1);
    update.control = vec![offered(&newer, &[], at(0))];
    updates.send(Ok(update)).unwrap();
    bench.sequence(1).await;
    let path = bench.directory.path();
    let restarted = ControlAnchors::load(&trust_domain(), &path.join("anchors.pem"), path, at(1)).unwrap();
    let roots = restarted.roots().load();
    assert_eq!(
        roots.authorities(&trust_domain())[0].certificate.id(),
        newer.certificate().id()
    );
}

/// An outage of the cluster is told by what the server said last, whatever becomes of the bundle beside it and of the stream.
#[tokio::test(start_paused = true)]
async fn an_outage_stands_until_the_server_says_that_it_is_over() {
    let (mut bench, updates) = Bench::start();
    let away = TrustUpdate {
        unreachable_since: Some(at(5)),
        ..bench.update(1)
    };
    updates.send(Ok(away.clone())).unwrap();
    bench.sequence(1).await;
    assert_eq!(*bench.outage.borrow(), Some(at(5)));
    let again = bench.server.next_stream();
    drop(updates);
    bench.connection(|connection| !connection.connected).await;
    assert_eq!(*bench.outage.borrow(), Some(at(5)), "nobody said that it is over");
    let unbelievable = TrustUpdate {
        x509: Vec::new(),
        unreachable_since: None,
        ..away
    };
    again.send(Ok(unbelievable)).unwrap();
    let over = bench.outage.wait_for(Option::is_none);
    timeout(Duration::from_secs(600), over).await.unwrap().unwrap();
}

/// What he pushed was believed, with numbers that nobody reaches again, and with the next authority as one that departed.
#[tokio::test(start_paused = true)]
async fn a_thief_is_not_heard_once_the_file_says_so_and_what_he_said_binds_nobody() {
    let (mut bench, updates) = Bench::start();
    let stolen = bench.server.state().control.clone();
    let next = control_authority(DOMAIN);
    let by = |authority: &X509Authority| Said::by(authority.certificate().id(), None);
    let his = TrustUpdate {
        departed: vec![next.certificate().id()],
        epoch: u64::MAX,
        said: by(&stolen),
        ..bench.update(u64::MAX)
    };
    updates.send(Ok(his.clone())).unwrap();
    bench.sequence(u64::MAX).await;
    let distrusting = format!(
        "distrusted: {}\n{}",
        stolen.certificate().id(),
        next.certificate().pem()
    );
    fs::write(bench.directory.path().join("anchors.pem"), distrusting).unwrap();
    assert!(bench.anchors.server_not_verified(at(1)).unwrap());
    // One more that was on its way.
    updates.send(Ok(his)).unwrap();
    let problem = bench
        .connection(|connection| !connection.problem.is_empty())
        .await
        .problem;
    assert!(problem.contains("the anchors file distrusts"), "{problem}");
    let again = bench.server.next_stream();
    drop(updates);
    let real = TrustUpdate {
        control: vec![offered(&next, &[], at(0))],
        said: by(&next),
        ..bench.update(7)
    };
    again.send(Ok(real)).unwrap();
    bench.sequence(7).await;
    let state = bench.state.borrow().clone().unwrap();
    assert!(state.problem.is_empty(), "{}", state.problem);
    for _ in 0..2 {
        assert_eq!(bench.notice().await, Notice::Connected, "kept by then");
    }
    let kept = TrustFile::new(bench.directory.path())
        .read(&trust_domain())
        .unwrap();
    assert_eq!((kept.said, kept.bundle.sequence_number), (by(&next), 7));
    let roots = bench.anchors.roots().load();
    let held: Vec<_> = roots
        .authorities(&trust_domain())
        .iter()
        .map(|one| one.certificate.id())
        .collect();
    assert_eq!(held, [next.certificate().id()]);
}
