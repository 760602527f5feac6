//! What certificates of agents are worth, across restarts of the server.

use signet_tests::{
    agent_client::{ClientCertificate, RawAgent, new_csr, pod_item},
    domain::Domain,
};
use tonic::Code;

/// Connects by this certificate and asks for an identity.
async fn asks(domain: &Domain, certificate: &ClientCertificate, token: &str) -> Result<(), Code> {
    let line = RawAgent::connect(domain.server.agents(), Some(certificate)).await;
    let mut line = line.unwrap();
    line.hello().await.unwrap();
    let item = pod_item(new_csr().unwrap(), token);
    line.issue(vec![item])
        .await
        .map(drop)
        .map_err(|status| status.code())
}

/// A copy that was stolen before a renewal stays worthless when the server has forgotten everything but its store, and takes
/// its successor neither connections nor calls.
///
/// Covers INV-12.
#[tokio::test]
async fn a_superseded_certificate_is_worth_nothing_after_a_restart_either() {
    let mut domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut first, stolen) = domain.raw_agent("node-a").await.unwrap();
    first.issue_good(&token).await.unwrap();
    let (mut second, newest) = domain.raw_agent("node-a").await.unwrap();
    second.issue_good(&token).await.unwrap();
    assert_eq!(asks(&domain, &stolen, &token).await, Err(Code::Unauthenticated));

    domain.server.kill().await;
    domain.server.start().await.unwrap();
    let mut thieves = Vec::new();
    for _ in 0..9 {
        let thief = RawAgent::connect(domain.server.agents(), Some(&stolen)).await;
        thieves.push(thief.unwrap());
        assert_eq!(asks(&domain, &stolen, &token).await, Err(Code::Unauthenticated));
    }
    for _ in 0..8 {
        asks(&domain, &newest, &token).await.unwrap();
    }
    drop(thieves);
}
