use std::fs::{self, File};
use std::path::{Path, PathBuf};

use signet_certs::authority::X509Authority;
use signet_runtime::files::LONGEST_NAME;
use signet_runtime::ready::{Level, Readiness};
use signet_runtime::telemetry::Metrics;
use signet_testkit::{DOMAIN, authority, crl, leaf, roots};
use signet_workload::{Code, GrantedSvid, TrustedAuthority, X509Context, X509Svid};
use tokio::time::{advance, sleep};

use super::earlier::earlier;
use super::*;
use crate::files::Layout;
use crate::write::Which;
use crate::write::standing::REASONS;
use crate::write::teller::{Progress, Teller};

fn plan(directory: &Path, layout: Layout, which: Which) -> Plan {
    Plan {
        endpoint: "unix:///nowhere".parse().unwrap(),
        which,
        directory: directory.to_owned(),
        layout,
        hook: None,
        hook_timeout: LOOK,
        telemetry: None,
        once: None,
    }
}

/// A publisher and a teller at work on a folder, and the agent they hear of.
struct Bench {
    folder: tempfile::TempDir,
    authority: X509Authority,
    svid: Arc<X509Svid>,
    agent: watch::Sender<SourceState>,
    hangup: watch::Sender<()>,
    readiness: Readiness,
    observed: Observed,
    progress: watch::Receiver<Progress>,
    drain: Drain,
}

impl Bench {
    fn start() -> Self {
        Self::with(Layout::default())
    }

    fn with(layout: Layout) -> Self {
        Self::after(|_, _| {}, layout)
    }

