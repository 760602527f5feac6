//! Envoy's secret discovery on a workload socket, as a proxy meets it.

mod bounds;
mod delta;
mod form;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use signet_agent::testing::{GrantedSvid, Lists, WorkloadState, X509Context};
use signet_certs::authority::X509Authority;
use signet_proto::envoy::config::core::v3::Node;
use signet_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use signet_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use signet_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_proto::google::rpc::Status as Why;
use signet_testkit::{DOMAIN, authority, crl, svid};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::{Socket, ready, soon};

pub(crate) const TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

pub(crate) const ONE: &str = "spiffe://example.org/ns/a/sa/one";
pub(crate) const TWO: &str = "spiffe://example.org/ns/a/sa/two";

/// Two identities under an authority with a list, and a foreign trust domain.
pub(crate) struct Facts {
    pub(crate) authority: X509Authority,
    pub(crate) foreign: X509Authority,
}

impl Facts {
    pub(crate) fn new() -> Self {
        Self {
            authority: authority(DOMAIN),
            foreign: authority("friend.example"),
        }
    }

    /// With the list of this number.
    pub(crate) fn context(&self, number: u64) -> X509Context {
        let granted = |path| GrantedSvid::new(Arc::new(svid(&self.authority, path)), String::new());
        let list = crl(&self.authority, number, &[]).der().to_vec();
        X509Context {
            trust_domain: DOMAIN.to_owned(),
            svids: vec![granted("/ns/a/sa/one"), granted("/ns/a/sa/two")],
            bundle: Bytes::copy_from_slice(self.authority.certificate().der()),
            crls: Lists::new(vec![list.into()]),
            federated_bundles: BTreeMap::from([
                (
                    "friend.example".to_owned(),
                    Bytes::copy_from_slice(self.foreign.certificate().der()),
                ),
                ("empty.example".to_owned(), Bytes::new()),
            ]),
        }
    }
}

pub(crate) fn asking(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(ToString::to_string).collect(),
        type_url: TYPE.to_owned(),
        ..DiscoveryRequest::default()
    }
}

/// A proxy's stream.
pub(crate) struct Proxy {
    requests: mpsc::Sender<DiscoveryRequest>,
    answers: Streaming<DiscoveryResponse>,
}

impl Proxy {
    pub(crate) async fn of(socket: &Socket) -> Self {
        let (requests, sent) = mpsc::channel(8);
        let mut client = SecretDiscoveryServiceClient::new(socket.channel().await);
        let answers = soon(client.stream_secrets(ReceiverStream::new(sent)))
            .await
            .unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
        }
    }

    pub(crate) async fn asks(&self, request: DiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn hears(&mut self) -> DiscoveryResponse {
        soon(self.answers.message()).await.unwrap().unwrap()
    }

    pub(crate) async fn ends(&mut self) -> Status {
        soon(self.answers.message()).await.unwrap_err()
    }

    /// Nothing comes, however much is done meanwhile.
    pub(crate) async fn hears_nothing(&mut self, socket: &Socket) {
        socket.round_trip().await;
        socket.round_trip().await;
        let heard = tokio::time::timeout(std::time::Duration::from_millis(50), self.answers.message()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

pub(crate) fn taking(answer: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: answer.version_info.clone(),
        response_nonce: answer.nonce.clone(),
        ..asking(names)
    }
}

pub(crate) fn refusing(answer: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: String::new(),
        error_detail: Some(Why {
            code: 13,
            message: "Failed to load\ncertificate chain".to_owned(),
        }),
        ..taking(answer, names)
    }
}

pub(crate) fn secrets(answer: &DiscoveryResponse) -> Vec<Secret> {
    let each = answer.resources.iter().map(|any| {
        assert_eq!(any.type_url, TYPE);
        Secret::decode(any.value.as_slice()).unwrap()
    });
    each.collect()
}

fn names(answer: &DiscoveryResponse) -> Vec<String> {
    secrets(answer).into_iter().map(|secret| secret.name).collect()
}

/// Covers SDS-01, SDS-02, SDS-03, SDS-11.
#[tokio::test]
async fn any_mix_of_names_is_answered_by_the_names_that_were_asked() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut proxy = Proxy::of(&socket).await;
    let mix = [
        "default",
        "ROOTCA",
        "ALL",
        "spiffe://example.org",
        TWO,
        "spiffe://friend.example",
    ];
    proxy.asks(asking(&mix)).await;
    let answer = proxy.hears().await;
    let mut expected = mix.to_vec();
    expected.sort_unstable();
    assert_eq!(names(&answer), expected);
    assert_eq!(answer.type_url, TYPE);
    assert!(!answer.nonce.is_empty() && !answer.version_info.is_empty());
}

/// Covers SDS-07.
#[tokio::test]
async fn whoever_names_nothing_gets_everything_that_is_his_and_later_nothing() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(asking(&[])).await;
    let answer = proxy.hears().await;
    assert_eq!(
        names(&answer),
        ["spiffe://example.org", ONE, TWO, "spiffe://friend.example"]
    );
    proxy.asks(taking(&answer, &[])).await;
    proxy.hears_nothing(&socket).await;
    socket.say(ready(facts.context(2)));
    let answer = proxy.hears().await;
    proxy.asks(taking(&answer, &["default"])).await;
    let answer = proxy.hears().await;
    assert_eq!(names(&answer), ["default"]);
    // All of them by name, beside one of one's own.
    proxy.asks(taking(&answer, &["default", "*"])).await;
    let answer = proxy.hears().await;
    assert_eq!(
        names(&answer),
        [
            "default",
            "spiffe://example.org",
            ONE,
            TWO,
            "spiffe://friend.example"
        ]
    );
    proxy.asks(taking(&answer, &["default"])).await;
    let answer = proxy.hears().await;
    assert_eq!(names(&answer), ["default"]);
    // After names were given, none unsubscribe.
    proxy.asks(taking(&answer, &[])).await;
    proxy.hears_nothing(&socket).await;
    socket.say(ready(facts.context(3)));
    proxy.hears_nothing(&socket).await;
}

