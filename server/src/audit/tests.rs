use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use signet_certs::authority::AuthorityKind;
use signet_certs::signer::{LocalSigner, SignatureAlgorithm};
use signet_runtime::clock::FakeClock;
use signet_runtime::drain::Drain;
use signet_runtime::signal::Reread;
use signet_runtime::sync::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

use super::verify::{FaultKind, ServerLog, Trusted, verify};
use super::{
    AuditAction, AuditCursor, AuditEmitter, AuditEvent, AuditKey, AuditLog, AuditPublicKey, AuditSink,
    AuditTail, EmitterParts, LineSink,
};
use crate::audit_event::StoredLine;
use crate::store::sqlite::SqliteStore;
use crate::store::suite::fixture::{at, authority, by_id, issuance, issued, revocation, trust_domain};
use crate::store::{AuditOutbox, BoxFuture, Journals as _, KeyChanges, Store, StoreFuture};

/// Kinds of faults, each with its line.
type Broken = Vec<(FaultKind, Option<u64>)>;

struct Fixture {
    /// Starts when the emitter ends before it was told to.
    drain: Drain,
    store: Arc<SqliteStore>,
    key: AuditKey,
    log: PathBuf,
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = signet_testkit::folder();
        let (signer, _) = LocalSigner::generate(SignatureAlgorithm::P256, &SystemRandom::new()).unwrap();
        Self {
            drain: Drain::new(),
            store: Self::open(&dir.path().join("store")),
            key: AuditKey::new(Arc::new(signer)),
            log: dir.path().join("audit.log"),
            dir,
        }
    }

    fn open(dir: &Path) -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open(dir, &trust_domain()).unwrap())
    }

    fn emitter(&self) -> AuditEmitter {
        let sink = AuditSink::File(self.log.clone()).open().unwrap();
        self.emitter_to(self.store.clone(), sink)
    }

    fn emitter_to(&self, outbox: Arc<dyn AuditOutbox>, sink: Box<dyn LineSink>) -> AuditEmitter {
        let parts = EmitterParts {
            outbox,
            server_id: self.store.info().server_id.clone(),
            key: self.key.clone(),
            sink,
            clock: Arc::new(FakeClock::new(at(0))),
            reread: Reread::never(),
            tail: AuditTail::new(&self.store.info().server_id, Some(&self.log)),
        };
        AuditEmitter::spawn(parts, self.drain.vital("audit log"))
    }

    /// An emitter onto this disk, which sees what the store lets go.
    fn emitter_onto(&self, disk: &Disk) -> AuditEmitter {
        let outbox = Watched {
            store: self.store.clone(),
            disk: disk.clone(),
        };
        self.emitter_to(Arc::new(outbox), Box::new(disk.clone()))
    }

    /// Lines that the store still holds, once it has done all that it was told before.
    async fn backlog(&self) -> u64 {
        self.store.probe().await.unwrap();
        let stored = *self.store.stored().borrow();
        stored - self.store.cursor().await.unwrap().sequence
    }

    /// Emits all there is.
    async fn emit(&self) {
        self.emitter().finish(by()).await;
    }

    async fn record(&self, event: AuditEvent) {
        let log = AuditLog::start(self.store.clone());
        log.record(event);
        log.flush().await;
    }

    async fn work(&self) {
        let store: Arc<dyn Store> = self.store.clone();
        let batch = ["/a", "/b", "/c"]
            .map(|path| issuance(path, "one", at(0)))
            .to_vec();
        store.issue(batch, at(0)).await.unwrap();
        issued(&store, "/d", "two", at(1)).await;
        store.revoke(revocation(by_id("/a"), at(2))).await.unwrap();
        self.record(started()).await;
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn verify(&self, text: &str) -> Result<ServerLog, Broken> {
        self.verify_by(text, self.key.public())
    }

    /// What a log says of itself by this key, or in what way it is not whole, and in which line.
    fn verify_by(&self, text: &str, key: AuditPublicKey) -> Result<ServerLog, Broken> {
        let file = self.dir.path().join("read.log");
        fs::write(&file, text).unwrap();
        let trusted = Trusted {
            keys: vec![key],
            ids: vec![],
        };
        let mut verdict = verify(&[file], &trusted, None).unwrap();
        match verdict.faults.told() {
            [] => Ok(verdict.servers.remove(0)),
            faults => Err(faults
                .iter()
                .map(|fault| (fault.kind, fault.at.as_ref().map(|at| at.line)))
                .collect()),
        }
    }
}

