use std::sync::atomic::Ordering;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, ServerName};
use signet_certs::authority::AuthorityCertificate;
use signet_certs::link::{LINKS_PROTOCOL, MAX_LINKS};
use signet_certs::tls::{
    PeerRule, SharedRoots, SpiffeVerifier, TrustSource, client_config, server_config, time_provider,
};
use signet_certs::verify::{LeafInfo, Role, TrustRoots, inspect_leaf, verify_chain};
use signet_runtime::sync::Mutex;

use super::*;
use crate::authority::OrderRequest;
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
    keep_by(running, running.trusted.clone()).await
}

async fn keep_by(running: &Running, clock: Arc<dyn Clock>) -> Result<OwnSvids, OwnSvidError> {
    keep_own_svids(OwnSvidParts {
        trust_domain: trust_domain(),
        server: profile(),
        bundle: Some(profile()),
        store: running.store.clone(),
        view: running.manager.current(),
        snapshots: running.publisher.snapshots(),
        firsts: running.firsts.clone(),
        clock,
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

/// Covers INV-16. No agent that knows the time connects to a server whose certificate is of another.
#[tokio::test(start_paused = true)]
async fn made_ahead_of_time_they_are_replaced_when_it_is_right() {
    let running = Running::new().await;
    running.clock.set_offset(7200);
    let own = keep_by(&running, Arc::new(running.clock.clone())).await.unwrap();
    running.clock.set_offset(0);
    running.pass(MINUTE).await;
    assert!(leaf(&own.server).not_before <= running.now());
    assert!(leaf(own.bundle.as_ref().unwrap()).not_before <= running.now());
}

#[tokio::test(start_paused = true)]
async fn they_move_with_the_active_authority_and_away_from_a_revocation() {
    let running = Running::new().await;
    let own = keep(&running).await.unwrap();
    let first = leaf(&own.server);
    let wish = OrderRequest::rotation(AuthorityKind::Control, true);
    let mut steps = running.manager.order(wish).await.unwrap();
    while steps.next().await.is_some() {}
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

/// What a server presents to a client that offers these protocols.
fn presented(identity: &Arc<RotatingIdentity>, protocols: &[&[u8]], now: SystemTime) -> Vec<Vec<u8>> {
    let (trust_domain, nobody) = (trust_domain(), Arc::new(SharedRoots::default()));
    let strangers = SpiffeVerifier::new(nobody, PeerRule::TrustDomain(trust_domain));
    let server = server_config(identity.clone(), strangers, false, &[b"h2"]).unwrap();
    let seen = Arc::new(Seen::default());
    let verifier = SpiffeVerifier::new(seen.clone(), PeerRule::Any);
    let mut client = client_config(None, verifier, protocols).unwrap();
    client.time_provider = time_provider(move || now);
    let name = ServerName::try_from("ignored.invalid").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
    let (mut hello, mut answer) = (Vec::new(), Vec::new());
    client.write_tls(&mut hello).unwrap();
    server.read_tls(&mut hello.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    server.write_tls(&mut answer).unwrap();
    // The answer is longer than what one call takes in.
    let mut unread = answer.as_slice();
    while !unread.is_empty() {
        client.read_tls(&mut unread).unwrap();
        if client.process_new_packets().is_err() {
            break;
        }
    }
    seen.0.lock().clone()
}

/// Trusts nobody, and remembers what it was shown.
#[derive(Debug, Default)]
struct Seen(Mutex<Vec<Vec<u8>>>);

impl TrustSource for Seen {
    fn roots(&self) -> Arc<TrustRoots> {
        Arc::default()
    }

    fn roots_by_links(&self, chain: &[CertificateDer<'_>], _: SystemTime) -> Option<Arc<TrustRoots>> {
        *self.0.lock() = chain.iter().map(|der| der.to_vec()).collect();
        None
    }
}

/// An agent of 1.0 offers HTTP/2 alone, and is shown no more than the leaf.
#[tokio::test(start_paused = true)]
async fn links_to_its_authority_follow_the_leaf_for_those_who_ask() {
    let running = Running::new().await;
    let own = keep(&running).await.unwrap();
    let wants: &[&[u8]] = &[LINKS_PROTOCOL, b"h2"];
    assert_eq!(presented(&own.server, wants, running.now()).len(), 1);
    for rotation in 1..=6 {
        let wish = OrderRequest::rotation(AuthorityKind::Control, true);
        let mut steps = running.manager.order(wish).await.unwrap();
        while steps.next().await.is_some() {}
        running.pass(Duration::from_millis(10)).await;
        let shown = presented(&own.server, wants, running.now());
        assert_eq!(shown.len(), 1 + MAX_LINKS.min(rotation));
        let last = AuthorityCertificate::from_der(&shown[1]).unwrap();
        assert_eq!(last.id(), leaf(&own.server).authority_id);
        assert_eq!(presented(&own.server, &[b"h2"], running.now()).len(), 1);
    }
    let bundle = own.bundle.unwrap();
    assert_eq!(presented(&bundle, wants, running.now()).len(), 1);
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