/// Covers SDS-08, SDS-12, BG-24.
#[tokio::test]
async fn what_is_not_this_workloads_ends_the_call_and_is_named() {
    let facts = Facts::new();
    for name in [
        "spiffe://example.org/ns/b/sa/other",
        "spiffe://stranger.example",
        "rootca",
        "",
    ] {
        let socket = Socket::pending();
        socket.say(ready(facts.context(1)));
        let mut proxy = Proxy::of(&socket).await;
        proxy.asks(asking(&["default", name])).await;
        let status = proxy.ends().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(&format!("`{name}`")), "{status:?}");
    }
}

/// Covers SDS-09, SDS-10, BG-24.
#[tokio::test]
async fn an_answer_comes_for_a_change_of_names_or_of_secrets_and_for_nothing_else() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(asking(&["default"])).await;
    let first = proxy.hears().await;
    proxy.asks(taking(&first, &["default"])).await;
    proxy.hears_nothing(&socket).await;
    // The same again says nothing; other names are answered though no secret has changed.
    proxy.asks(taking(&first, &["default", "default"])).await;
    proxy.hears_nothing(&socket).await;
    proxy.asks(taking(&first, &["ROOTCA", "default"])).await;
    let second = proxy.hears().await;
    assert_eq!(names(&second), ["ROOTCA", "default"]);
    assert_ne!(first.nonce, second.nonce);
    assert_ne!(first.version_info, second.version_info);
    // It crossed with the second answer: whatever it names is ignored.
    proxy.asks(taking(&first, &["ALL"])).await;
    proxy.hears_nothing(&socket).await;
    // A list is news for who asked for trust.
    proxy.asks(taking(&second, &["ROOTCA", "default"])).await;
    socket.say(ready(facts.context(2)));
    let third = proxy.hears().await;
    assert_ne!(second.version_info, third.version_info);
}

/// Covers SDS-09, BG-24.
#[tokio::test]
async fn a_refused_answer_is_not_given_again_before_something_has_changed() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(asking(&["ROOTCA"])).await;
    let answer = proxy.hears().await;
    for _ in 0..100 {
        proxy.asks(refusing(&answer, &["ROOTCA"])).await;
    }
    proxy.hears_nothing(&socket).await;
    socket.say(ready(facts.context(2)));
    assert_ne!(proxy.hears().await.version_info, answer.version_info);
}

/// Whoever asks only for a certificate hears nothing of lists.
#[tokio::test]
async fn a_certificate_is_not_sent_again_for_a_list() {
    let facts = Facts::new();
    let socket = Socket::pending();
    let mut context = facts.context(1);
    socket.say(ready(context.clone()));
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(asking(&["default"])).await;
    proxy.hears().await;
    let list = crl(&facts.authority, 2, &[]).der().to_vec();
    context.crls = Lists::new(vec![list.into()]);
    socket.say(ready(context.clone()));
    proxy.hears_nothing(&socket).await;
    // And not later for a missing list either.
    context.crls = Lists::new(Vec::new());
    socket.say(ready(context));
    proxy.hears_nothing(&socket).await;
}

/// Covers SDS-13.
#[tokio::test]
async fn whoever_asks_before_the_first_state_waits_and_then_has_his_answer() {
    let facts = Facts::new();
    let socket = Socket::patient(
        std::time::Duration::from_secs(20),
        WorkloadState::Pending { problem: None },
    );
    let mut proxies = [Proxy::of(&socket).await, Proxy::of(&socket).await];
    for proxy in &proxies {
        proxy.asks(asking(&["default", "ROOTCA"])).await;
    }
    socket.round_trip().await;
    for number in 1..4 {
        socket.say(ready(facts.context(number)));
        for proxy in &mut proxies {
            let answer = proxy.hears().await;
            assert_eq!(names(&answer), ["ROOTCA", "default"]);
            proxy.asks(taking(&answer, &["default", "ROOTCA"])).await;
        }
    }
}

/// Covers SDS-01.
#[tokio::test]
async fn a_fetch_is_answered_once() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut client = SecretDiscoveryServiceClient::new(socket.channel().await);
    let answer = soon(client.fetch_secrets(asking(&["default"])))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(names(&answer), ["default"]);
    let status = soon(client.fetch_secrets(asking(&["nobody"]))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// The node of the first request counts, and no later one.
///
/// Covers SDS-10.
#[tokio::test]
async fn what_a_proxy_says_of_itself_first_is_remembered() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut proxy = Proxy::of(&socket).await;
    let node = Some(form::without_spiffe_validator());
    proxy
        .asks(DiscoveryRequest {
            node,
            ..asking(&["ROOTCA"])
        })
        .await;
    for number in 2..4 {
        let answer = proxy.hears().await;
        assert!(!form::is_spiffe(&secrets(&answer)[0]));
        let node = Some(Node::default());
        proxy
            .asks(DiscoveryRequest {
                node,
                ..taking(&answer, &["ROOTCA"])
            })
            .await;
        socket.say(ready(facts.context(number)));
    }
}