/// Longer than any end takes, and bounded.
fn by() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn started() -> AuditEvent {
    let action = AuditAction::ServerStarted {
        version: "1".into(),
        trust_domain: "example.org".into(),
        epoch: 1,
    };
    AuditEvent::new(at(3), action)
}

fn events(text: &str) -> Vec<String> {
    let event = |line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["event"].as_str().unwrap().to_owned()
    };
    text.lines().map(event).collect()
}

#[tokio::test]
async fn every_decision_is_one_line_in_order() {
    let fixture = Fixture::new();
    fixture.work().await;
    fixture.emit().await;
    let text = fixture.text();
    let expected = [
        "issued",
        "issued",
        "issued",
        "issued",
        "revoked",
        "server_started",
        "head",
    ];
    assert_eq!(events(&text), expected);
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["sequence"], 1);
    assert_eq!(line["spiffe_id"], "spiffe://example.org/a");
    assert_eq!(line["pod_uid"], "one");
    assert_eq!(line["evidence"], "pod-token");
    assert_eq!(line["time"], "2027-01-15T08:00:00Z");
    let revoked: serde_json::Value = serde_json::from_str(text.lines().nth(4).unwrap()).unwrap();
    assert_eq!(revoked["serials"][0]["serial"], line["serial"]);
    assert_eq!(
        (revoked["author"].as_str(), revoked["denial"].as_str()),
        (Some("alice"), Some("d1-1"))
    );
}

#[tokio::test]
async fn a_whole_log_verifies_over_restarts() {
    let mut fixture = Fixture::new();
    fixture.work().await;
    fixture.emit().await;
    let dir = fixture.dir.path().join("store");
    let other = fixture.dir.path().join("other");
    fixture.store = Fixture::open(&other);
    fixture.store = Fixture::open(&dir);
    fixture.work_again().await;
    fixture.emit().await;
    let summary = fixture.verify(&fixture.text()).unwrap();
    assert_eq!(
        (summary.lines, summary.repeated, summary.vouched_to),
        (7, 0, Some(7))
    );
    let boots: Vec<_> = fixture
        .text()
        .lines()
        .map(|line| line.contains("\"boot\":2"))
        .collect();
    assert_eq!(boots.iter().filter(|second| **second).count(), 1);
}

impl Fixture {
    async fn work_again(&self) {
        let store: Arc<dyn Store> = self.store.clone();
        issued(&store, "/e", "three", at(9)).await;
    }
}

/// A crash between writing lines and saving the cursor.
#[tokio::test]
async fn what_is_emitted_again_after_a_crash_is_the_same() {
    let mut fixture = Fixture::new();
    fixture.work().await;
    // The image is taken before anything is emitted; the log is what was emitted after.
    let image = fixture.dir.path().join("image");
    fs::create_dir(&image).unwrap();
    for file in ["signet.db", "signet.db-wal"] {
        fs::copy(fixture.dir.path().join("store").join(file), image.join(file)).unwrap();
    }
    fixture.emit().await;
    let mut torn = fixture.text();
    torn.push_str("{\"server\":\"cut o");
    fs::write(&fixture.log, torn).unwrap();
    fixture.store = Fixture::open(&image);
    fixture.work_again().await;
    fixture.emit().await;
    let summary = fixture.verify(&fixture.text()).unwrap();
    assert_eq!(
        (summary.lines, summary.repeated, summary.vouched_to),
        (7, 6, Some(7))
    );
}

#[tokio::test]
async fn changes_gaps_and_cut_tails_show() {
    let fixture = Fixture::new();
    fixture.work().await;
    fixture.emit().await;
    let text = fixture.text();
    let lines: Vec<&str> = text.lines().collect();
    let changed = text.replacen("spiffe://example.org/b", "spiffe://example.org/x", 1);
    assert_eq!(fixture.verify(&changed), Err(vec![(FaultKind::Changed, Some(3))]));
    let without = |gone: usize| {
        let kept: Vec<&str> = lines
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != gone)
            .map(|(_, line)| *line)
            .collect();
        fixture.verify(&kept.join("\n"))
    };
    assert_eq!(without(1), Err(vec![(FaultKind::Removed, Some(2))]));
    let (cut, unsigned) = ((FaultKind::CutOff, Some(6)), (FaultKind::Unsigned, None));
    assert_eq!(without(5), Err(vec![cut, unsigned]));
    assert_eq!(without(6), Err(vec![unsigned]));
    let swapped = [lines[1], lines[0]].join("\n");
    let moved = (FaultKind::Moved, Some(2));
    assert_eq!(fixture.verify(&swapped), Err(vec![moved, unsigned]));
    let (other, _) = LocalSigner::generate(SignatureAlgorithm::P256, &SystemRandom::new()).unwrap();
    let other = AuditKey::new(Arc::new(other)).public();
    let forged = (FaultKind::Forged, Some(7));
    assert_eq!(fixture.verify_by(&text, other), Err(vec![forged, unsigned]));
    let head = text.replace("\"sequence\":6,\"hash\"", "\"sequence\":5,\"hash\"");
    assert_eq!(fixture.verify(&head), Err(vec![forged, unsigned]));
}

