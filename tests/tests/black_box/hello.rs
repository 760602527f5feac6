//! A connection of an agent begins with Hello; one of protocol version 1.0 goes on as it did.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use prost::{Message, encoding::decode_varint};
use serde_json::json;
use signet_proto::agent::{
    AttestNodeRequest, AttestNodeResponse, HelloRequest, HelloResponse, IssueItem, IssueX509SvidsResponse,
    KubernetesNodeToken, PodToken, ProtocolVersion, TrustState, attest_node_request, issue_item,
    issue_result::Outcome,
    opening::{self, VERSION},
    refusal::Reason,
};
use signet_tests::{
    agent_client::{RawAgent, new_csr, pod_item},
    domain::{Domain, Plan},
    wait::eventually,
};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::support::assert_refused;

/// What an agent of version 1.0 and its server said to each other, as bytes of messages.
macro_rules! recorded {
    ($name:literal) => {
        Bytes::from_static(include_bytes!(concat!(
            "../../fixtures/protocol/minor0/",
            $name,
            ".bin"
        )))
    };
}

/// Opens a trust stream and returns its first message.
async fn trust_state(agent: &RawAgent) -> Result<Bytes, Status> {
    let (_reports, messages) = mpsc::channel(1);
    let mut states = agent.converse("SyncTrust", messages).await?;
    states
        .message()
        .await?
        .ok_or_else(|| Status::internal("no message"))
}

fn assert_unopened(what: &str, error: &Status) {
    assert_eq!(error.code(), Code::FailedPrecondition, "{what}: {error:?}");
    assert!(
        error.message().contains("/signet.agent.v1.Agent/Hello"),
        "{what} does not say what to do: {error:?}"
    );
}

