//! What a greedy sidecar proxy asks of secret discovery: as many names as a stream may have, answers that nobody reads, refusals without end.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use signet_proto::{
    envoy::service::{
        discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
        secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
    google::rpc::Status as Why,
};
use signet_tests::uds;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use super::tools::{Body, calls, connection, half, message, request, silent};

const STREAM: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
const DELTA: &str = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";

/// Names that one stream may have, and their length: all that it keeps.
const NAMES: usize = 100;
const LONGEST: usize = 2048;
/// Almost the longest request.
const LONG: usize = 255 * 1024;
/// Calls of one connection.
const CALLS: usize = 64;
/// Before it tries again after it was refused.
const PAUSE: Duration = Duration::from_millis(20);

/// What every workload has.
const GRANTED: [&str; 3] = ["default", "ROOTCA", "ALL"];

fn framed(message: &impl prost::Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

fn long_names() -> Vec<String> {
    (0..NAMES).map(|number| format!("{number:0>LONGEST$}")).collect()
}

fn names(round: usize) -> Vec<String> {
    GRANTED[..=round % GRANTED.len()]
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// These messages, and then nothing more.
fn and_waits(messages: impl futures_util::Stream<Item = Bytes> + Send + Sync + 'static) -> Body {
    let frames = messages.map(|message| Ok(Frame::data(message)));
    BodyExt::boxed(StreamBody::new(frames.chain(stream::pending())))
}

/// As many names as can be, of which there is nothing: the answer names them all, and nobody takes it.
fn hoard() -> Body {
    let all = DeltaDiscoveryRequest {
        resource_names_subscribe: long_names(),
        ..DeltaDiscoveryRequest::default()
    };
    and_waits(stream::iter([framed(&all)]))
}

/// Asks for other names again and again, and takes none of the answers.
fn changes_its_mind() -> Body {
    let request = |round| DiscoveryRequest {
        resource_names: names(round),
        ..DiscoveryRequest::default()
    };
    and_waits(stream::iter((0..).map(move |round| framed(&request(round)))))
}

/// The same of the other call: all names come and go.
fn comes_and_goes() -> Body {
    let request = |round: usize| {
        let (come, gone) = if round.is_multiple_of(2) {
            (names(2), Vec::new())
        } else {
            (Vec::new(), names(2))
        };
        DeltaDiscoveryRequest {
            resource_names_subscribe: come,
            resource_names_unsubscribe: gone,
            ..DeltaDiscoveryRequest::default()
        }
    };
    and_waits(stream::iter((0..).map(move |round| framed(&request(round)))))
}

/// Calls on one connection of which not a byte is taken, each opened again when it was ended.
async fn takes_nothing(socket: PathBuf, path: &'static str, number: usize, body: fn() -> Body) {
    loop {
        let Some((sender, mut tasks)) = connection(&socket, 0).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        for _ in 0..number {
            let mut sender = sender.clone();
            tasks.spawn(async move {
                loop {
                    if let Ok(answer) = sender.send_request(request(path, body())).await
                        && !answer.headers().contains_key("grpc-status")
                    {
                        // Until the agent ends it.
                        let _ = answer.into_body().collect().await;
                    }
                    if sender.is_closed() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        drop(sender);
        while tasks.join_next().await.is_some() {}
    }
}

fn why() -> Option<Why> {
    Some(Why {
        code: 3,
        message: "no ".repeat(1000),
    })
}

/// Refuses each answer, and asks for something else with the same breath.
async fn refuses(socket: PathBuf) {
    loop {
        let (requests, messages) = mpsc::channel(1);
        let mut client = SecretDiscoveryServiceClient::new(uds::connect_lazy(&socket));
        let mut round = 0;
        let first = DiscoveryRequest {
            resource_names: names(round),
            ..DiscoveryRequest::default()
        };
        requests.send(first).await.unwrap();
        if let Ok(answers) = client.stream_secrets(ReceiverStream::new(messages)).await {
            let mut answers = answers.into_inner();
            while let Ok(Some(answer)) = answers.message().await {
                round += 1;
                let refusal = DiscoveryRequest {
                    resource_names: names(round),
                    response_nonce: answer.nonce,
                    error_detail: why(),
                    ..DiscoveryRequest::default()
                };
                if requests.send(refusal).await.is_err() {
                    break;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same of the other call.
async fn refuses_what_is_new(socket: PathBuf) {
    loop {
        let (requests, messages) = mpsc::channel(1);
        let mut client = SecretDiscoveryServiceClient::new(uds::connect_lazy(&socket));
        let first = DeltaDiscoveryRequest {
            resource_names_subscribe: names(2),
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(first).await.unwrap();
        if let Ok(answers) = client.delta_secrets(ReceiverStream::new(messages)).await {
            let mut answers = answers.into_inner();
            while let Ok(Some(answer)) = answers.message().await {
                let refusal = DeltaDiscoveryRequest {
                    resource_names_subscribe: names(2),
                    response_nonce: answer.nonce,
                    error_detail: why(),
                    ..DeltaDiscoveryRequest::default()
                };
                if requests.send(refusal).await.is_err() {
                    break;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// All of it at once, from as many connections as it may have and more.
pub(super) fn attack_as_proxy(socket: &Path) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    let socket = || socket.to_owned();
    let long = message(LONG);
    for _ in 0..8 {
        attack.spawn(takes_nothing(socket(), DELTA, CALLS, hoard));
        attack.spawn(takes_nothing(socket(), STREAM, 8, changes_its_mind));
        attack.spawn(takes_nothing(socket(), DELTA, 8, comes_and_goes));
        attack.spawn(refuses(socket()));
        attack.spawn(refuses_what_is_new(socket()));
        let long = long.clone();
        attack.spawn(calls(socket(), STREAM, 8, move || half(&long)));
    }
    for _ in 0..32 {
        attack.spawn(takes_nothing(socket(), DELTA, 1, hoard));
        attack.spawn(silent(socket()));
    }
    attack
}
