//! Two operations at once, one of them held in front of each of its commands to the writer while the other one goes on: every pair,
//! over a store, an authority manager and a publisher as they run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::crl::CrlNumber;
use signet_certs::serial::SerialNumber;
use signet_runtime::clock::FakeClock;
use signet_runtime::drain::Drain;
use signet_runtime::sync::Mutex;
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::fresh_sqlite;
use crate::audit_event::AuditCursor;
use crate::authority::{
    AuthorityManager, AuthorityState, OperationSteps, Order, OrderError, OrderRequest, Refused, SpreadReports,
};
use crate::clock::TrustedClock;
use crate::fixtures::start;
use crate::publisher::Publisher;
use crate::store::sqlite::SqliteStore;
use crate::store::suite::fixture::{DAY, at, below, by_id, by_serial, issuance, issue, revocation};
use crate::store::{IssueRefusal, KnownTime, LedgerRow, NewIssuance, RevokeRequest, Store};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
/// The other operation gets so long beside the one that is held. It may well wait for that one, where both are served in turn.
const BESIDE: Duration = Duration::from_millis(25);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Issue,
    Revoke,
    Allow,
    Rotate,
    Activate,
    SignList,
    Prune,
}

const ALL: [Op; 7] = [
    Op::Issue,
    Op::Revoke,
    Op::Allow,
    Op::Rotate,
    Op::Activate,
    Op::SignList,
    Op::Prune,
];

/// A server's core, and what was promised by it.
struct World {
    sqlite: Arc<SqliteStore>,
    store: Arc<dyn Store>,
    manager: AuthorityManager,
    publisher: Publisher,
    /// Denies `/denied`.
    denial: String,
    /// Has a revocation that no list names yet.
    unlisted: u64,
    signed: Mutex<Vec<(SerialNumber, AuthorityId)>>,
    revoked: Mutex<Vec<(SerialNumber, AuthorityId)>>,
    lists: Mutex<BTreeMap<AuthorityId, (CrlNumber, Bytes)>>,
    drain: Drain,
    _reports: watch::Sender<SpreadReports>,
    _folders: [TempDir; 2],
}

impl World {
    async fn new(with_successor: bool) -> Arc<Self> {
        let ((sqlite, folder), kek) = (fresh_sqlite(), signet_testkit::folder());
        let store: Arc<dyn Store> = sqlite.clone();
        let (drain, reports) = (Drain::new(), watch::Sender::new(SpreadReports::default()));
        let clock = Arc::new(TrustedClock::agreed(Arc::new(FakeClock::new(at(0)))));
        let (manager, publisher) = start(store.clone(), kek.path(), clock, &reports, &drain).await;
        let mut world = Self {
            sqlite,
            store,
            manager,
            publisher,
            denial: String::new(),
            unlisted: 0,
            signed: Mutex::default(),
            revoked: Mutex::default(),
            lists: Mutex::default(),
            drain,
            _reports: reports,
            _folders: [folder, kek],
        };
        if with_successor {
            // It has not spread, and never does: no time passes here.
            world.begin(Order::Prepare { algorithm: None }).await.unwrap();
        }
        let long_ago = at(0) - 4 * DAY;
        issue(&world.store, issuance("/ended", "one", long_ago), long_ago)
            .await
            .unwrap();
        // What is written from now on is of now, and what was written before has been told.
        let marked = KnownTime {
            settled: None,
            ..KnownTime::settled(at(0))
        };
        world.store.housekeeping(marked).await.unwrap();
        let sequence = *world.store.stored().borrow();
        let told = AuditCursor {
            sequence,
            hash: [0; 32],
        };
        world.store.advance(told, None).await.unwrap();
        for path in ["/victim", "/listed"] {
            world.issue(path).await.unwrap();
        }
        let denied = world
            .store
            .revoke(revocation(by_id("/denied"), at(0)))
            .await
            .unwrap();
        world.denial = denied.denial.unwrap().id;
        let listed = world.signed.lock()[1].0;
        world.unlisted = world.revoke(revocation(by_serial(listed), at(0))).await;
        Arc::new(world)
    }

    fn active(&self) -> AuthorityId {
        let view = self.manager.current().borrow().clone();
        view.kind(AuthorityKind::X509).active().unwrap().id()
    }

