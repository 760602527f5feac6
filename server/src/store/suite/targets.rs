//! What each target of a revocation hits, and what it leaves alone.

use std::sync::Arc;

use signet_certs::crl::RevocationReason;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::fixture::{
    HOUR, at, authority, below, id, issuance, issue, issued, of_agent, revocation, to_list,
};
use crate::store::{
    EvidenceKind, IssueRefusal, Named, NewIssuance, PresentedCertificate, RevokeError, RevokeRequest,
    RevokeTarget, Standing, Store, SvidFilter,
};

pub(super) fn pod(uid: &str) -> RevokeTarget {
    RevokeTarget::Pod(Named {
        cluster_uid: "cluster".into(),
        uid: uid.into(),
        name: format!("shop/{uid}-name"),
    })
}

fn node(uid: &str, name: &str) -> RevokeTarget {
    RevokeTarget::Node(Named {
        cluster_uid: "cluster".into(),
        uid: uid.into(),
        name: name.into(),
    })
}

fn prefix(path: &str) -> RevokeTarget {
    RevokeTarget::Prefix(id(path))
}

/// Of a pod on a node.
fn on(node: &str, path: &str, pod: &str, seconds: u64) -> NewIssuance {
    let mut item = issuance(path, pod, at(seconds));
    item.workload.node_uid = node.into();
    item.workload.node_name = format!("{node}-name");
    item.workload.agent_id = id(&format!("/signet/agent/c/{node}")).to_string();
    item
}

pub(super) async fn serials(store: &Arc<dyn Store>, items: Vec<NewIssuance>) -> Vec<SerialNumber> {
    let mut serials = Vec::new();
    for item in items {
        serials.push(item.serial);
        issue(store, item, at(0)).await.unwrap();
    }
    serials
}

/// Revokes, asks whether exactly these are marked and listed, and returns the denial's id.
async fn hits(store: &Arc<dyn Store>, target: RevokeTarget, wanted: &[SerialNumber]) -> String {
    let revoked = store.revoke(revocation(target.clone(), at(10))).await.unwrap();
    let mut wanted = wanted.to_vec();
    wanted.sort();
    let named: Vec<_> = revoked.svids.iter().map(|svid| svid.serial).collect();
    assert_eq!(named, wanted, "{target}");
    assert!(revoked.svids.iter().all(|svid| svid.spiffe_id.is_some()));
    assert_eq!(to_list(store).await, wanted, "{target}");
    let live = store.live_counts(at(10)).await.unwrap();
    let all = store.list(below("")).await.unwrap().rows.len();
    assert_eq!(live[0].live as usize, all - wanted.len(), "{target}");
    revoked.denial.map(|denial| denial.id).unwrap_or_default()
}

async fn refused(store: &Arc<dyn Store>, item: NewIssuance, denial: &str) {
    let path = item.workload.spiffe_id.clone();
    let denial_id = denial.to_owned();
    assert_eq!(
        issue(store, item, at(20)).await,
        Err(IssueRefusal::Denied { denial_id }),
        "{path}"
    );
}

/// Covers INV-11.
pub(crate) async fn a_prefix_is_denied_by_whole_segments(store: Arc<dyn Store>) {
    let paths = [
        "/ns/shop",
        "/ns/shop/sa/web",
        "/ns/shop/sa/db",
        "/ns/shop-admin",
        "/ns/other",
    ];
    let items = paths.map(|path| issuance(path, "one", at(0))).to_vec();
    let all = serials(&store, items).await;
    let denial = hits(&store, prefix("/ns/shop"), &all[..3]).await;
    for path in ["/ns/shop", "/ns/shop/sa/web", "/ns/shop/sa/never-seen/before"] {
        refused(&store, issuance(path, "two", at(20)), &denial).await;
    }
    for path in ["/ns/shop-admin", "/ns/shopping/sa/web", "/ns"] {
        issued(&store, path, "two", at(20)).await;
    }
    let stored = store.denials(false, at(20)).await.unwrap();
    assert_eq!(stored[0].target.kind(), "prefix");
    assert_eq!(stored[0].target.name(), "spiffe://example.org/ns/shop");
    store.allow(&denial, "bob", at(21)).await.unwrap();
    issued(&store, "/ns/shop/sa/web", "two", at(22)).await;
    assert_eq!(to_list(&store).await.len(), 3);
}