#[tokio::test]
async fn every_connection_says_its_own_hello_first() {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (_opened, certificate) = domain.raw_agent("node-a").await.unwrap();
    let item = || vec![pod_item(new_csr().unwrap(), &token)];
    // That another connection of the same agent is open makes no difference.
    for certificate in [None, Some(&certificate)] {
        let mut connection = RawAgent::connect(domain.server.agents(), certificate)
            .await
            .unwrap();
        let issued = connection.issue(item()).await;
        assert_unopened("IssueX509Svids", &issued.unwrap_err());
        assert_unopened("SyncTrust", &trust_state(&connection).await.unwrap_err());

        let other_major = HelloRequest {
            version: Some(ProtocolVersion { major: 2, minor: 0 }),
            ..HelloRequest::default()
        };
        let refused = connection.stub().hello(other_major).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("upgrade"), "{refused:?}");
        assert_unopened(
            "after a refused Hello",
            &trust_state(&connection).await.unwrap_err(),
        );

        let hello = connection.hello().await.unwrap();
        assert_eq!(hello.version, Some(VERSION));
        assert_eq!(hello.features, opening::names());
        match certificate {
            Some(_) => {
                connection.issue_good(&token).await.unwrap();
                trust_state(&connection).await.unwrap();
            }
            None => {
                let error = connection.issue(item()).await.unwrap_err();
                assert_eq!(error.code(), Code::Unauthenticated, "{error:?}");
                let error = trust_state(&connection).await.unwrap_err();
                assert_eq!(error.code(), Code::Unauthenticated, "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_was_not_agreed_on_is_refused_on_its_connection() {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut opened, certificate) = domain.raw_agent("node-a").await.unwrap();
    let mut connection = RawAgent::connect(domain.server.agents(), Some(&certificate))
        .await
        .unwrap();
    let hello = HelloRequest {
        version: Some(VERSION),
        features: vec!["unix".to_owned(), "of-tomorrow".to_owned()],
        ..HelloRequest::default()
    };
    let answer = connection.stub().hello(hello).await.unwrap().into_inner();
    assert_eq!(answer.features, ["unix"]);
    let outcome = connection.issue_one(new_csr().unwrap(), &token).await.unwrap();
    assert_refused(
        "evidence that Hello did not name",
        outcome,
        Reason::InvalidRequest,
    );
    opened.issue_good(&token).await.unwrap();
}

/// The rules with which was recorded.
fn plan() -> Plan {
    Plan::default().server(
        "/rules",
        json!([
            { "name": "pods", "spiffe_id": "/ns/{namespace}/sa/{service_account}" },
            {
                "name": "shell",
                "match": { "evidence": ["unix"], "unix": { "uids": [0] } },
                "spiffe_id": "/host/uid/{uid}",
            },
        ]),
    )
}

/// The recorded message with another token, for the recorded one has expired: of a field that is there twice the last counts.
fn with_node_token(recorded: Bytes, token: String) -> Bytes {
    let evidence = KubernetesNodeToken {
        token,
        ..KubernetesNodeToken::default()
    };
    let newer = AttestNodeRequest {
        evidence: Some(attest_node_request::Evidence::Kubernetes(evidence)),
        ..AttestNodeRequest::default()
    };
    [recorded, newer.encode_to_vec().into()].concat().into()
}

/// The same within the one item of a request.
fn with_pod_token(mut recorded: Bytes, token: String) -> Bytes {
    let key = recorded.split_to(1);
    let length = decode_varint(&mut recorded).unwrap();
    assert_eq!(length, recorded.len() as u64, "one item and nothing else");
    let newer = IssueItem {
        evidence: Some(issue_item::Evidence::PodToken(PodToken {
            token,
            ..PodToken::default()
        })),
        ..IssueItem::default()
    };
    let item = [recorded, newer.encode_to_vec().into()].concat();
    let mut message = BytesMut::from(key);
    prost::encoding::encode_varint(item.len() as u64, &mut message);
    message.extend(item);
    message.freeze()
}

/// Compares two answers field by field, once what differs by nature has been put aside. What this build does not know
/// would be lost in decoding, so the bytes are compared too.
fn assert_same<M>(recorded: Bytes, given: Bytes, put_aside: impl Fn(&mut M))
where
    M: Message + Debug + Default + PartialEq,
{
    let decode = |bytes: Bytes| {
        let mut message = M::decode(bytes.clone()).unwrap();
        assert_eq!(message.encode_to_vec(), bytes, "fields that no build has");
        put_aside(&mut message);
        message
    };
    assert_eq!(decode(given), decode(recorded));
}

/// Puts the contents of these aside, but not how many there are.
fn clear<'a>(all: impl IntoIterator<Item = &'a mut Bytes>) {
    for one in all {
        assert!(!one.is_empty());
        one.clear();
    }
}

/// Its first call is not Hello.
async fn attests_as_recorded(domain: &Domain) {
    let stranger = RawAgent::connect(domain.server.agents(), None).await.unwrap();
    let token = domain.node_token("node-a").unwrap();
    let request = with_node_token(recorded!("attest_node_request"), token);
    let attested = stranger.exchange("AttestNode", request).await.unwrap();
    assert_same(
        recorded!("attest_node_response"),
        attested,
        |answer: &mut AttestNodeResponse| {
            clear(&mut answer.certificate_chain);
            clear(&mut answer.control_authorities);
            assert!(answer.spiffe_id.ends_with(&answer.node_uid));
            answer.spiffe_id.clear();
            answer.node_uid.clear();
        },
    );
}

async fn says_hello_as_recorded(agent: &RawAgent) {
    let hello = agent.exchange("Hello", recorded!("hello_request")).await.unwrap();
    assert_same(
        recorded!("hello_response"),
        hello,
        |answer: &mut HelloResponse| answer.clock_unix_ms = 0,
    );
}

/// The stream stays open as long as the sender of its reports.
async fn syncs_as_recorded(agent: &RawAgent) -> mpsc::Sender<Bytes> {
    let (reports, messages) = mpsc::channel(1);
    reports.send(recorded!("trust_report_first")).await.unwrap();
    let mut states = agent.converse("SyncTrust", messages).await.unwrap();
    let state = states.message().await.unwrap().unwrap();
    assert_same(recorded!("trust_state"), state, |state: &mut TrustState| {
        assert!(state.sequence_number > 0);
        state.sequence_number = 0;
        state.policy_revision = 0;
        let control = &mut state.control_authorities;
        for authority in state.x509_authorities.iter_mut().chain(control) {
            clear([&mut authority.certificate, &mut authority.crl]);
        }
    });
    // Read to its end, or the server would take the agent for gone.
    tokio::spawn(async move { while let Ok(Some(_)) = states.message().await {} });
    reports
}

async fn is_issued_as_recorded(agent: &RawAgent, pod_token: String) {
    let put_aside = |answer: &mut IssueX509SvidsResponse| match answer.results[0].outcome.as_mut().unwrap() {
        Outcome::Issued(issued) => {
            clear(&mut issued.certificate_chain);
            issued.policy_revision = 0;
        }
        other => panic!("{other:?}"),
    };
    let request = with_pod_token(recorded!("issue_pod_request"), pod_token);
    let answer = agent.exchange("IssueX509Svids", request).await.unwrap();
    assert_same(recorded!("issue_pod_response"), answer, put_aside);
    let answer = agent.exchange("IssueX509Svids", recorded!("issue_unix_request"));
    assert_same(recorded!("issue_unix_response"), answer.await.unwrap(), put_aside);
}

#[tokio::test]
async fn an_agent_of_version_1_0_gets_the_answers_that_it_got_then() {
    let domain = plan().start().await.unwrap();
    let pod_token = domain.shop_pod("front", "node-a").unwrap();
    attests_as_recorded(&domain).await;
    let (_, certificate) = domain.raw_agent("node-a").await.unwrap();
    let agent = RawAgent::connect(domain.server.agents(), Some(&certificate))
        .await
        .unwrap();
    says_hello_as_recorded(&agent).await;
    let reports = syncs_as_recorded(&agent).await;
    is_issued_as_recorded(&agent, pod_token).await;
    reports.send(recorded!("trust_report")).await.unwrap();
    eventually("the report to be understood", async || {
        let agents = domain.server.admin(&["agent", "list"]).await.unwrap();
        (agents["agents"][0]["pods"] == 1).then_some(())
    })
    .await;
    // Before its next trust stream it says Hello again, and that changes nothing.
    says_hello_as_recorded(&agent).await;
    trust_state(&agent).await.unwrap();
}
