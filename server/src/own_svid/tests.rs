use std::sync::atomic::Ordering;

use rustls::client::ResolvesClientCert;
use signet_certs::verify::{LeafInfo, Role, inspect_leaf, verify_chain};

use super::*;
use crate::authority::RotateRequest;
use crate::fixtures::{HOUR, MINUTE, Running, SKEW, deny, revoke_serial, trust_domain};
use crate::store::{EvidenceKind, Revocations as _};

fn profile() -> SvidProfile {
    SvidProfile {
        ttl: HOUR,
        clock_skew: SKEW,
        crl_base_url: None,
    }
}

async fn keep(running: &Running) -> Result<OwnSvids, OwnSvidError> {
    keep_own_svids(OwnSvidParts {
        trust_domain: trust_domain(),
        server: profile(),
        bundle: Some(profile()),
        store: running.store.clone(),
        view: running.manager.current(),
        snapshots: running.publisher.snapshots(),
        clock: running.trusted.clone(),
        drain: running.drain.clone(),
    })
    .await
}

fn leaf(identity: &Arc<RotatingIdentity>) -> LeafInfo {
    let presented = ResolvesClientCert::resolve(identity.as_ref(), &[], &[]).unwrap();
    inspect_leaf(&presented.cert[0]).unwrap()
}

/// Covers INV-4, FED-17.
#[tokio::test(start_paused = true)]
async fn both_identities_are_recorded_and_signed_by_their_own_kind() {
    let running = Running::new().await;
    let own = keep(&running).await.unwrap();
    let (server, bundle) = (leaf(&own.server), leaf(own.bundle.as_ref().unwrap()));
    assert_eq!(server.spiffe_id.as_str(), "spiffe://example.org/signet/server");
    assert_eq!(bundle.spiffe_id.as_str(), "spiffe://example.org/signet/bundle");
    assert_eq!(server.authority_id, running.active(AuthorityKind::Control));
    assert_eq!(bundle.authority_id, running.active(AuthorityKind::X509));
    let rows = running.store.issued();
    let recorded: Vec<_> = rows.iter().map(|row| (row.serial, row.evidence)).collect();
    assert_eq!(
        recorded,
        [
            (server.serial, EvidenceKind::Own),
            (bundle.serial, EvidenceKind::Own)
        ]
    );
}

/// Covers INV-14.
#[tokio::test(start_paused = true)]
async fn what_a_workload_authority_signs_is_no_server_to_an_agent() {
    let running = Running::new().await;
    let own = keep(&running).await.unwrap();
    let snapshot = running.snapshot();
    let chain = |identity: &RotatingIdentity| {
        ResolvesClientCert::resolve(identity, &[], &[])
            .unwrap()
            .cert
            .clone()
    };
    let (server, bundle) = (chain(&own.server), chain(own.bundle.as_ref().unwrap()));
    assert!(verify_chain(&server, Role::Server, &snapshot.control_roots(), running.now()).is_ok());
    assert!(verify_chain(&bundle, Role::Server, &snapshot.control_roots(), running.now()).is_err());
    assert!(verify_chain(&bundle, Role::Server, &snapshot.workload_roots(), running.now()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn they_are_renewed_at_half_of_their_life() {
    let running = Running::new().await;
    let own = keep(&running).await.unwrap();
    let first = leaf(&own.server);
    running.pass(HOUR / 2 - MINUTE).await;
    assert_eq!(leaf(&own.server).serial, first.serial);
    running.pass(2 * MINUTE).await;
    assert_ne!(leaf(&own.server).serial, first.serial);
}

#[tokio::test(start_paused = true)]
async fn they_move_with_the_active_authority_and_away_from_a_revocation() {
    let running = Running::new().await;
    let own = keep(&running).await.unwrap();
    let first = leaf(&own.server);
    let wish = RotateRequest {
        kind: AuthorityKind::Control,
        force: true,
        author: "admin".to_owned(),
    };
    let mut steps = running.manager.rotate(wish).await.unwrap();
    while steps.recv().await.is_some() {}
    running.pass(Duration::from_millis(10)).await;
    let second = leaf(&own.server);
    assert_ne!(second.authority_id, first.authority_id);
    let revision = revoke_serial(
        running.store.as_ref(),
        second.authority_id,
        second.serial,
        running.now(),
    )
    .await;
    running.publisher.wait_published(revision, MINUTE).await.unwrap();
    running.pass(Duration::from_millis(10)).await;
    assert_ne!(leaf(&own.server).serial, second.serial);
}

/// Covers INV-4.
#[tokio::test(start_paused = true)]
async fn without_a_ledger_nothing_is_signed_and_the_last_one_stays() {
    let running = Running::new().await;
    let id = SpiffeId::server(&trust_domain());
    let denial = deny(running.store.as_ref(), &id, running.now()).await;
    let refused = keep(&running).await.unwrap_err();
    assert!(
        matches!(refused, OwnSvidError::Issue(OwnIssueError::Refused(_))),
        "{refused}"
    );
    running
        .store
        .allow(&denial, "admin", running.now())
        .await
        .unwrap();
    let own = keep(&running).await.unwrap();
    let first = leaf(&own.server);
    running.store.issue_failures.store(1000, Ordering::SeqCst);
    running.pass(HOUR / 2 + MINUTE).await;
    assert_eq!(leaf(&own.server).serial, first.serial);
    running.store.issue_failures.store(0, Ordering::SeqCst);
    running.pass(MINUTE).await;
    assert_ne!(leaf(&own.server).serial, first.serial);
}
