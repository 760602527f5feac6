use super::*;
use crate::audit_event::AuditCursor;
use crate::store::sqlite::SqliteStore;
use crate::store::suite::fixture::{DAY, HOUR, at, by_id, issuance, revocation, trust_domain};
use crate::store::{AuditOutbox as _, Ledger as _, Revocations as _};

/// Rows of the ledger and of the revocations.
async fn rows(store: &SqliteStore) -> [u32; 2] {
    let count = |tx: &mut Tx<'_>| {
        tx.conn.query_row(
            "SELECT (SELECT count(*) FROM ledger), (SELECT count(*) FROM revocation)",
            [],
            |row| Ok([row.get(0)?, row.get(1)?]),
        )
    };
    store.writer.run(0, count).await.unwrap()
}

/// However much has had its time, and whosever it is: whoever comes in between waits for one slice.
#[tokio::test]
async fn a_slice_removes_its_part_and_no_more() {
    let dir = signet_testkit::folder();
    let store = SqliteStore::open(dir.path(), &trust_domain()).unwrap();
    let pods = (0..900).map(|pod| issuance("/a", &format!("pod-{pod}"), at(0)));
    store.issue(pods.collect(), at(0)).await.unwrap();
    store.revoke(revocation(by_id("/a"), at(1))).await.unwrap();
    let sequence = *store.stored().borrow();
    let hash = [0; 32];
    store.advance(AuditCursor { sequence, hash }, None).await.unwrap();
    let settled = at(0) + HOUR + 2 * DAY;
    let (mut next, mut left) = (Some(Place::Budgets(0)), rows(&store).await);
    assert_eq!(left, [900, 900]);
    while let Some(place) = next {
        let cut = move |tx: &mut Tx<'_>| slice(tx, settled, place);
        next = store.writer.run(GROUP_ROWS, cut).await.unwrap().next;
        let now = rows(&store).await;
        for (before, after) in left.into_iter().zip(now) {
            assert!(
                (before - after) as usize <= REMOVES,
                "{} rows at once",
                before - after
            );
        }
        left = now;
    }
    assert_eq!(left, [0, 0]);
}

/// What has to stay is passed over a part at a time.
#[test]
fn a_slice_looks_at_its_part_and_no_more() {
    let mut looked = Looked::nothing();
    let seen = (0..10_000).take_while(|row| looked.row(row, false)).count() + 1;
    assert_eq!(
        (seen, looked.gone.len(), looked.last),
        (LOOKS, 0, Some(LOOKS - 1))
    );
}
