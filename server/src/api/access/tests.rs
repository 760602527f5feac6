use signet_proto::agent::{HelloRequest, opening::VERSION};
use tonic::Code;

use super::*;

const AGENT: CallerKind<'static> = CallerKind::Certificate {
    agent: true,
    expired: false,
    rejected: None,
};
const EXPIRED: CallerKind<'static> = CallerKind::Certificate {
    agent: true,
    expired: true,
    rejected: None,
};
const REVOKED: CallerKind<'static> = CallerKind::Certificate {
    agent: true,
    expired: false,
    rejected: Some("the certificate is revoked"),
};
const EXPIRED_AND_REVOKED: CallerKind<'static> = CallerKind::Certificate {
    agent: true,
    expired: true,
    rejected: Some("the certificate is revoked"),
};
const SERVER: CallerKind<'static> = CallerKind::Certificate {
    agent: false,
    expired: false,
    rejected: None,
};

/// Every RPC that the two protocols define, from their descriptors.
fn defined() -> Vec<String> {
    let set = <prost_types::FileDescriptorSet as prost::Message>::decode(signet_proto::DESCRIPTORS).unwrap();
    let mut paths = Vec::new();
    for file in set
        .file
        .iter()
        .filter(|f| matches!(f.package(), "signet.agent.v1" | "signet.admin.v1"))
    {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    paths
}

#[test]
fn the_table_names_every_rpc_once_and_nothing_else() {
    let mut named: Vec<&str> = ACCESS.iter().map(|(path, ..)| *path).collect();
    let mut defined = defined();
    named.sort_unstable();
    defined.sort_unstable();
    assert_eq!(named, defined);
}

const EVERYONE: [CallerKind<'static>; 7] = [
    CallerKind::Anonymous,
    AGENT,
    EXPIRED,
    REVOKED,
    EXPIRED_AND_REVOKED,
    SERVER,
    CallerKind::AdminSocket,
];

/// A connection after its Hello.
fn opened() -> Opening {
    let opening = Opening::default();
    let hello = HelloRequest {
        version: Some(VERSION),
        ..HelloRequest::default()
    };
    opening.open(&hello).unwrap();
    opening
}

fn allowed(access: Access) -> &'static [CallerKind<'static>] {
    match access {
        Access::Anyone => &[
            CallerKind::Anonymous,
            AGENT,
            EXPIRED,
            REVOKED,
            EXPIRED_AND_REVOKED,
            SERVER,
        ],
        Access::Agent => &[AGENT],
        Access::AgentEvenExpired => &[AGENT, EXPIRED],
        Access::AdminSocket => &[CallerKind::AdminSocket],
    }
}

#[test]
fn every_rpc_lets_in_exactly_whom_its_line_says() {
    let opened = opened();
    for (path, access, _) in ACCESS {
        for caller in EVERYONE {
            assert_eq!(
                decide(path, caller, &opened).is_ok(),
                allowed(*access).contains(&caller),
                "{path} for {caller:?}"
            );
        }
    }
}

#[test]
fn before_hello_every_rpc_is_refused_but_hello_itself_and_the_attestation_of_a_node() {
    let unopened = Opening::default();
    let of_agents = ACCESS
        .iter()
        .filter(|(_, access, _)| *access != Access::AdminSocket);
    for (path, access, _) in of_agents {
        let without_hello = path.ends_with("/Hello") || path.ends_with("/AttestNode");
        for caller in EVERYONE {
            let decided = decide(path, caller, &unopened);
            let code = decided.as_ref().map_or_else(Status::code, |()| Code::Ok);
            let expected = match caller {
                CallerKind::AdminSocket => Code::PermissionDenied,
                _ if without_hello && allowed(*access).contains(&caller) => Code::Ok,
                _ => Code::FailedPrecondition,
            };
            assert_eq!(code, expected, "{path} for {caller:?}");
        }
    }
}

#[test]
fn an_unknown_path_is_refused_for_everyone() {
    for caller in EVERYONE {
        for opening in [Opening::default(), opened()] {
            assert_eq!(
                decide("/signet.admin.v1.Admin/Shutdown", caller, &opening)
                    .unwrap_err()
                    .code(),
                Code::Unimplemented
            );
        }
    }
}

/// Bytes that reach the service of a request of this many bytes; none when it is cut off.
async fn accepted(path: &str, bytes: usize) -> Option<usize> {
    use http_body_util::{BodyExt as _, Full};
    let body = Body::new(Full::new(bytes::Bytes::from(vec![0; bytes])));
    let request = http::Request::builder().uri(path).body(body).unwrap();
    let body = bounded(request).into_body().collect().await.ok()?;
    Some(body.to_bytes().len())
}

#[tokio::test]
async fn strangers_cannot_make_the_server_hold_a_large_request() {
    for path in [
        "/signet.agent.v1.Agent/Hello",
        "/signet.agent.v1.Agent/AttestNode",
    ] {
        assert_eq!(accepted(path, STRANGERS_REQUEST).await, Some(STRANGERS_REQUEST));
        assert_eq!(accepted(path, STRANGERS_REQUEST + 1).await, None);
    }
    let batch = 1 << 20;
    assert_eq!(
        accepted("/signet.agent.v1.Agent/IssueX509Svids", batch).await,
        Some(batch)
    );
}
