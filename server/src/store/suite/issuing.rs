use std::sync::Arc;

use super::fixture::{HOUR, at, authority, below, by_serial, id, issuance, issue, issued, revocation};
use crate::store::{
    AuthorityUse, EvidenceKind, IssueRefusal, LedgerRow, MAX_BATCH, NewIssuance, Store, StoreError,
    SvidFilter,
};

/// Covers INV-4.
pub(crate) async fn what_was_issued_is_listed(store: Arc<dyn Store>) {
    let item = issuance("/ns/shop/sa/web", "pod-1", at(0));
    let recorded = store
        .issue(vec![item.clone()], at(0))
        .await
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(
        recorded.unwrap().into_row(),
        item,
        "what may be signed is what was recorded"
    );
    let page = store.list(SvidFilter::default()).await.unwrap();
    let row = LedgerRow {
        serial: item.serial,
        authority: item.authority,
        workload: item.workload,
        evidence: EvidenceKind::PodToken,
        rule: "builtin".into(),
        not_before: item.not_before,
        not_after: item.not_after,
        revoked: None,
    };
    assert_eq!((page.rows, page.truncated), (vec![row], false));
}

pub(crate) async fn lists_match_whole_segments_pods_and_nodes(store: Arc<dyn Store>) {
    let shop = issued(&store, "/ns/shop", "a", at(0)).await;
    let web = issued(&store, "/ns/shop/sa/web", "b", at(1)).await;
    issued(&store, "/ns/shop-admin/sa/web", "c", at(2)).await;
    issued(&store, "/ns/sh_p/sa/web", "d", at(3)).await;
    let list = |filter| {
        let store = store.clone();
        async move {
            store
                .list(filter)
                .await
                .unwrap()
                .rows
                .into_iter()
                .map(|row| row.serial)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(list(below("/ns/shop")).await, [web, shop], "newest first");
    assert_eq!(list(below("/ns/sh_p")).await.len(), 1);
    assert_eq!(list(below("")).await.len(), 4);
    let exactly = |path: &str| SvidFilter {
        spiffe_id: Some(id(path)),
        ..SvidFilter::default()
    };
    assert_eq!(list(exactly("/ns/shop")).await, [shop], "and none below it");
    let pod = |pod: &str| SvidFilter {
        pod: Some(pod.into()),
        ..SvidFilter::default()
    };
    assert_eq!(list(pod("b")).await, [web]);
    assert_eq!(list(pod("shop/b-name")).await, [web]);
    assert!(list(pod("b-name")).await.is_empty());
    let node = |node: &str| SvidFilter {
        node: Some(node.into()),
        ..SvidFilter::default()
    };
    assert_eq!(list(node("node-1")).await.len(), 4);
    assert_eq!(list(node("node-uid-1")).await.len(), 4);
    assert!(list(node("node-2")).await.is_empty());
    let live_at = Some(at(1) + HOUR);
    assert_eq!(
        list(SvidFilter {
            live_at,
            ..SvidFilter::default()
        })
        .await
        .len(),
        2,
        "ends at its notAfter"
    );
    let page = store
        .list(SvidFilter {
            limit: 3,
            ..SvidFilter::default()
        })
        .await
        .unwrap();
    assert!(page.truncated && page.rows.len() == 3);
}

pub(crate) async fn a_serial_is_used_once(store: Arc<dyn Store>) {
    let first = issuance("/a", "one", at(0));
    let twin = NewIssuance {
        serial: first.serial,
        ..issuance("/b", "two", at(0))
    };
    let third = issuance("/c", "three", at(0));
    let recorded = |item: &NewIssuance| Ok(item.serial);
    let expected = [recorded(&first), Err(IssueRefusal::SerialTaken), recorded(&third)];
    let results = store
        .issue(vec![first.clone(), twin, third], at(0))
        .await
        .unwrap();
    let results: Vec<_> = results
        .into_iter()
        .map(|result| result.map(|recorded| recorded.row().serial))
        .collect();
    assert_eq!(results, expected, "each answer is about the item in its place");
    assert_eq!(
        store.list(below("/a")).await.unwrap().rows[0].serial,
        first.serial
    );
    assert!(store.list(below("/b")).await.unwrap().rows.is_empty());
}

pub(crate) async fn a_node_token_belongs_to_one_key(store: Arc<dyn Store>) {
    let with = |evidence, jti: &str, key| NewIssuance {
        evidence,
        token_jti: Some(jti.into()),
        spki_sha256: [key; 32],
        ..issuance("/signet/agent/c/n", "agent", at(0))
    };
    let node = EvidenceKind::NodeToken;
    issue(&store, with(node, "t1", 1), at(0)).await.unwrap();
    issue(&store, with(node, "t1", 1), at(1))
        .await
        .expect("the same key may repeat itself");
    assert_eq!(
        issue(&store, with(node, "t1", 2), at(2)).await,
        Err(IssueRefusal::TokenReused)
    );
    issue(&store, with(node, "t2", 2), at(3)).await.unwrap();
    issue(&store, with(EvidenceKind::PodToken, "t1", 3), at(4))
        .await
        .expect("pods renew with fresh keys");
    let mut elsewhere = with(node, "t1", 3);
    elsewhere.workload.cluster_uid = "another cluster".into();
    let other = issue(&store, elsewhere, at(5)).await;
    other.expect("of another cluster");
}

pub(crate) async fn live_certificates_are_counted_by_authority(store: Arc<dyn Store>) {
    let first = issued(&store, "/a", "one", at(0)).await;
    issued(&store, "/a", "one", at(100)).await;
    issue(
        &store,
        NewIssuance {
            authority: authority(2),
            ..issuance("/b", "two", at(50))
        },
        at(50),
    )
    .await
    .unwrap();
    let usage = |n, live, seconds| AuthorityUse {
        authority: authority(n),
        live,
        latest_not_after: at(seconds) + HOUR,
    };
    assert_eq!(
        store.live_counts(at(100)).await.unwrap(),
        [usage(1, 2, 100), usage(2, 1, 50)]
    );
    store.revoke(revocation(by_serial(first), at(100))).await.unwrap();
    assert_eq!(
        store.live_counts(at(100)).await.unwrap(),
        [usage(1, 1, 100), usage(2, 1, 50)]
    );
    assert_eq!(
        store.live_counts(at(3650)).await.unwrap(),
        [usage(1, 1, 100), usage(2, 0, 50)]
    );
}

pub(crate) async fn a_batch_has_a_bound(store: Arc<dyn Store>) {
    let batch = |size| {
        (0..size)
            .map(|_| issuance("/a", "one", at(0)))
            .collect::<Vec<_>>()
    };
    assert!(matches!(
        store.issue(batch(MAX_BATCH + 1), at(0)).await,
        Err(StoreError::Invalid { .. })
    ));
    assert_eq!(
        store.issue(batch(MAX_BATCH), at(0)).await.unwrap().len(),
        MAX_BATCH
    );
    assert_eq!(store.issue(vec![], at(0)).await.unwrap().len(), 0);
    assert_eq!(
        store
            .list(SvidFilter {
                spiffe_id_prefix: Some(id("/a")),
                limit: 9_999_999,
                ..SvidFilter::default()
            })
            .await
            .unwrap()
            .rows
            .len(),
        MAX_BATCH
    );
}
