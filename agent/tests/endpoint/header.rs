//! The security header, and what is exempt from it.

use std::sync::atomic::Ordering;

use http::Uri;
use signet_proto::workload::X509svidRequest;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::raw::{RawClient, call_headers};
use crate::support::{Socket, soon};

const METHODS: [&str; 7] = [
    "FetchX509SVID",
    "FetchX509Bundles",
    "FetchJWTSVID",
    "FetchJWTBundles",
    "ValidateJWTSVID",
    "FetchWITSVID",
    "FetchWITBundles",
];

/// Calls a method with an empty request and that metadata.
async fn call(channel: &Channel, method: &str, metadata: MetadataMap) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(X509svidRequest {});
    *request.metadata_mut() = metadata;
    let path: Uri = format!("/SpiffeWorkloadAPI/{method}").parse().unwrap();
    let codec = tonic_prost::ProstCodec::<X509svidRequest, X509svidRequest>::default();
    let path = path.into_parts().path_and_query.unwrap();
    soon(grpc.server_streaming(request, path, codec)).await.map(drop)
}

fn metadata(values: &[&str]) -> MetadataMap {
    let mut map = MetadataMap::new();
    for value in values {
        map.append("workload.spiffe.io", value.parse().unwrap());
    }
    map
}

/// Covers EP-03, EP-04, EP-17, WTS-01, BG-01, BG-02, BG-04.
#[tokio::test]
async fn every_call_needs_the_header_exactly_and_once() {
    let socket = Socket::ready();
    let channel = socket.channel().await;
    let mut binary = MetadataMap::new();
    binary.insert_bin("workload.spiffe.io-bin", MetadataValue::from_bytes(b"true"));
    let mut broker = MetadataMap::new();
    broker.insert("broker.spiffe.io", MetadataValue::from_static("true"));
    let mut bad = vec![("-bin", binary), ("broker", broker)];
    for values in [
        &[][..],
        &[""],
        &["True"],
        &["TRUE"],
        &["1"],
        &["yes"],
        &["true,true"],
        &["true", "true"],
    ] {
        bad.push(("text", metadata(values)));
    }
    bad.push(("mixed", metadata(&["true", "false"])));
    for method in METHODS {
        for (kind, metadata) in &bad {
            let status = call(&channel, method, metadata.clone()).await.unwrap_err();
            assert_eq!(
                status.code(),
                Code::InvalidArgument,
                "{method} {kind} {metadata:?}"
            );
        }
    }
    assert_eq!(socket.script.asked.load(Ordering::SeqCst), 0);
    call(&channel, "FetchX509SVID", metadata(&["true"]))
        .await
        .unwrap();
    assert_eq!(socket.script.asked(), 1);
}

/// Covers EP-03, BG-02.
#[tokio::test]
async fn a_value_with_a_space_is_not_true() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    let mut headers = call_headers("/SpiffeWorkloadAPI/FetchX509SVID", None);
    headers.last_mut().unwrap().1 = b" true".to_vec();
    client.call(1, &headers, b"").await;
    // Either the header is seen as wrong, or HTTP/2 refuses such a value (RFC 9113 §8.2.1).
    let answer = client.end(1).await;
    assert!(
        answer.grpc_status() == Some("3") || answer.reset.is_some(),
        "{answer:?}"
    );
    assert_eq!(socket.script.asked(), 0);
}

/// Covers EP-04.
#[tokio::test]
async fn the_header_is_checked_before_the_body_is_read() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    let mut headers = call_headers("/SpiffeWorkloadAPI/FetchJWTSVID", None);
    headers.pop();
    client.open(1, &headers).await;
    assert_eq!(client.end(1).await.grpc_status(), Some("3"));
}

/// Covers EP-03.
#[tokio::test]
async fn no_other_spelling_of_a_path_gets_around_the_header() {
    let socket = Socket::ready();
    let mut client = RawClient::connect(&socket.path).await;
    for (index, path) in [
        "/SpiffeWorkloadAPI/FetchX509%53VID",
        "/SpiffeWorkloadAPI//FetchX509SVID",
        "//SpiffeWorkloadAPI/FetchX509SVID",
        "/SpiffeWorkloadAPI/FetchX509SVID/",
        "/SpiffeWorkloadAPI/./FetchX509SVID",
        "/SpiffeWorkloadAPI/FetchX509SVID?a=b",
        "/SpiffeWorkloadAPI/FetchX509SVID#a",
    ]
    .iter()
    .enumerate()
    {
        let mut headers = call_headers(path, None);
        headers.pop();
        let stream = 1 + 2 * index as u32;
        client.call(stream, &headers, b"").await;
        let answer = client.end(stream).await;
        assert!(
            matches!(answer.grpc_status(), Some("3" | "12")) || answer.reset.is_some(),
            "{path} {answer:?}"
        );
    }
    assert_eq!(socket.script.asked(), 0);
}

/// Covers EP-05, BG-23.
#[tokio::test]
async fn health_needs_no_header() {
    let socket = Socket::pending();
    let mut health = HealthClient::new(socket.channel().await);
    let answer = soon(health.check(HealthCheckRequest::default())).await.unwrap();
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
}

/// Covers EP-05, EP-16, BG-23.
#[tokio::test]
async fn reflection_needs_no_header_in_either_version() {
    use tonic_reflection::pb::{v1, v1alpha};

    let socket = Socket::pending();
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(socket.channel().await);
    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(list),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = format!("{:?}", soon(answers.message()).await.unwrap().unwrap());
    assert!(answer.contains("SpiffeWorkloadAPI"), "{answer}");
    assert!(!answer.contains("signet.admin"), "{answer}");

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(socket.channel().await);
    let file = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
        "SpiffeWorkloadAPI".to_owned(),
    );
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(file),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = format!("{:?}", soon(answers.message()).await.unwrap().unwrap());
    assert!(answer.contains("FileDescriptorResponse"), "{answer}");
}