/// Covers INV-11.
pub(crate) async fn a_denied_pod_gets_nothing_and_its_neighbours_do(store: Arc<dyn Store>) {
    let mut elsewhere = issuance("/ns/shop/sa/web", "one", at(0));
    elsewhere.workload.cluster_uid = "other".into();
    let items = vec![
        issuance("/ns/shop/sa/web", "one", at(0)),
        issuance("/ns/shop/sa/web/admin", "one", at(0)),
        issuance("/ns/shop/sa/web", "two", at(0)),
        elsewhere.clone(),
    ];
    let all = serials(&store, items).await;
    let denial = hits(&store, pod("one"), &all[..2]).await;
    refused(&store, issuance("/anything", "one", at(20)), &denial).await;
    issued(&store, "/ns/shop/sa/web", "two", at(20)).await;
    let again = NewIssuance {
        serial: super::fixture::serial(at(20)),
        ..elsewhere
    };
    issue(&store, again, at(20)).await.unwrap();
    let unknown = store
        .revoke(revocation(pod("of-tomorrow"), at(21)))
        .await
        .unwrap();
    assert!(unknown.svids.is_empty());
    refused(
        &store,
        issuance("/a", "of-tomorrow", at(22)),
        &unknown.denial.unwrap().id,
    )
    .await;
    store.allow(&denial, "bob", at(23)).await.unwrap();
    issued(&store, "/anything", "one", at(24)).await;
}

/// A certificate outlives its pod: what had the name before is hit too, and only who has it now is denied.
pub(crate) async fn a_pod_by_name_is_all_that_had_the_name(store: Arc<dyn Store>) {
    let of = |uid: &str, seconds| {
        let mut item = issuance("/ns/shop/sa/web", uid, at(seconds));
        item.workload.pod_namespace = "shop".into();
        item.workload.pod_name = "web-0".into();
        item
    };
    let (mut elsewhere, mut agents) = (of("three", 0), of("", 0));
    elsewhere.workload.cluster_uid = "other".into();
    agents.workload.pod_name = "web-0".into();
    let mut sibling = of("four", 0);
    sibling.workload.pod_name = "web-01".into();
    let items = vec![of("one", 0), of("two", 0), elsewhere, agents, sibling];
    let all = serials(&store, items).await;
    let target = Named {
        cluster_uid: "cluster".into(),
        uid: "two".into(),
        name: "shop/web-0".into(),
    };
    let denial = hits(&store, RevokeTarget::PodsNamed(target), &all[..2]).await;
    refused(&store, of("two", 20), &denial).await;
    issue(&store, of("five", 20), at(20)).await.unwrap();
    let filter = SvidFilter {
        pod: Some("shop/web-0".into()),
        unexpired_at: Some(at(0) + HOUR),
        ..SvidFilter::default()
    };
    let rows = store.list(filter).await.unwrap().rows;
    let pods: Vec<_> = rows.iter().map(|row| row.workload.pod_uid.as_str()).collect();
    assert_eq!(pods, ["five"], "the rest has expired");
}

/// Its pods, processes on it, its agent: on every path. Covers INV-11, INV-12.
pub(crate) async fn a_denied_node_gets_nothing_by_any_path(store: Arc<dyn Store>) {
    let agent = of_agent("n", at(0));
    let mut process = on("n", "/unix", "", 0);
    process.workload.pod_uid = String::new();
    process.workload.cluster_uid = String::new();
    process.workload.process = "uid=0 gid=0".into();
    process.evidence = EvidenceKind::Unix;
    let items = vec![
        on("n", "/a", "one", 0),
        on("n", "/b", "two", 0),
        process.clone(),
        agent.clone(),
        on("m", "/a", "three", 0),
        of_agent("m", at(0)),
    ];
    let all = serials(&store, items).await;
    let denial = hits(&store, node("n", "n-name"), &all[..4]).await;
    refused(&store, on("n", "/new", "future", 20), &denial).await;
    let mut anew = on("made-anew", "/new", "future", 20);
    anew.workload.node_name = "n-name".into();
    refused(&store, anew, &denial).await;
    refused(
        &store,
        NewIssuance {
            serial: super::fixture::serial(at(20)),
            ..process
        },
        &denial,
    )
    .await;
    refused(&store, of_agent("n", at(20)), &denial).await;
    let asks = NewIssuance {
        caller: Some(agent.serial),
        ..on("m", "/a", "three", 20)
    };
    assert_eq!(
        issue(&store, asks, at(20)).await,
        Err(IssueRefusal::Caller(Standing::Denied(denial.clone())))
    );
    let presented = PresentedCertificate {
        spiffe_id: agent.workload.spiffe_id.clone(),
        authority: agent.authority,
        serial: agent.serial,
        not_after: agent.not_after,
        earliest: at(20),
    };
    let standing = store.present(presented.clone(), at(20)).await.unwrap().standing;
    assert_eq!(standing, Standing::Denied(denial.clone()));
    let live: Vec<SpiffeId> = live_agents(&store).await;
    assert_eq!(live, [id("/signet/agent/c/m")]);
    issue(&store, on("m", "/c", "four", 20), at(20)).await.unwrap();
    store.allow(&denial, "bob", at(21)).await.unwrap();
    issue(&store, on("n", "/new", "future", 22), at(22))
        .await
        .unwrap();
    let standing = store.present(presented, at(22)).await.unwrap().standing;
    assert_eq!(standing, Standing::Revoked, "what it had stays revoked");
    issue(&store, of_agent("n", at(22)), at(22)).await.unwrap();
}

