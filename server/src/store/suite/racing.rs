use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fixture::{at, below, by_id, free, id, issuance, issue, revocation};
use crate::store::{IssueRefusal, Named, NewIssuance, RevokeTarget, Store, SvidFilter};

/// Eight callers issue one identity as fast as they can while it is revoked and, later, allowed again.
///
/// Covers INV-11.
pub(crate) async fn nothing_of_a_denied_identity_slips_between(store: Arc<dyn Store>) {
    for round in 0..20u64 {
        let path = format!("/victim-{round}");
        let denied = Arc::new(AtomicBool::new(false));
        let issuers: Vec<_> = (0..8)
            .map(|n| {
                tokio::spawn(issue_until_denied(
                    store.clone(),
                    path.clone(),
                    format!("pod-{n}"),
                    denied.clone(),
                ))
            })
            .collect();
        while store.list(below(&path)).await.unwrap().rows.len() < 10 {}
        let revoked = store.revoke(revocation(by_id(&path), at(round))).await.unwrap();
        denied.store(true, Ordering::SeqCst);
        for issuer in issuers {
            issuer.await.unwrap();
        }
        let all = SvidFilter {
            limit: 10_000,
            ..below(&path)
        };
        let rows = store.list(all).await.unwrap().rows;
        assert!(
            rows.iter().all(|row| row.revoked.is_some()),
            "a live row of a denied identity"
        );
        assert_eq!(
            rows.len(),
            revoked.svids.len(),
            "the answer named every one of them"
        );
        let denial = revoked.denial.unwrap();
        store.allow(&denial.id, "bob", at(round)).await.unwrap();
        issue(&store, issuance(&path, "pod-0", at(round)), at(round))
            .await
            .unwrap();
    }
}

/// The same for what is denied by what it lies below, by its pod and by its node.
///
/// Covers INV-11.
pub(crate) async fn nothing_of_a_denied_prefix_pod_or_node_slips_between(store: Arc<dyn Store>) {
    let of_cluster = |uid: &str, name: &str| Named {
        cluster_uid: "cluster".into(),
        uid: uid.into(),
        name: name.into(),
    };
    for round in 0..12u64 {
        let path = format!("/victims-{round}/sa");
        let target = match round % 3 {
            0 => RevokeTarget::Prefix(id(&format!("/victims-{round}"))),
            1 => RevokeTarget::Pod(of_cluster(&format!("pod-{round}"), "")),
            _ => RevokeTarget::Node(of_cluster("", "node-1")),
        };
        let denied = Arc::new(AtomicBool::new(false));
        let issuers: Vec<_> = (0..4)
            .map(|n| {
                let (store, path, pod) = (store.clone(), format!("{path}/{n}"), format!("pod-{round}"));
                tokio::spawn(issue_until_denied(store, path, pod, denied.clone()))
            })
            .collect();
        while store.list(below(&path)).await.unwrap().rows.len() < 10 {}
        let revoked = store.revoke(revocation(target, at(round))).await.unwrap();
        denied.store(true, Ordering::SeqCst);
        for issuer in issuers {
            issuer.await.unwrap();
        }
        let all = SvidFilter {
            limit: 10_000,
            ..below(&path)
        };
        let rows = store.list(all).await.unwrap().rows;
        assert!(
            rows.iter().all(|row| row.revoked.is_some()),
            "a live row of a denied target"
        );
        store
            .allow(&revoked.denial.unwrap().id, "bob", at(round))
            .await
            .unwrap();
    }
}

/// At most so many that one list can show what all of them got.
async fn issue_until_denied(store: Arc<dyn Store>, path: String, pod: String, denied: Arc<AtomicBool>) {
    for _ in 0..1_000 {
        let known = denied.load(Ordering::SeqCst);
        match issue(&store, issuance(&path, &pod, at(0)), at(0)).await {
            Ok(()) => assert!(!known, "issued after the revocation had returned"),
            Err(IssueRefusal::Denied { .. }) => return,
            Err(other) => panic!("{other}"),
        }
    }
}

pub(crate) async fn a_budget_holds_under_concurrency(store: Arc<dyn Store>) {
    let issuers: Vec<_> = (0..100)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let item = NewIssuance {
                    budget: free(8),
                    ..issuance("/a", "one", at(0))
                };
                issue(&store, item, at(0)).await.is_ok()
            })
        })
        .collect();
    let mut granted = 0;
    for issuer in issuers {
        granted += usize::from(issuer.await.unwrap());
    }
    assert_eq!(granted, 8 + 64);
}
