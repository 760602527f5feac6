//! What is true of this adapter beyond the suite: files, crashes, full disks.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use signet_certs::id::TrustDomain;
use tempfile::TempDir;

use super::SqliteStore;
use crate::store::suite::fixture::{
    add_key, at, authority, below, by_id, by_serial, crl, displaced, free, issuance, issue, issued,
    revocation, to_list, trust_domain,
};
use crate::store::suite::store_suite;
use crate::store::{AuditOutbox as _, IssueRefusal, NewIssuance, OpenError, Store, StoreError, SvidFilter};

fn fresh_sqlite() -> (Arc<SqliteStore>, TempDir) {
    let dir = signet_testkit::folder();
    (
        Arc::new(SqliteStore::open(dir.path(), &trust_domain()).unwrap()),
        dir,
    )
}

fn fresh() -> (Arc<dyn Store>, TempDir) {
    let (store, dir) = fresh_sqlite();
    (store, dir)
}

fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(dir, &trust_domain()).unwrap())
}

/// What a power cut leaves of an open store: nothing is closed, nothing is flushed. The log is only appended to
/// (these tests stay below a checkpoint), so copying database before log is a state the disk went through.
fn crash_image(dir: &Path) -> TempDir {
    let image = signet_testkit::folder();
    for file in ["signet.db", "signet.db-wal"] {
        fs::copy(dir.join(file), image.path().join(file)).unwrap();
    }
    image
}

mod interleavings;
mod stalls;

store_suite!(fresh());

#[tokio::test]
async fn files_are_private() {
    let parent = signet_testkit::folder();
    let dir = parent.path().join("a/b");
    let store = open(&dir);
    issued(&store, "/a", "one", at(0)).await;
    assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o700);
    let files: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(files.len(), 5, "database, log, index, lock, reserve: {files:?}");
    for file in files {
        assert_eq!(
            file.metadata().unwrap().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
    }
}

#[tokio::test]
async fn a_directory_that_everybody_may_write_is_refused() {
    let dir = signet_testkit::folder();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        SqliteStore::open(dir.path(), &trust_domain()),
        Err(OpenError::Exposed { .. })
    ));
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_has_gone() {
    let (store, dir) = fresh();
    let error = SqliteStore::open(dir.path(), &trust_domain()).err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    drop(store);
    open(dir.path());
}

