//! Certificates are replaced in time, under the eyes of whoever watches.

use std::time::Duration;

use serde_json::json;
use signet_runtime::clock::{Clock, SystemClock};
use signet_tests::{domain::Plan, fake_kube::Endpoint};

use super::support::{pod_with_volume, workload_svids};

/// The shortest life the server accepts.
fn short_lived() -> Plan {
    Plan::default()
        .server("/svid/ttl", json!("10s"))
        .server("/svid/clock_skew", json!("1s"))
}

/// Covers INV-9, INV-10.
#[tokio::test]
async fn a_watched_identity_is_renewed_before_it_expires() {
    let domain = short_lived().start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let workload = agent.workload(&volume);
    let mut current = workload.identity().await;
    let mut updates = workload.watch().await.unwrap();
    for _ in 0..2 {
        let serial = current.svid.serial();
        let next = updates
            .until("a renewed identity", |identity| identity.svid.serial() != serial)
            .await;
        let now = SystemClock.now();
        assert!(
            now < current.svid.not_after(),
            "the old one had expired when the new one came"
        );
        assert!(now < next.svid.not_after());
        assert_eq!(next.svid.spiffe_id(), current.svid.spiffe_id());
        assert_ne!(
            next.svid.key().public_key_spki(),
            current.svid.key().public_key_spki(),
            "a key of its own"
        );
        assert!(next.svid.not_after() <= next.authorities[0].certificate.not_after());
        next.judge(&current.svid).unwrap();
        current = next;
    }
}

/// A review stays good while the watch shows that nothing has changed, so renewals do not burden the API server.
#[tokio::test]
async fn renewals_cost_no_further_reviews() {
    let domain = short_lived().start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let workload = agent.workload(&volume);
    let serial = workload.identity().await.svid.serial();
    let before = domain.kube.calls(Endpoint::TokenReviews);
    let mut updates = workload.watch().await.unwrap();
    updates
        .until("a renewed identity", |identity| identity.svid.serial() != serial)
        .await;
    assert_eq!(domain.kube.calls(Endpoint::TokenReviews), before);
}

/// A pod on its way out still serves requests; kubelet brings it no more tokens, yet it must not lose its identity.
#[tokio::test]
async fn a_terminating_pod_keeps_its_identity_until_it_is_gone() {
    let domain = short_lived().start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let workload = agent.workload(&volume);
    let serial = workload.identity().await.svid.serial();
    let mut updates = workload.watch().await.unwrap();
    domain
        .kube
        .terminate_pod("shop", "front", Duration::from_secs(60))
        .unwrap();
    updates
        .until("a renewal of a terminating pod", |identity| {
            identity.svid.serial() != serial
        })
        .await;
    domain.kube.delete_pod("shop", "front").unwrap();
    let refused = signet_tests::wait::eventually("the end of its identity", async || {
        let issued = workload_svids(&domain).await.len();
        match workload.fetch().await {
            Ok(_) => None,
            Err(status) => Some((issued, status)),
        }
    });
    let (issued, _) = refused.await;
    assert_eq!(
        workload_svids(&domain).await.len(),
        issued,
        "nothing is issued to a pod that is gone"
    );
}