#[tokio::test]
async fn a_sink_that_fails_loses_nothing() {
    let fixture = Fixture::new();
    let emitter = fixture.emitter();
    fs::remove_file(&fixture.log).unwrap();
    fs::create_dir(&fixture.log).unwrap();
    fixture.work().await;
    emitter.finish(by()).await;
    fs::remove_dir(&fixture.log).unwrap();
    fixture.emit().await;
    assert_eq!(fixture.verify(&fixture.text()).unwrap().lines, 6);
}

/// It stops without a word of the sink's: nobody may take a server for audited whose emitter is gone.
#[tokio::test]
async fn an_emitter_that_panics_ends_the_server() {
    struct Broken;

    impl LineSink for Broken {
        fn write(&mut self, _: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
            panic!("by a fault of the sink")
        }

        fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
            Box::pin(async { Ok(()) })
        }

        fn reopen(&mut self) -> BoxFuture<'_, io::Result<()>> {
            Box::pin(async { Ok(()) })
        }
    }

    let fixture = Fixture::new();
    fixture.work().await;
    let emitter = fixture.emitter_to(fixture.store.clone(), Box::new(Broken));
    fixture.drain.signalled().await;
    assert_eq!(fixture.drain.failure(), Some("audit log"));
    emitter.finish(by()).await;
    assert_eq!(fixture.backlog().await, 6);
}

/// A disk that loses what was not synced when a sync fails, as Linux may.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    order: Vec<&'static str>,
    written: Vec<u8>,
    durable: Vec<u8>,
    sync_failures: u32,
    hangs: bool,
}

impl Disk {
    fn durable(&self) -> String {
        String::from_utf8(self.0.lock().durable.clone()).unwrap()
    }

    fn order(&self) -> Vec<&'static str> {
        self.0.lock().order.clone()
    }
}

impl LineSink for Disk {
    fn write(&mut self, lines: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            if self.0.lock().hangs {
                std::future::pending::<()>().await;
            }
            let mut disk = self.0.lock();
            disk.order.push("write");
            disk.written.extend(lines);
            Ok(())
        })
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            let mut disk = self.0.lock();
            let written = std::mem::take(&mut disk.written);
            if disk.sync_failures > 0 {
                disk.sync_failures -= 1;
                return Err(io::Error::other("a bad block"));
            }
            disk.order.push("sync");
            disk.durable.extend(written);
            Ok(())
        })
    }

    fn reopen(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// A store whose letting go is written down beside what happens on the disk.
struct Watched {
    store: Arc<SqliteStore>,
    disk: Disk,
}

impl AuditOutbox for Watched {
    fn append(&self, events: Vec<AuditEvent>) -> StoreFuture<'_, ()> {
        self.store.append(events)
    }

    fn stored(&self) -> watch::Receiver<u64> {
        self.store.stored()
    }

    fn bound(&self, most: Option<u64>) {
        self.store.bound(most);
    }

    fn left_out(&self) -> u64 {
        self.store.left_out()
    }

    fn cursor(&self) -> StoreFuture<'_, AuditCursor> {
        self.store.cursor()
    }

    fn head(&self) -> StoreFuture<'_, Option<String>> {
        self.store.head()
    }

    fn lines_after(&self, sequence: u64, limit: usize) -> StoreFuture<'_, Vec<StoredLine>> {
        self.store.lines_after(sequence, limit)
    }

    fn advance(&self, cursor: AuditCursor, head: Option<String>) -> StoreFuture<'_, ()> {
        self.disk.0.lock().order.push("advance");
        self.store.advance(cursor, head)
    }
}

/// A loss of power at any moment costs no line: the disk has them before the store lets them go.
#[tokio::test]
async fn lines_leave_the_store_only_once_the_disk_has_them() {
    let (fixture, disk) = (Fixture::new(), Disk::default());
    fixture.work().await;
    fixture.emitter_onto(&disk).finish(by()).await;
    assert_eq!(disk.order(), ["write", "write", "sync", "advance"]);
    assert_eq!(fixture.verify(&disk.durable()).unwrap().lines, 6);
}