#[tokio::test]
async fn another_trust_domain_is_refused_and_leaves_no_trace() {
    let (store, dir) = fresh();
    assert_eq!((store.info().boot, store.info().was_empty), (1, true));
    drop(store);
    let other = TrustDomain::parse("example.com").unwrap();
    let error = SqliteStore::open(dir.path(), &other).err().unwrap().to_string();
    assert!(
        error.contains("example.org") && error.contains("example.com"),
        "{error}"
    );
    assert_eq!(open(dir.path()).info().boot, 2);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (store, dir) = fresh();
    drop(store);
    rusqlite::Connection::open(dir.path().join("signet.db"))
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = SqliteStore::open(dir.path(), &trust_domain()).err().unwrap();
    assert!(
        matches!(error, OpenError::NewerSchema { found: 99, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn junk_instead_of_a_database_is_refused() {
    let dir = signet_testkit::folder();
    fs::write(dir.path().join("signet.db"), "junk ".repeat(1000)).unwrap();
    assert!(matches!(
        SqliteStore::open(dir.path(), &trust_domain()),
        Err(OpenError::Database { .. })
    ));
}

/// Covers INV-3, INV-4, INV-11.
#[tokio::test]
async fn a_crash_loses_nothing_that_was_acknowledged() {
    let (store, dir) = fresh();
    add_key(&store, 1).await;
    let budgeted = |pod: &str| NewIssuance {
        budget: free(2),
        ..issuance("/budget", pod, at(0))
    };
    for _ in 0..2 {
        issue(&store, budgeted("one"), at(0)).await.unwrap();
    }
    let one = issued(&store, "/a", "one", at(0)).await;
    let two = issued(&store, "/b", "two", at(0)).await;
    store.revoke(revocation(by_serial(one), at(1))).await.unwrap();
    let denial = store
        .revoke(revocation(by_id("/b"), at(1)))
        .await
        .unwrap()
        .denial
        .unwrap();
    let set = store.revoked(authority(1)).await.unwrap();
    store.save_crl(crl(41, &set, at(2))).await.unwrap();
    let sequence = store.next_sequence([1; 32]).await.unwrap();
    let counts = store.live_counts(at(3)).await.unwrap();

    let image = crash_image(dir.path());
    let reopened = open(image.path());
    assert_eq!(reopened.info().boot, 2);
    assert!(!reopened.info().was_empty);
    assert_eq!(reopened.list(SvidFilter::default()).await.unwrap().rows.len(), 4);
    assert_eq!(to_list(&reopened).await, [one, two]);
    assert_eq!(reopened.revoked(authority(1)).await.unwrap(), set);
    assert_eq!(reopened.live_counts(at(3)).await.unwrap(), counts);
    assert_eq!(reopened.denials(false, at(3)).await.unwrap(), [denial]);
    assert!(matches!(
        issue(&reopened, issuance("/b", "x", at(3)), at(3)).await,
        Err(IssueRefusal::Denied { .. })
    ));
    assert_eq!(
        displaced(&reopened, budgeted("one"), at(3)).await,
        Ok(1),
        "the ledger knows what is free"
    );
    assert!(matches!(
        reopened.save_crl(crl(41, &set, at(3))).await,
        Err(StoreError::NotNewer { .. })
    ));
    assert!(reopened.next_sequence([2; 32]).await.unwrap() > sequence);
    assert!(
        reopened
            .load_journal(signet_certs::authority::AuthorityKind::X509)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(reopened.load_keys().await.unwrap().len(), 1);
}

/// Covers INV-4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_moment_keeps_what_was_acknowledged_before_it() {
    let (store, dir) = fresh();
    let (acknowledged, mut serials) = tokio::sync::mpsc::unbounded_channel();
    let issuers: Vec<_> = (0..4)
        .map(|n| {
            let (store, acknowledged) = (store.clone(), acknowledged.clone());
            tokio::spawn(async move {
                while acknowledged
                    .send(issued(&store, "/a", &format!("pod-{n}"), at(0)).await)
                    .is_ok()
                {}
            })
        })
        .collect();
    for _ in 0..5 {
        let mut known = vec![serials.recv().await.unwrap()];
        while let Ok(serial) = serials.try_recv() {
            known.push(serial);
        }
        let image = crash_image(dir.path());
        let filter = SvidFilter {
            limit: 10_000,
            ..SvidFilter::default()
        };
        let rows = open(image.path()).list(filter).await.unwrap().rows;
        let found: std::collections::HashSet<_> = rows.iter().map(|row| row.serial).collect();
        assert!(known.iter().all(|serial| found.contains(serial)));
    }
    drop(serials);
    for issuer in issuers {
        issuer.await.unwrap();
    }
}

#[tokio::test]
async fn closing_finishes_what_waits() {
    let (store, dir) = fresh();
    let serial = issued(&store, "/a", "one", at(0)).await;
    drop(store);
    assert_eq!(
        open(dir.path()).list(below("/a")).await.unwrap().rows[0].serial,
        serial
    );
}

async fn set_max_pages(store: &SqliteStore, pages: i64) {
    store
        .writer
        .run(0, move |tx| tx.conn.pragma_update(None, "max_page_count", pages))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_disk_fails_its_callers_and_nothing_else() {
    let (sqlite, _dir) = fresh_sqlite();
    let store: Arc<dyn Store> = sqlite.clone();
    let budgeted = || NewIssuance {
        budget: free(1),
        ..issuance("/budget", "one", at(0))
    };
    let pages: i64 = sqlite
        .writer
        .run(0, |tx| {
            tx.conn.pragma_query_value(None, "page_count", |r| r.get(0))
        })
        .await
        .unwrap();
    set_max_pages(&sqlite, pages).await;
    let batch = || {
        (0..500)
            .map(|_| issuance("/a", "one", at(0)))
            .chain([budgeted()])
            .collect::<Vec<_>>()
    };
    let error = store.issue(batch(), at(0)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(
        store.list(SvidFilter::default()).await.unwrap().rows.is_empty(),
        "reads go on, of nothing half done"
    );
    assert_eq!(*store.failed_writes().borrow(), 1);
    store.probe().await.unwrap_err();
    assert_eq!(*store.failed_writes().borrow(), 2);
    set_max_pages(&sqlite, 1_000_000).await;
    store.probe().await.unwrap();
    assert_eq!(
        displaced(&store, budgeted(), at(1)).await,
        Ok(0),
        "what was rolled back counts in no budget"
    );
    assert_eq!(*sqlite.stored().borrow(), 1, "nor in the audit log");
}

/// A fault that some input brings out must cost that input its answer, and not everybody else theirs for good.
#[tokio::test]
async fn a_job_that_panics_ends_neither_the_writer_nor_leaves_a_trace() {
    let (store, _dir) = fresh_sqlite();
    let shared: Arc<dyn Store> = store.clone();
    let before = issued(&shared, "/a", "one", at(0)).await;
    let halfway = store.writer.run(1, |tx| -> rusqlite::Result<()> {
        tx.state.revision += 7;
        tx.conn.execute("DELETE FROM ledger", [])?;
        panic!("by a hostile input")
    });
    assert!(matches!(halfway.await, Err(StoreError::Unavailable { .. })));
    let after = issued(&shared, "/a", "one", at(1)).await;
    let revoked = shared.revoke(revocation(by_id("/a"), at(2))).await.unwrap();
    assert_eq!(revoked.revision, 1);
    assert_eq!(to_list(&shared).await, [before, after]);
}