async fn live_agents(store: &Arc<dyn Store>) -> Vec<SpiffeId> {
    let live = store.live_agents(at(20)).await.unwrap();
    live.into_iter().map(|agent| agent.spiffe_id).collect()
}

/// A prefix that covers agents is one denial of each of them.
pub(crate) async fn a_denied_prefix_of_agents_shuts_them_out(store: Arc<dyn Store>) {
    let all = serials(&store, vec![of_agent("n", at(0)), issuance("/a", "one", at(0))]).await;
    let denial = hits(&store, prefix("/signet/agent/c"), &all[..1]).await;
    assert!(live_agents(&store).await.is_empty());
    refused(&store, of_agent("m", at(20)), &denial).await;
    issued(&store, "/b", "one", at(20)).await;
}

/// Covers CRL-21: nobody is denied by it.
pub(crate) async fn all_that_an_authority_signed_is_marked_and_nobody_denied(store: Arc<dyn Store>) {
    let other = NewIssuance {
        authority: authority(2),
        ..issuance("/a", "one", at(0))
    };
    let ended = NewIssuance {
        not_after: at(5),
        ..issuance("/c", "one", at(0))
    };
    let items = vec![
        issuance("/a", "one", at(0)),
        issuance("/b", "two", at(0)),
        of_agent("n", at(0)),
        ended,
        other,
    ];
    let all = serials(&store, items).await;
    let request = RevokeRequest {
        reason: RevocationReason::Superseded,
        ..revocation(RevokeTarget::IssuedBy(authority(1)), at(10))
    };
    let revoked = store.revoke(request).await.unwrap();
    assert_eq!(revoked.svids.len(), 3);
    assert_eq!(revoked.denial, None);
    assert_eq!(to_list(&store).await, all[..3]);
    issued(&store, "/a", "one", at(11)).await;
    let unknown = authority(9);
    let refused = store
        .revoke(revocation(RevokeTarget::IssuedBy(unknown), at(12)))
        .await;
    assert_eq!(refused, Err(RevokeError::UnknownAuthority(unknown)));
}

/// Between keep-issuing and a denial lies the same set, and asking again adds nothing.
pub(crate) async fn targets_are_marked_once_and_denied_once(store: Arc<dyn Store>) {
    serials(
        &store,
        vec![on("n", "/ns/shop/a", "one", 0), on("n", "/ns/shop/b", "two", 0)],
    )
    .await;
    for target in [prefix("/ns/shop"), pod("one"), node("n", "n-name")] {
        let keep = RevokeRequest {
            keep_issuing: true,
            ..revocation(target.clone(), at(1))
        };
        assert_eq!(store.revoke(keep).await.unwrap().denial, None, "{target}");
        let first = store.revoke(revocation(target.clone(), at(2))).await.unwrap();
        let second = store.revoke(revocation(target.clone(), at(3))).await.unwrap();
        assert_eq!(first.denial, second.denial, "{target}");
    }
    assert_eq!(store.denials(true, at(4)).await.unwrap().len(), 3);
    assert_eq!(to_list(&store).await.len(), 2);
}