#[tokio::test]
async fn what_a_failed_sync_has_lost_is_written_again() {
    let (fixture, disk) = (Fixture::new(), Disk::default());
    fixture.work().await;
    disk.0.lock().sync_failures = 2;
    tokio::time::pause();
    let emitter = fixture.emitter_onto(&disk);
    // Paused time runs ahead of the disk, so the bound is on turns, not on time.
    for turn in 0.. {
        assert!(turn < 1_000_000, "nothing was let go: {:?}", disk.order());
        if disk.order().contains(&"advance") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::resume();
    emitter.finish(by()).await;
    assert_eq!(fixture.verify(&disk.durable()).unwrap().lines, 6);
    assert_eq!(fixture.backlog().await, 0);
}

#[tokio::test]
async fn a_head_that_a_failed_sync_has_lost_is_signed_again() {
    let (fixture, disk) = (Fixture::new(), Disk::default());
    fixture.work().await;
    tokio::time::pause();
    let emitter = fixture.emitter_onto(&disk);
    // Paused time runs ahead of the disk, so the bound is on turns, not on time.
    let mut failed = false;
    for turn in 0.. {
        assert!(turn < 100_000, "no head: {:?}", disk.order());
        if !failed && disk.order().contains(&"advance") {
            disk.0.lock().sync_failures = 1;
            failed = true;
        }
        if failed && disk.durable().contains("\"head\"") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(disk.0.lock().sync_failures, 0);
    tokio::time::resume();
    emitter.finish(by()).await;
    assert_eq!(fixture.verify(&disk.durable()).unwrap().vouched_to, Some(6));
}

#[tokio::test]
async fn a_sink_that_hangs_holds_up_no_end_and_loses_nothing() {
    let (fixture, disk) = (Fixture::new(), Disk::default());
    fixture.work().await;
    disk.0.lock().hangs = true;
    tokio::time::pause();
    fixture.emitter_onto(&disk).finish(by()).await;
    assert_eq!(fixture.backlog().await, 6);
}

#[tokio::test]
async fn the_head_is_signed_while_the_server_runs() {
    let fixture = Fixture::new();
    fixture.work().await;
    tokio::time::pause();
    let emitter = fixture.emitter();
    // Paused time runs ahead of the disk, so the bound is on turns, not on time.
    for turn in 0.. {
        assert!(turn < 1_000_000, "no head");
        if fs::read_to_string(&fixture.log).is_ok_and(|text| text.contains("\"head\"")) {
            break;
        }
        tokio::time::sleep(super::emitter::HEAD_INTERVAL / 10).await;
    }
    emitter.finish(by()).await;
    let text = fixture.text();
    assert_eq!(
        events(&text).iter().filter(|event| *event == "head").count(),
        1,
        "nothing new, no second head"
    );
    fixture.verify(&text).unwrap();
}

#[tokio::test]
async fn emitted_lines_leave_the_store() {
    let fixture = Fixture::new();
    fixture.work().await;
    assert_eq!(fixture.backlog().await, 6);
    fixture.emit().await;
    assert_eq!(fixture.backlog().await, 0);
    assert_eq!(fixture.store.lines_after(0, 100).await.unwrap(), []);
}

/// Rows of a rotation are written with the journal, or not at all.
#[tokio::test]
async fn a_journal_that_lost_leaves_no_line() {
    let fixture = Fixture::new();
    let kind = AuthorityKind::X509;
    for expected in [0, 0] {
        let action = AuditAction::AuthorityExpired {
            kind,
            authority_id: authority(1),
        };
        let audit = vec![AuditEvent::new(at(0), action)];
        drop(
            fixture
                .store
                .save_journal(kind, expected, vec![], KeyChanges::default(), audit)
                .await,
        );
    }
    fixture.emit().await;
    assert_eq!(events(&fixture.text()), ["authority_expired", "head"]);
}

#[tokio::test]
async fn a_refusal_is_written_with_its_reason() {
    let fixture = Fixture::new();
    let action = AuditAction::Refused {
        caller: "spiffe://example.org/signet/agent/c/n".into(),
        operation: "issue".into(),
        kind: "not_attested",
        reason: "the pod runs on another node".into(),
        spiffe_id: None,
        pod_uid: Some("one".into()),
    };
    fixture.record(AuditEvent::new(at(0), action)).await;
    fixture.emit().await;
    let text = fixture.text();
    assert!(
        text.contains(r#""reason":"the pod runs on another node","spiffe_id":null,"pod_uid":"one"}"#),
        "{text}"
    );
}
