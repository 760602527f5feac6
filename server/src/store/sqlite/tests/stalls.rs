//! How long the writer is away from its callers while much is let go.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::fresh;
use crate::audit_event::AuditCursor;
use crate::store::suite::fixture::{DAY, HOUR, at, by_id, issuance, issued, revocation};
use crate::store::{KnownTime, MAX_BATCH, Named, RevokeRequest, RevokeTarget, Store};

/// When everything that was issued at the beginning may go.
fn over() -> SystemTime {
    at(0) + HOUR + 2 * DAY
}

/// Records so many certificates, each of a pod of its own, all of one SPIFFE ID, and lets their audit lines out.
async fn fill(store: &Arc<dyn Store>, rows: usize) {
    issue_all(store, rows).await;
    emit(store).await;
}

async fn issue_all(store: &Arc<dyn Store>, rows: usize) {
    for first in (0..rows).step_by(MAX_BATCH) {
        let pods = first..rows.min(first + MAX_BATCH);
        let batch = pods.map(|pod| issuance("/a", &format!("pod-{pod}"), at(0)));
        store.issue(batch.collect(), at(0)).await.unwrap();
    }
}

/// Whatever is written from now on is of the time when the rows go.
async fn emit(store: &Arc<dyn Store>) {
    let time = KnownTime {
        settled: None,
        ..KnownTime::settled(over())
    };
    store.housekeeping(time).await.unwrap();
    let sequence = *store.stored().borrow();
    let hash = [0; 32];
    store.advance(AuditCursor { sequence, hash }, None).await.unwrap();
}

/// What a caller waits for its certificates, one after the other, while the store is tidied: how long each time, and rows let go.
async fn waits_beside_tidying(store: &Arc<dyn Store>) -> (Vec<Duration>, u64) {
    let tidied = store.clone();
    let tidying = tokio::spawn(async move { tidied.housekeeping(KnownTime::settled(over())).await });
    let mut waits = Vec::new();
    while !tidying.is_finished() {
        let asked = Instant::now();
        issued(store, "/other", "one", over()).await;
        waits.push(asked.elapsed());
    }
    (waits, tidying.await.unwrap().unwrap().pruned)
}

fn print(what: &str, rows: u64, waits: &mut [Duration]) {
    waits.sort();
    let (longest, middle) = (waits.last().unwrap(), waits[waits.len() / 2]);
    println!(
        "{what}: {rows} rows, {} certificates beside, longest wait {longest:?}, p50 {middle:?}",
        waits.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_while_rows_are_let_go_is_served_between_them() {
    let (store, _guard) = fresh();
    fill(&store, 3_000).await;
    let (waits, pruned) = waits_beside_tidying(&store).await;
    println!("{} waits, {pruned} pruned", waits.len());
    assert_eq!(pruned, 3_000);
    assert!(waits.len() > 6, "only {} certificates meanwhile", waits.len());
}

/// `SIGNET_ROWS` is another number of rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints how long a caller waits beside the pruning of 200,000 rows: cargo test --workspace --lib -- --ignored --nocapture the_longest_wait_beside"]
async fn the_longest_wait_beside_the_pruning_of_one_identity() {
    let rows = std::env::var("SIGNET_ROWS").map_or(200_000, |rows| rows.parse().unwrap());
    let (store, _guard) = fresh();
    fill(&store, rows).await;
    let (mut waits, pruned) = waits_beside_tidying(&store).await;
    print("ledger", pruned, &mut waits);

    let (store, _guard) = fresh();
    fill(&store, rows).await;
    let asked = Instant::now();
    store.revoke(revocation(by_id("/a"), at(1))).await.unwrap();
    println!("{rows} rows of one identity revoked in {:?}", asked.elapsed());
    emit(&store).await;
    let (mut waits, pruned) = waits_beside_tidying(&store).await;
    print("ledger and revocations", pruned, &mut waits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_while_revocations_are_let_go_is_served_between_them() {
    let (store, _guard) = fresh();
    issue_all(&store, 3_000).await;
    // The audit lines wait, and the ledger with them.
    store.revoke(revocation(by_id("/a"), at(1))).await.unwrap();
    let (waits, pruned) = waits_beside_tidying(&store).await;
    println!("{} waits, {pruned} pruned", waits.len());
    assert_eq!(pruned, 0);
    let left = store
        .revoked(crate::store::suite::fixture::authority(1))
        .await
        .unwrap();
    assert!(left.entries.is_empty(), "{}", left.entries.len());
    assert!(waits.len() > 6, "only {} certificates meanwhile", waits.len());
}

/// A node is found by a scan, and all of it is one transaction: nobody gets anything between its rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints how long a caller waits beside the revocation of a node with 100,000 certificates: cargo test --workspace --lib -- --ignored --nocapture the_longest_wait_beside"]
async fn the_longest_wait_beside_the_revocation_of_a_node() {
    let (store, _guard) = fresh();
    issue_all(&store, 100_000).await;
    let node = RevokeTarget::Node(Named {
        cluster_uid: "cluster".to_owned(),
        uid: "node-uid-1".to_owned(),
        name: "node-1".to_owned(),
    });
    let request = RevokeRequest {
        keep_issuing: true,
        ..revocation(node, at(1))
    };
    let revoking = tokio::spawn({
        let store = store.clone();
        async move { store.revoke(request).await.unwrap().svids.len() }
    });
    let mut waits = Vec::new();
    while !revoking.is_finished() {
        let asked = Instant::now();
        issued(&store, "/other", "one", at(2)).await;
        waits.push(asked.elapsed());
    }
    let revoked = revoking.await.unwrap();
    print("revocation", revoked as u64, &mut waits);
}