    /// A row that is recorded is a certificate that may be signed.
    async fn issue(&self, path: &str) -> Result<(), IssueRefusal> {
        let item = NewIssuance {
            authority: self.active(),
            ..issuance(path, "one", at(0))
        };
        let recorded = self
            .store
            .issue(vec![item], at(0))
            .await
            .unwrap()
            .pop()
            .unwrap()?;
        let row = recorded.into_row();
        self.signed.lock().push((row.serial, row.authority));
        Ok(())
    }

    async fn revoke(&self, request: RevokeRequest) -> u64 {
        let revoked = self.store.revoke(request).await.unwrap();
        let svids = revoked.svids.iter().map(|svid| (svid.serial, svid.authority));
        self.revoked.lock().extend(svids);
        revoked.revision
    }

    async fn order(&self, order: Order) -> Result<(), Refused> {
        let mut steps = self.begin(order).await?;
        while steps.next().await.is_some() {}
        Ok(())
    }

    async fn begin(&self, order: Order) -> Result<OperationSteps, Refused> {
        let request = OrderRequest {
            kind: AuthorityKind::X509,
            order,
            author: "admin".to_owned(),
        };
        match self.manager.order(request).await {
            Ok(steps) => Ok(steps),
            Err(OrderError::Refused(refused)) => Err(refused),
            Err(error) => panic!("{error}"),
        }
    }

    async fn run(&self, op: Op) {
        match op {
            // After a denial it is refused.
            Op::Issue => drop(self.issue("/victim").await),
            Op::Revoke => {
                let request = RevokeRequest {
                    rooms: self.publisher.rooms(),
                    ..revocation(by_id("/victim"), at(0))
                };
                let revision = self.revoke(request).await;
                self.listed(revision).await;
            }
            Op::Allow => {
                self.store.allow(&self.denial, "bob", at(0)).await.unwrap();
                self.issue("/denied").await.unwrap();
            }
            Op::Rotate => {
                let order = Order::Rotate {
                    force: true,
                    algorithm: None,
                    retire: false,
                };
                self.order(order).await.unwrap();
            }
            // A rotation may have been there before it.
            Op::Activate => match self.order(Order::Activate { force: true }).await {
                Ok(()) | Err(Refused::NothingPrepared) => {}
                Err(other) => panic!("{other}"),
            },
            Op::SignList => self.listed(self.unlisted).await,
            Op::Prune => drop(self.store.housekeeping(KnownTime::settled(at(0))).await.unwrap()),
        }
    }

    /// All that was revoked by now is on a list within moments, and numbers have grown.
    async fn listed(&self, revision: u64) {
        let revoked = self.revoked.lock().clone();
        let authorities: BTreeSet<_> = revoked.iter().map(|(_, authority)| *authority).collect();
        let snapshot = self
            .publisher
            .wait_listed(revision, &authorities, LONG)
            .await
            .unwrap();
        let mut lists = self.lists.lock();
        for published in snapshot.all() {
            let (number, der) = (
                published.crl.number(),
                Bytes::copy_from_slice(published.crl.der()),
            );
            let before = lists.insert(published.certificate.id(), (number, der.clone()));
            if let Some((before, bytes)) = before {
                assert!(
                    number > before || number == before && der == bytes,
                    "{before:?}, then {number:?}"
                );
            }
        }
    }

    async fn check(&self, ops: [Op; 2]) {
        let all = self.store.list(below("")).await.unwrap();
        assert!(!all.truncated);
        let rows: BTreeMap<_, _> = all.rows.into_iter().map(|row| (row.serial, row)).collect();
        for (serial, authority) in self.signed.lock().iter() {
            let row = rows.get(serial);
            assert!(
                row.is_some_and(|row| row.authority == *authority),
                "{serial} was signed and has no row"
            );
        }
        if ops.contains(&Op::Revoke) {
            assert!(
                of(&rows, "/victim").all(|row| row.revoked.is_some()),
                "issued though it is denied"
            );
            assert!(self.issue("/victim").await.is_err());
        }
        assert_eq!(self.issue("/denied").await.is_ok(), ops.contains(&Op::Allow));
        assert_eq!(
            of(&rows, "/ended").count(),
            usize::from(!ops.contains(&Op::Prune))
        );
        let revision = self.store.revoked(self.active()).await.unwrap().revision;
        self.listed(revision).await;
        let stored = self.store.load_crls().await.unwrap();
        let stored: BTreeMap<_, _> = stored.iter().map(|crl| (crl.authority, crl)).collect();
        let snapshot = self.publisher.snapshots().borrow().clone();
        for (serial, authority) in self.revoked.lock().iter() {
            let published = snapshot.get(*authority).unwrap();
            assert!(
                published.crl.is_revoked(serial),
                "{serial} was revoked and is on no list"
            );
            assert_eq!(
                stored[authority].der,
                published.crl.der(),
                "what is served is stored"
            );
        }
        for kind in AuthorityKind::ALL {
            let view = self.manager.current().borrow().clone();
            let states = view.kind(kind).authorities.iter();
            let active = states.filter(|viewed| viewed.state == AuthorityState::Active);
            assert_eq!(active.count(), 1, "{kind}");
        }
        assert!(self.drain.finish(LONG).await);
    }
}

