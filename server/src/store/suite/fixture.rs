//! What the suite issues and revokes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::crl::{CrlNumber, RevocationReason};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;

use crate::store::{
    AgentShare, Attestation, Budget, EvidenceKind, IssueRefusal, KeyChanges, KeyPurpose, NewIssuance, Origin,
    Recorded, RevokeRequest, RevokeTarget, RevokedSet, SealedKey, Store, StoredCrl, SvidFilter, WorkloadRef,
};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The suite's clock, in seconds after a fixed start.
pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

pub(crate) fn authority(n: u8) -> AuthorityId {
    AuthorityId::from_bytes([n; 20])
}

/// A serial that no other call has given.
pub(crate) fn serial(now: SystemTime) -> SerialNumber {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [0; 13];
    random[5..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    SerialNumber::generate(now, &random)
}

/// An hour's certificate of pod `pod` for `path`, over a key of its own.
pub(crate) fn issuance(path: &str, pod: &str, now: SystemTime) -> NewIssuance {
    let serial = serial(now);
    let mut spki_sha256 = [7; 32];
    spki_sha256[..serial.as_bytes().len()].copy_from_slice(serial.as_bytes());
    NewIssuance {
        serial,
        authority: authority(1),
        workload: WorkloadRef {
            cluster_uid: "cluster".into(),
            spiffe_id: id(path),
            pod_namespace: "shop".into(),
            pod_name: format!("{pod}-name"),
            pod_uid: pod.into(),
            node_name: "node-1".into(),
            node_uid: "node-uid-1".into(),
            agent_id: "spiffe://example.org/signet/agent/c/node-uid-1".into(),
            process: String::new(),
        },
        evidence: EvidenceKind::PodToken,
        token_jti: Some("3f3a8d7e-0000-4000-8000-000000000001".into()),
        spki_sha256,
        rule: "builtin".into(),
        policy_revision: u64::MAX,
        not_before: now - Duration::from_secs(120),
        not_after: now + HOUR,
        earliest: now,
        caller: None,
        attestation: None,
        outage: false,
        budget: None,
    }
}

/// A four hours' certificate of the agent of a node.
pub(crate) fn of_agent(node: &str, now: SystemTime) -> NewIssuance {
    let mut item = issuance(&format!("/signet/agent/c/{node}"), "", now);
    item.workload.pod_name = String::new();
    item.workload.node_name = format!("{node}-name");
    item.workload.node_uid = node.to_owned();
    item.workload.agent_id = item.workload.spiffe_id.to_string();
    NewIssuance {
        evidence: EvidenceKind::NodeToken,
        token_jti: None,
        not_after: now + 4 * HOUR,
        attestation: Some(Attestation {
            cluster: "c".into(),
            attested_at: now,
            pod_uid: format!("{node}-agent-pod"),
        }),
        ..item
    }
}

/// So many free certificates, counted by a node of few pods with one identity each.
pub(crate) fn free(free: u32) -> Option<Budget> {
    let share = AgentShare::Pods {
        pods: 1,
        identities: 1,
    };
    Some(Budget { free, share })
}

/// Issues one and returns how many of its workload are displaced.
pub(crate) async fn displaced(
    store: &Arc<dyn Store>,
    item: NewIssuance,
    now: SystemTime,
) -> Result<u32, IssueRefusal> {
    let recorded = store.issue(vec![item], now).await.unwrap().pop().unwrap();
    recorded.map(|recorded| recorded.displaced())
}

pub(crate) async fn issue(
    store: &Arc<dyn Store>,
    item: NewIssuance,
    now: SystemTime,
) -> Result<(), IssueRefusal> {
    verdicts(store.issue(vec![item], now).await.unwrap())
        .pop()
        .unwrap()
}

/// What became of each item, without the rows.
pub(crate) fn verdicts(results: Vec<Result<Recorded, IssueRefusal>>) -> Vec<Result<(), IssueRefusal>> {
    results.into_iter().map(|result| result.map(drop)).collect()
}

/// Issues one certificate and returns its serial.
pub(crate) async fn issued(store: &Arc<dyn Store>, path: &str, pod: &str, now: SystemTime) -> SerialNumber {
    let item = issuance(path, pod, now);
    let serial = item.serial;
    issue(store, item, now).await.unwrap();
    serial
}

pub(crate) fn revocation(target: RevokeTarget, now: SystemTime) -> RevokeRequest {
    RevokeRequest {
        target,
        reason: RevocationReason::KeyCompromise,
        comment: "found on a laptop".into(),
        author: "alice".into(),
        origin: Origin::Admin,
        invalid_since: None,
        keep_issuing: false,
        denial_expires: None,
        rooms: vec![],
        now,
        earliest: now,
    }
}

pub(crate) fn by_serial(serial: SerialNumber) -> RevokeTarget {
    RevokeTarget::Serial {
        serial,
        authority: None,
        expires_by: None,
    }
}

pub(crate) fn by_id(path: &str) -> RevokeTarget {
    RevokeTarget::SpiffeId(id(path))
}

/// The serials on the next list of authority 1.
pub(crate) async fn to_list(store: &Arc<dyn Store>) -> Vec<SerialNumber> {
    store
        .revoked(authority(1))
        .await
        .unwrap()
        .entries
        .iter()
        .map(|entry| entry.serial)
        .collect()
}

/// A CRL of authority 1 made from `set`; the store does not read the bytes.
pub(crate) fn crl(number: u64, set: &RevokedSet, this_update: SystemTime) -> StoredCrl {
    StoredCrl {
        authority: authority(1),
        number: CrlNumber(number),
        der: Bytes::from(format!("list {number}")),
        this_update,
        next_update: this_update + HOUR,
        revision: set.revision,
    }
}

/// Everything listed below `path`.
pub(crate) fn below(path: &str) -> SvidFilter {
    SvidFilter {
        spiffe_id_prefix: Some(id(path)),
        ..SvidFilter::default()
    }
}

pub(crate) fn sealed_key(n: u8) -> SealedKey {
    SealedKey {
        authority_id: authority(n),
        purpose: KeyPurpose::Authority(AuthorityKind::X509),
        kek_id: "kek".into(),
        epoch: 1,
        nonce: [n; 12],
        ciphertext: vec![n; 40],
    }
}

/// Makes authority `n` one whose key the store holds.
pub(crate) async fn add_key(store: &Arc<dyn Store>, n: u8) {
    let revision = store
        .load_journal(AuthorityKind::X509)
        .await
        .unwrap()
        .map_or(0, |journal| journal.revision);
    let keys = KeyChanges {
        add: vec![sealed_key(n)],
        remove: vec![],
    };
    store
        .save_journal(AuthorityKind::X509, revision, b"{}".to_vec(), keys, vec![])
        .await
        .unwrap();
}