    /// In a folder where an earlier run has left something.
    fn after(left: impl FnOnce(&Path, &Layout), layout: Layout) -> Self {
        let folder = signet_testkit::folder();
        left(&folder.path().join("files"), &layout);
        let plan = Arc::new(plan(&folder.path().join("files"), layout, Which::Default));
        let (readiness, drain) = (Readiness::new(REASONS), Drain::new());
        let observed = Observed::register(&Metrics::new("x"));
        let standing = Arc::new(Standing::new(&readiness));
        let (agent, hangup) = (watch::Sender::default(), watch::Sender::default());
        let teller = Teller::new(plan.clone(), observed.clone(), standing.clone());
        let (progress, published) = (teller.progress(), teller.published());
        let publisher = Publisher::new(plan, agent.subscribe(), observed.clone(), standing, published);
        drain.spawn(teller.run(drain.clone()));
        drain.spawn(publisher.run(drain.clone(), Reread::by(hangup.subscribe())));
        let authority = authority(DOMAIN);
        Self {
            svid: Arc::new(leaf(&authority, "/ns/a/sa/b").svid()),
            folder,
            authority,
            agent,
            hangup,
            readiness,
            observed,
            progress,
            drain,
        }
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// The agent gives the identity, with a list of this number, which it returns.
    fn gives(&self, number: u64) -> String {
        let list = crl(&self.authority, number, &[]);
        let roots = Arc::new(roots(&[(&self.authority, Some(&list))]));
        let granted = GrantedSvid {
            svid: self.svid.clone(),
            hint: String::new(),
        };
        let svids = vec![granted].into();
        self.agent.send_modify(|state| {
            state.context = Some(X509Context {
                svids,
                roots: roots.clone(),
            });
            state.roots = Some(roots);
            state.problem = None;
        });
        list.pem()
    }

    fn says(&self, problem: impl Into<SourceError>) {
        let problem = Some(Arc::new(problem.into()));
        self.agent.send_modify(|state| state.problem = problem);
    }

    fn has(&self, list: &str) {
        let found = fs::read_to_string(self.files().join("crl.pem")).unwrap();
        assert_eq!(found, list);
    }

    /// Waits until its reader was told of so many sets.
    async fn told(&mut self, sets: u64) {
        let told = |progress: &Progress| progress.counts() == (sets, sets);
        self.progress.wait_for(told).await.unwrap();
    }

    async fn stands(&self, reasons: &[&str]) {
        while self.readiness.names(Level::Issue) != reasons {
            let named = self.readiness.names(Level::Issue);
            self.readiness.differs(Level::Issue, &named).await;
        }
    }

    async fn end(self) {
        assert!(self.drain.finish(LOOK).await);
    }
}

#[tokio::test(start_paused = true)]
async fn of_lists_that_come_one_after_the_other_few_are_written_and_the_last_is_told() {
    let mut bench = Bench::start();
    bench.gives(1);
    bench.told(1).await;
    let mut last = String::new();
    for number in 2..=50 {
        last = bench.gives(number);
        sleep(Duration::from_millis(200)).await;
    }
    let written = bench.observed.publications.get();
    assert!((3..=8).contains(&written), "{written} sets in ten seconds");
    sleep(Duration::from_secs(3)).await;
    bench.has(&last);
    let written = bench.observed.publications.get();
    bench.told(written).await;
    assert!(written <= 9, "{written} sets");
    let generations = fs::read_dir(bench.files()).unwrap().count();
    assert!(generations < 20, "{generations} entries");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_takes_nothing_is_not_tried_with_each_change_and_recovers_by_itself() {
    let mut bench = Bench::start();
    bench.gives(1);
    bench.told(1).await;
    fs::rename(bench.files(), bench.folder.path().join("away")).unwrap();
    fs::write(bench.files(), "").unwrap();
    let mut last = String::new();
    for number in 2..=150 {
        last = bench.gives(number);
        sleep(Duration::from_millis(200)).await;
    }
    let failures = bench.observed.publish_failures.get();
    assert!(
        (3..=12).contains(&failures),
        "{failures} failures in thirty seconds"
    );
    assert_eq!(bench.readiness.names(Level::Issue), ["not_written"]);
    fs::remove_file(bench.files()).unwrap();
    bench.told(2).await;
    bench.has(&last);
    bench.stands(&[]).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_hangup_has_the_set_written_once_more_and_takes_no_verdict_away() {
    let mut bench = Bench::start();
    bench.stands(&["no_identity"]).await;
    bench.gives(1);
    bench.told(1).await;
    bench.says(MessageError::NoSvids);
    bench.stands(&["agent_away"]).await;
    bench.says(MessageError::NoHint("x".to_owned()));
    bench.stands(&["no_identity"]).await;
    let (code, message) = (Code::PermissionDenied, "revoked".to_owned());
    bench.says(SourceError::Stream { code, message });
    bench.hangup.send_replace(());
    bench.told(2).await;
    assert_eq!(bench.readiness.names(Level::Issue), ["no_identity"]);
    let standing = bench.readiness.standing(Level::Serve);
    assert!(standing[0].detail.contains("revoked"), "{standing:?}");

    // A hangup whose writing fails says that, and not that nothing was ever written.
    bench.gives(1);
    bench.stands(&[]).await;
    fs::rename(bench.files(), bench.folder.path().join("away")).unwrap();
    fs::write(bench.files(), "").unwrap();
    bench.hangup.send_replace(());
    bench.stands(&["not_written"]).await;
    fs::remove_file(bench.files()).unwrap();
    bench.told(3).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_set_that_lacks_a_name_is_no_success_and_nobody_is_told_of_it() {
    let mut files: Vec<crate::files::File> = ["svid=svid.pem", "key=k"]
        .map(|text| text.parse().unwrap())
        .into();
    files[1].name = "n".repeat(LONGEST_NAME + 1);
    let bench = Bench::with(Layout::of(files).unwrap());
    bench.gives(1);
    bench.stands(&["no_identity", "not_written"]).await;
    sleep(Duration::from_secs(30)).await;
    assert!(bench.files().join("svid.pem").exists());
    assert!(bench.observed.publish_failures.get() > 2, "it is tried again");
    assert_eq!(bench.observed.publications.get(), 0);
    assert_eq!(bench.progress.borrow().counts(), (0, 0));
    let standing = bench.readiness.standing(Level::Serve);
    assert!(
        standing[1].detail.contains("cannot make the link"),
        "{standing:?}"
    );
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_stands_in_a_links_way_holds_nothing_up() {
    let mut bench = Bench::start();
    fs::create_dir_all(bench.files().join("..svid.pem.new/below")).unwrap();
    let list = bench.gives(1);
    bench.told(1).await;
    bench.has(&list);
    bench.stands(&[]).await;
    assert!(bench.files().join("svid.pem").exists());
    bench.end().await;
}

/// A set of an identity, as an earlier run has written it.
fn written(directory: &Path, layout: &Layout, svid: &X509Svid, authority: &X509Authority) {
    let list = crl(authority, 1, &[]);
    let trusted = TrustedAuthority {
        certificate: authority.certificate().clone(),
        crl: Some(list),
    };
    let _ = layout.fill(svid, &[trusted]).write(directory).unwrap();
}

/// Whoever has files need not wait for the agent.
#[tokio::test(start_paused = true)]
async fn the_set_of_an_earlier_run_counts_until_there_is_another_which_is_told_whatever_it_holds() {
    let authority = authority(DOMAIN);
    let svid = leaf(&authority, "/ns/a/sa/b").svid();
    let left = |directory: &Path, layout: &Layout| written(directory, layout, &svid, &authority);
    let mut bench = Bench::after(left, Layout::default());
    bench.stands(&["earlier_set"]).await;
    let standing = bench.readiness.standing(Level::Issue);
    assert!(
        standing[0].detail.contains(&rfc3339(svid.not_after())),
        "{standing:?}"
    );
    assert!(bench.readiness.is_ready(Level::Serve));
    bench.says(SourceError::Hung(LOOK));
    bench.stands(&["agent_away", "earlier_set"]).await;
    let (code, message) = (Code::PermissionDenied, "revoked".to_owned());
    bench.says(SourceError::Stream { code, message });
    bench.stands(&["earlier_set", "no_identity"]).await;
    assert_eq!(bench.progress.borrow().counts(), (0, 0));
    (bench.svid, bench.authority) = (Arc::new(svid), authority);
    let list = bench.gives(1);
    bench.told(1).await;
    bench.has(&list);
    bench.stands(&[]).await;
    bench.end().await;
}

#[test]
fn what_an_earlier_run_left_in_part_or_for_too_long_is_no_set() {
    let authority = authority(DOMAIN);
    let key = leaf(&authority, "/ns/a/sa/b").svid();
    let key = signet_certs::pem::encode("PRIVATE KEY", key.key().pkcs8_der());
    let faults: [&dyn Fn(&Path); 5] = [
        &|directory| fs::remove_file(directory.join("..data/svid_key.pem")).unwrap(),
        &|directory| fs::remove_file(directory.join("crl.pem")).unwrap(),
        &|directory| fs::remove_file(directory.join("..data")).unwrap(),
        &|directory| fs::write(directory.join("svid_key.pem"), &key).unwrap(),
        &|directory| fs::write(directory.join("svid.pem"), "-----BEGIN half").unwrap(),
    ];
    for (number, fault) in faults.iter().enumerate() {
        let folder = signet_testkit::folder();
        let svid = leaf(&authority, "/ns/a/sa/b").svid();
        written(folder.path(), &Layout::default(), &svid, &authority);
        let id = |path: &str| Which::Id(signet_testkit::id(path));
        let found = |which, now| earlier(&plan(folder.path(), Layout::default(), which), now);
        let (ends, now) = (svid.not_after(), signet_testkit::now());
        assert_eq!(found(Which::Default, now), Some(ends));
        assert_eq!(found(id("/ns/a/sa/b"), ends), Some(ends));
        assert_eq!(found(id("/ns/a/sa/c"), now), None, "another identity");
        assert_eq!(found(Which::Default, ends + LOOK), None, "it has ended");
        fault(folder.path());
        assert_eq!(found(Which::Default, now), None, "fault {number}");
    }
    let nothing = plan(Path::new("/nobody/is/here"), Layout::default(), Which::Default);
    assert_eq!(earlier(&nothing, signet_testkit::now()), None);
}

/// Time stands still while something blocks, but for where the test says so.
#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_said_and_does_not_hold_up_the_look_at_the_clock() {
    let mut bench = Bench::start();
    fs::create_dir(bench.files()).unwrap();
    let lock = File::create(bench.files().join("..lock")).unwrap();
    lock.try_lock().unwrap();
    bench.gives(1);
    let hangs = |bench: &Bench| bench.readiness.names(Level::Issue) == ["no_identity", "not_written"];
    let turns = HANGS.as_secs() / LOOK.as_secs();
    for step in 0.. {
        assert!(step < 2 * turns, "it is not said");
        tokio::task::yield_now().await;
        if hangs(&bench) {
            assert!(step >= turns, "said after {step} steps");
            break;
        }
        advance(LOOK).await;
    }
    let last = bench.gives(2);
    tokio::task::yield_now().await;
    assert!(hangs(&bench), "another set does not say that it is better");
    drop(lock);
    bench.told(2).await;
    bench.has(&last);
    bench.stands(&[]).await;
    bench.end().await;
}

#[test]
fn only_what_the_agent_has_decided_is_a_verdict() {
    let stream = |code| SourceError::Stream {
        code,
        message: String::new(),
    };
    for (problem, expected) in [
        (MessageError::NotPicked(1).into(), true),
        (MessageError::NoHint(String::new()).into(), true),
        (MessageError::NoSvids.into(), false),
        (MessageError::Malformed(String::new()).into(), false),
        (stream(Code::PermissionDenied), true),
        (stream(Code::Unavailable), false),
        (SourceError::Hung(LOOK), false),
    ] {
        assert_eq!(is_verdict(&problem), expected, "{problem}");
    }
}