fn of<'a>(rows: &'a BTreeMap<SerialNumber, LedgerRow>, path: &'a str) -> impl Iterator<Item = &'a LedgerRow> {
    rows.values()
        .filter(move |row| row.workload.spiffe_id.path() == path)
}

/// How many commands `held` has sent when it ends: at each of them `beside` was run.
async fn pair(held: Op, beside: Op) -> usize {
    for before in 0.. {
        let ops = [held, beside];
        let world = World::new(ops.contains(&Op::Activate)).await;
        let run = |op| {
            let world = world.clone();
            tokio::spawn(async move { timeout(LONG, world.run(op)).await.unwrap() })
        };
        let at = world.sqlite.writer.gate.hold_after(before);
        let mut first = run(held);
        let is_held = tokio::select! {
            reached = at.reached => reached.is_ok(),
            ended = &mut first => {
                ended.unwrap();
                false
            }
        };
        let mut second = run(beside);
        let ended = timeout(BESIDE, &mut second).await;
        drop(at.release);
        if is_held {
            first.await.unwrap();
        }
        match ended {
            Ok(ended) => ended.unwrap(),
            Err(_) => second.await.unwrap(),
        }
        world.check(ops).await;
        if !is_held {
            return before;
        }
    }
    unreachable!("an operation ends");
}

/// Beside each of the others, itself too.
async fn beside_all(held: Op, commands: std::ops::RangeInclusive<usize>) {
    let mut pairs = JoinSet::new();
    for beside in ALL {
        pairs.spawn(async move { (beside, pair(held, beside).await) });
    }
    while let Some(sent) = pairs.join_next().await {
        let (beside, sent) = sent.unwrap();
        assert!(
            commands.contains(&sent),
            "{held:?} beside {beside:?}: {sent} commands"
        );
    }
}

macro_rules! held {
    ($($name:ident: $op:ident, $commands:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                beside_all(Op::$op, $commands).await;
            }
        )*
    };
}

held! {
    an_issue_is_held_beside_every_other: Issue, 1..=1;
    a_revocation_is_held_beside_every_other: Revoke, 2..=6;
    an_allow_is_held_beside_every_other: Allow, 2..=2;
    a_rotation_is_held_beside_every_other: Rotate, 3..=16;
    an_activation_is_held_beside_every_other: Activate, 1..=16;
    signing_a_list_is_held_beside_every_other: SignList, 1..=6;
    pruning_is_held_beside_every_other: Prune, 1..=16;
}

/// A look at the whole ledger stands in nobody's way, and nobody in its.
#[tokio::test]
async fn a_dry_run_waits_for_no_writer() {
    let (sqlite, _folder) = fresh_sqlite();
    let store: Arc<dyn Store> = sqlite.clone();
    let serial = crate::store::suite::fixture::issued(&store, "/a", "one", at(0)).await;
    let (goes_on, waits) = std::sync::mpsc::channel::<()>();
    let (busy, is_busy) = oneshot::channel();
    let writes = tokio::spawn(async move {
        let work = move |_: &mut crate::store::sqlite::writer::Tx<'_>| {
            let _ = busy.send(());
            let _ = waits.recv();
            Ok(())
        };
        sqlite.writer.run(1, work).await
    });
    is_busy.await.unwrap();
    let would = timeout(LONG, store.would_revoke(revocation(by_id("/a"), at(1)))).await;
    assert_eq!(would.unwrap().unwrap().svids[0].serial, serial);
    drop(goes_on);
    writes.await.unwrap().unwrap();
}
