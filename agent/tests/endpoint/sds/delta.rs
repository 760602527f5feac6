//! The incremental way to ask.

use signet_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use signet_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_proto::google::rpc::Status as Why;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Facts, TWO};
use crate::support::{Socket, ready, soon};

pub(super) struct Proxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
}

pub(super) fn subscribing(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

impl Proxy {
    pub(super) async fn of(socket: &Socket) -> Self {
        let (requests, sent) = mpsc::channel(8);
        let mut client = SecretDiscoveryServiceClient::new(socket.channel().await);
        let answers = soon(client.delta_secrets(ReceiverStream::new(sent)))
            .await
            .unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
        }
    }

    pub(super) async fn asks(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(super) async fn hears(&mut self) -> DeltaDiscoveryResponse {
        soon(self.answers.message()).await.unwrap().unwrap()
    }

    pub(super) async fn ends(&mut self) -> Status {
        soon(self.answers.message()).await.unwrap_err()
    }

    pub(super) async fn hears_nothing(&mut self, socket: &Socket) {
        socket.round_trip().await;
        socket.round_trip().await;
        let heard = tokio::time::timeout(std::time::Duration::from_millis(50), self.answers.message()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

pub(super) fn names(answer: &DeltaDiscoveryResponse) -> Vec<&str> {
    answer
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

fn settled(answer: &DeltaDiscoveryResponse, refused: bool) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: answer.nonce.clone(),
        error_detail: refused.then(|| Why {
            code: 3,
            message: "no".to_owned(),
        }),
        ..DeltaDiscoveryRequest::default()
    }
}

#[tokio::test]
async fn only_what_has_changed_is_sent() {
    let facts = Facts::new();
    let socket = Socket::pending();
    let mut context = facts.context(1);
    socket.say(ready(context.clone()));
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(subscribing(&["default", "ROOTCA"])).await;
    let first = proxy.hears().await;
    assert_eq!(names(&first), ["ROOTCA", "default"]);
    proxy.asks(settled(&first, false)).await;
    proxy.hears_nothing(&socket).await;
    context.crls = facts.context(2).crls;
    socket.say(ready(context.clone()));
    let second = proxy.hears().await;
    assert_eq!(names(&second), ["ROOTCA"]);
    assert_ne!(first.resources[0].version, second.resources[0].version);
    // Refused: not again before it has changed. Whoever subscribes again is answered, and hears of what else he asked for only.
    proxy.asks(settled(&second, true)).await;
    proxy.hears_nothing(&socket).await;
    proxy.asks(subscribing(&["default"])).await;
    assert_eq!(names(&proxy.hears().await), ["default"]);
    let gone = DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec!["ROOTCA".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    proxy.asks(gone).await;
    proxy.hears_nothing(&socket).await;
    context.crls = facts.context(3).crls;
    socket.say(ready(context));
    proxy.hears_nothing(&socket).await;
}

#[tokio::test]
async fn what_a_proxy_brought_from_another_stream_is_not_sent_again() {
    let facts = Facts::new();
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(subscribing(&["spiffe://example.org"])).await;
    let answer = proxy.hears().await;
    let again = DeltaDiscoveryRequest {
        initial_resource_versions: [(
            "spiffe://example.org".to_owned(),
            answer.resources[0].version.clone(),
        )]
        .into(),
        ..subscribing(&["spiffe://example.org"])
    };
    let mut proxy = Proxy::of(&socket).await;
    proxy.asks(again).await;
    proxy.hears_nothing(&socket).await;
    socket.say(ready(facts.context(2)));
    assert_eq!(names(&proxy.hears().await), ["spiffe://example.org"]);
}

#[tokio::test]
async fn what_goes_is_removed_once_and_sent_when_it_comes_back() {
    let facts = Facts::new();
    let socket = Socket::pending();
    let both = facts.context(1);
    let mut one = both.clone();
    one.svids.pop();
    socket.say(ready(both.clone()));
    for request in [subscribing(&[TWO]), subscribing(&[]), subscribing(&["*"])] {
        socket.say(ready(both.clone()));
        let mut proxy = Proxy::of(&socket).await;
        proxy.asks(request).await;
        let answer = proxy.hears().await;
        assert!(names(&answer).contains(&TWO));
        proxy.asks(settled(&answer, false)).await;
        socket.say(ready(one.clone()));
        let answer = proxy.hears().await;
        assert_eq!(
            (names(&answer), &answer.removed_resources[..]),
            (vec![], &[TWO.to_owned()][..])
        );
        proxy.asks(settled(&answer, false)).await;
        socket.say(ready(one.clone()));
        proxy.hears_nothing(&socket).await;
        socket.say(ready(both.clone()));
        assert_eq!(names(&proxy.hears().await), [TWO]);
    }
}
