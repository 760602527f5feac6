//! What certificates of agents are worth, across restarts of the server.

use signet_certs::csr::create_csr;
use signet_proto::agent::{
    IssueItem, UnixWorkload, issue_item::Evidence, issue_result::Outcome, refusal::Reason,
};
use signet_testkit::provoked;
use signet_tests::{
    agent_client::{ClientCertificate, RawAgent, new_csr, new_key, pod_item},
    domain::{CLUSTER, Domain},
    wait::eventually,
};
use tonic::Code;

use super::support::assert_refused;

/// Connects by this certificate and asks for an identity.
async fn asks(domain: &Domain, certificate: &ClientCertificate, token: &str) -> Result<(), Code> {
    let line = RawAgent::connect(domain.server.agents(), Some(certificate)).await;
    let mut line = line.unwrap();
    line.hello().await.unwrap();
    let item = pod_item(new_csr().unwrap(), token);
    let mut results = line.issue(vec![item]).await.map_err(|status| status.code())?;
    match results.pop().unwrap().outcome.unwrap() {
        Outcome::Issued(_) => Ok(()),
        other => panic!("{other:?}"),
    }
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

/// A crash loop costs nobody an identity: not the node, and not its pods. Somebody is told, once.
#[tokio::test]
async fn fifty_restarts_of_an_agent_lock_nobody_out() {
    let domain = Domain::start().await.unwrap();
    let (pod, node) = (
        domain.shop_pod("front", "node-a").unwrap(),
        domain.node_token("node-a").unwrap(),
    );
    let mut certificate = ClientCertificate {
        chain: Vec::new(),
        key: new_key().unwrap(),
    };
    for _ in 0..50 {
        let mut stranger = RawAgent::connect(domain.server.agents(), None).await.unwrap();
        stranger.hello().await.unwrap();
        let csr = create_csr(&certificate.key).unwrap();
        let attested = stranger.attest(csr, CLUSTER, &node).await.unwrap();
        let chain = attested.certificate_chain.iter();
        certificate.chain = chain.map(|der| der.to_vec()).collect();
        asks(&domain, &certificate, &pod).await.unwrap();
    }
    let alarms = eventually("the alarm in the audit log", async || {
        let lines = domain.server.audit().ok()?;
        let is_alarm = |line: &serde_json::Value| line["event"] == "agent_superseded_often";
        lines.iter().any(is_alarm).then_some(lines)
    })
    .await;
    assert_eq!(provoked("agent_superseded_often", &alarms).len(), 1);
}

/// An item that cannot be read takes none of the others with it: a newer agent may bring evidence that this server does not know.
#[tokio::test]
async fn one_bad_item_of_a_request_fails_alone() {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut agent, _) = domain.raw_agent("node-a").await.unwrap();
    let good = || pod_item(new_csr().unwrap(), &token);
    let unknown = IssueItem {
        evidence: None,
        ..good()
    };
    let long_id = IssueItem {
        spiffe_id: "x".repeat(5000),
        ..good()
    };
    let odd_sum = IssueItem {
        evidence: Some(Evidence::Unix(UnixWorkload {
            sha256: vec![0; 31].into(),
            ..UnixWorkload::default()
        })),
        ..good()
    };
    let long_token = pod_item(new_csr().unwrap(), &"x".repeat(20_000));
    let items = vec![good(), unknown, long_id, odd_sum, long_token, good()];
    let mut outcomes = agent.issue(items).await.unwrap().into_iter();
    let mut next = || outcomes.next().unwrap().outcome.unwrap();
    assert!(matches!(next(), Outcome::Issued(_)));
    for what in [
        "unknown evidence",
        "a long ID",
        "31 bytes of SHA-256",
        "a long token",
    ] {
        assert_refused(what, next(), Reason::InvalidRequest);
    }
    assert!(matches!(next(), Outcome::Issued(_)));
    let unreadable = vec![pod_item(new_csr().unwrap(), &"x".repeat(20_000))];
    let alone = agent.issue(unreadable).await.unwrap().remove(0).outcome.unwrap();
    assert_refused("nothing but a bad item", alone, Reason::InvalidRequest);
}
