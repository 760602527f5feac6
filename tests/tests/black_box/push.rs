//! What goes over a trust stream a second time: of the lists that an agent holds, their names.

use bytes::Bytes;
use prost::Message;
use signet_certs::{authority::AuthorityCertificate, crl::Crl};
use signet_proto::agent::{Authority, CrlReport, HelloRequest, TrustReport, TrustState, opening};
use signet_tests::{
    agent_client::{ClientCertificate, RawAgent},
    domain::Domain,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// An open trust stream.
struct Stream {
    reports: mpsc::Sender<TrustReport>,
    states: Streaming<TrustState>,
}

impl Stream {
    /// Opens it with this report.
    async fn open(agent: &RawAgent, first: TrustReport) -> Self {
        let (reports, outgoing) = mpsc::channel(4);
        reports.send(first).await.unwrap();
        let stream = agent.stub().sync_trust(ReceiverStream::new(outgoing)).await;
        Self {
            reports,
            states: stream.unwrap().into_inner(),
        }
    }

    async fn next(&mut self) -> TrustState {
        self.states.message().await.unwrap().unwrap()
    }

    /// The next state that this is true of.
    async fn until(&mut self, wanted: impl Fn(&TrustState) -> bool) -> TrustState {
        loop {
            let state = self.next().await;
            if wanted(&state) {
                return state;
            }
        }
    }
}

fn all(state: &TrustState) -> impl Iterator<Item = &Authority> {
    state.x509_authorities.iter().chain(&state.control_authorities)
}

fn certificate(authority: &Authority) -> AuthorityCertificate {
    AuthorityCertificate::from_der(&authority.certificate).unwrap()
}

/// Whether each list came as bytes, workloads' first.
fn carried(state: &TrustState) -> Vec<bool> {
    let carried = |one: &Authority| {
        assert_ne!(one.crl.is_empty(), one.crl_sha256.is_empty(), "one of the two");
        !one.crl.is_empty()
    };
    all(state).map(carried).collect()
}

/// What an agent says that holds the lists of this state, every one of which it carried.
fn holding(state: &TrustState) -> TrustReport {
    let held = |one: &Authority| {
        let certificate = certificate(one);
        let crl = Crl::verify(&one.crl, &certificate).unwrap();
        CrlReport {
            authority_id: Bytes::copy_from_slice(certificate.id().as_bytes()),
            number: crl.number().0,
            sha256: Bytes::copy_from_slice(&crl.sha256()),
        }
    };
    TrustReport {
        crls: all(state).map(held).collect(),
        epoch: state.epoch,
        policy_revision: state.policy_revision,
        ..TrustReport::default()
    }
}

/// Revokes an identity; its denial's id.
async fn deny(domain: &Domain, name: &str) -> String {
    let id = format!("spiffe://example.org/ns/shop/sa/{name}");
    let revoked = domain
        .server
        .admin(&["revoke", "--spiffe-id", &id])
        .await
        .unwrap();
    revoked["denial_id"].as_str().unwrap().to_owned()
}

/// A connection of an agent that knows these features.
async fn connected(domain: &Domain, certificate: &ClientCertificate, features: Vec<String>) -> RawAgent {
    let agent = RawAgent::connect(domain.server.agents(), Some(certificate))
        .await
        .unwrap();
    let hello = HelloRequest {
        version: Some(opening::VERSION),
        features,
        ..HelloRequest::default()
    };
    agent.stub().hello(hello).await.unwrap();
    agent
}

#[tokio::test]
async fn a_list_goes_to_whom_lacks_it_and_its_name_to_whom_holds_it() {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut agent, certificate) = domain.raw_agent("node-a").await.unwrap();
    agent.issue_good(&token).await.unwrap();
    let mut stream = Stream::open(&agent, TrustReport::default()).await;
    let first = stream.next().await;
    assert_eq!(carried(&first), [true, true], "nothing is held yet");
    // Heard before anything is said; a report on an open stream may come after what is said next.
    let mut stream = Stream::open(&agent, holding(&first)).await;
    assert_eq!(carried(&stream.next().await), [false, false]);

    let denial = deny(&domain, "front").await;
    let news = stream.until(|state| carried(state) != [false, false]).await;
    assert_eq!(carried(&news), [true, false], "the workloads' list is new");
    domain.server.admin(&["allow", &denial]).await.unwrap();
    let again = stream.until(|state| state.all_affected).await;
    assert_eq!(carried(&again), [false, false], "what was sent is held");
    let lists: usize = all(&first).map(|one| one.crl.len()).sum();
    assert!(
        again.encoded_len() + lists < first.encoded_len() + 3 * 40,
        "{} bytes after {}",
        again.encoded_len(),
        first.encoded_len()
    );

    // It was not believed, say.
    let control = certificate_id(&again.control_authorities[0]);
    stream
        .reports
        .send(TrustReport {
            lacking_crls: vec![control],
            ..holding(&first)
        })
        .await
        .unwrap();
    let full = stream.next().await;
    assert_eq!(
        carried(&full),
        [true, true],
        "an older one is held of the workloads'"
    );

    let everything = holding(&full);
    let mut back = Stream::open(
        &connected(&domain, &certificate, opening::names()).await,
        everything,
    )
    .await;
    assert_eq!(carried(&back.next().await), [false, false]);
}

fn certificate_id(authority: &Authority) -> Bytes {
    Bytes::copy_from_slice(certificate(authority).id().as_bytes())
}

#[tokio::test]
async fn an_agent_that_does_not_know_names_of_lists_gets_all_of_them() {
    let domain = Domain::start().await.unwrap();
    let (_, certificate) = domain.raw_agent("node-a").await.unwrap();
    let mut features = opening::names();
    features.retain(|feature| feature != "crl-digest");
    let agent = connected(&domain, &certificate, features).await;
    let mut stream = Stream::open(&agent, TrustReport::default()).await;
    let first = stream.next().await;
    stream.reports.send(holding(&first)).await.unwrap();
    let denial = deny(&domain, "front").await;
    domain.server.admin(&["allow", &denial]).await.unwrap();
    let again = stream.until(|state| state.all_affected).await;
    assert_eq!(
        (carried(&first), carried(&again)),
        (vec![true, true], vec![true, true])
    );
}

/// Who was there asks about nothing again when it is back; who has heard another epoch or other rules, about everything.
#[tokio::test]
async fn the_first_report_decides_whether_everything_is_asked_about_again() {
    let domain = Domain::start().await.unwrap();
    let (agent, certificate) = domain.raw_agent("node-a").await.unwrap();
    let mut stream = Stream::open(&agent, TrustReport::default()).await;
    let seen = holding(&stream.next().await);
    let mut former = seen.clone();
    former.epoch += 1;
    let mut other_rules = seen.clone();
    other_rules.policy_revision = seen.policy_revision.wrapping_add(1);
    for (first, all_affected) in [
        (seen.clone(), false),
        (former, true),
        (other_rules, true),
        (seen, false),
    ] {
        let agent = connected(&domain, &certificate, opening::names()).await;
        let mut stream = Stream::open(&agent, first.clone()).await;
        let state = stream.next().await;
        assert_eq!(state.all_affected, all_affected, "{first:?}");
        assert_eq!(state.affected_pod_uids, Vec::<String>::new());
    }
}
