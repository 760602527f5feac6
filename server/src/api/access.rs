//! Who may call what: one table, enforced in front of every handler and walked by a test for every kind of caller.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http_body_util::Limited;
use signet_certs::tls::SharedRoots;
use signet_runtime::clock::Clock;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::listener::Peer;
use crate::agents::Agents;

/// What a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone who reached the listener over TLS, with or without a certificate.
    Anyone,
    /// An agent whose certificate is valid at this moment: unexpired, unrevoked, its authority trusted.
    Agent,
    /// As [`Access::Agent`], but an expired certificate is no obstacle: only public objects are behind it (design §4).
    AgentEvenExpired,
    /// Whoever can open the admin socket; its file mode is the check.
    AdminSocket,
}

/// Longest request of a stranger: a CSR, a token, and names. The service's own bound on a message is made for batches
/// of agents; a stranger could make the server hold that much for each of many streams.
const STRANGERS_REQUEST: usize = 64 << 10;

/// Every RPC of every listener. A path that is not here is refused.
pub const ACCESS: &[(&str, Access)] = &[
    ("/signet.agent.v1.Agent/Hello", Access::Anyone),
    ("/signet.agent.v1.Agent/AttestNode", Access::Anyone),
    ("/signet.agent.v1.Agent/IssueX509Svids", Access::Agent),
    ("/signet.agent.v1.Agent/SyncTrust", Access::AgentEvenExpired),
    ("/signet.admin.v1.Admin/Status", Access::AdminSocket),
    ("/signet.admin.v1.Admin/ShowAuthorities", Access::AdminSocket),
    ("/signet.admin.v1.Admin/RotateAuthority", Access::AdminSocket),
    ("/signet.admin.v1.Admin/ListSvids", Access::AdminSocket),
    ("/signet.admin.v1.Admin/Revoke", Access::AdminSocket),
    ("/signet.admin.v1.Admin/Allow", Access::AdminSocket),
    ("/signet.admin.v1.Admin/ListDenials", Access::AdminSocket),
    ("/signet.admin.v1.Admin/ShowCrls", Access::AdminSocket),
    ("/signet.admin.v1.Admin/ListAgents", Access::AdminSocket),
];

/// What the caller turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind<'a> {
    /// TLS without a client certificate.
    Anonymous,
    /// A verified control-plane certificate.
    Certificate {
        /// Whether its SPIFFE ID is an agent's.
        agent: bool,
        /// Whether it has passed its end.
        expired: bool,
        /// Why the certificate no longer counts apart from expiry (revoked, authority gone); `None` when it does.
        rejected: Option<&'a str>,
    },
    /// A process that opened the admin socket.
    AdminSocket,
}

/// The decision for one call.
///
/// # Errors
/// `UNIMPLEMENTED` for an unknown path, `UNAUTHENTICATED` without a usable certificate, `PERMISSION_DENIED` otherwise.
pub fn decide(path: &str, caller: CallerKind<'_>) -> Result<(), Status> {
    let Some((_, access)) = ACCESS.iter().find(|(known, _)| *known == path) else {
        return Err(Status::unimplemented("no such method on this server"));
    };
    match (access, caller) {
        (Access::AdminSocket, CallerKind::AdminSocket)
        | (Access::Anyone, CallerKind::Anonymous | CallerKind::Certificate { .. }) => Ok(()),
        (Access::Agent | Access::AgentEvenExpired, CallerKind::Anonymous) => Err(Status::unauthenticated(
            "an agent certificate is required: attest the node first",
        )),
        (
            Access::Agent | Access::AgentEvenExpired,
            CallerKind::Certificate {
                agent,
                expired,
                rejected,
            },
        ) => {
            if !agent {
                Err(Status::permission_denied("the certificate is not an agent's"))
            } else if let Some(why) = rejected {
                Err(Status::new(
                    Code::Unauthenticated,
                    format!("the agent certificate is refused: {why}"),
                ))
            } else if expired && *access == Access::Agent {
                Err(Status::unauthenticated(
                    "the agent certificate has expired: attest the node again",
                ))
            } else {
                Ok(())
            }
        }
        (Access::AdminSocket, _) => Err(Status::permission_denied("served on the admin socket only")),
        (_, CallerKind::AdminSocket) => Err(Status::permission_denied("not served on the admin socket")),
    }
}

/// Puts [`decide`] in front of every service of one listener.
#[derive(Clone, Debug)]
pub struct AccessLayer {
    /// Trust in the control plane, for the check that each call repeats; `None` on the admin socket.
    pub control: Option<Arc<SharedRoots>>,
    /// Which certificate of an agent is the newest.
    pub agents: Arc<Agents>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

impl AccessLayer {
    fn check<B>(&self, request: &http::Request<B>) -> Result<(), Status> {
        let path = request.uri().path();
        let Some(control) = &self.control else {
            return decide(path, CallerKind::AdminSocket);
        };
        let Some(svid) = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.svid.as_ref())
        else {
            return decide(path, CallerKind::Anonymous);
        };
        let now = self.clock.now();
        let expired = svid.not_after < now;
        let agent = svid.spiffe_id.is_agent();
        let mut rejected = svid
            .recheck_revocation(&control.load(), now)
            .err()
            .map(|error| error.to_string());
        if agent && rejected.is_none() && !self.agents.is_newest(&svid.spiffe_id, svid.serial) {
            rejected = Some("a newer certificate of this agent is in use".to_owned());
        }
        decide(
            path,
            CallerKind::Certificate {
                agent,
                expired,
                rejected: rejected.as_deref(),
            },
        )
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AccessService {
            inner,
            access: self.clone(),
        }
    }
}

/// See [`AccessLayer`].
#[derive(Clone, Debug)]
pub struct AccessService<S> {
    inner: S,
    access: AccessLayer,
}

impl<S> Service<http::Request<Body>> for AccessService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.access.check(&request) {
            Ok(()) => Box::pin(self.inner.call(bounded(request))),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

/// Bounds the body of a request that anyone may send.
fn bounded(request: http::Request<Body>) -> http::Request<Body> {
    let path = request.uri().path();
    if ACCESS
        .iter()
        .any(|(known, access)| *known == path && *access == Access::Anyone)
    {
        request.map(|body| Body::new(Limited::new(body, STRANGERS_REQUEST)))
    } else {
        request
    }
}

#[cfg(test)]
mod tests {
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
        let set =
            <prost_types::FileDescriptorSet as prost::Message>::decode(signet_proto::DESCRIPTORS).unwrap();
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
        let mut named: Vec<&str> = ACCESS.iter().map(|(path, _)| *path).collect();
        let mut defined = defined();
        named.sort_unstable();
        defined.sort_unstable();
        assert_eq!(named, defined);
    }

    #[test]
    fn every_rpc_lets_in_exactly_whom_its_line_says() {
        for (path, access) in ACCESS {
            let allowed: &[CallerKind<'_>] = match access {
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
            };
            let all = [
                CallerKind::Anonymous,
                AGENT,
                EXPIRED,
                REVOKED,
                EXPIRED_AND_REVOKED,
                SERVER,
                CallerKind::AdminSocket,
            ];
            for caller in all {
                assert_eq!(
                    decide(path, caller).is_ok(),
                    allowed.contains(&caller),
                    "{path} for {caller:?}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_path_is_refused_for_everyone() {
        for caller in [CallerKind::Anonymous, AGENT, CallerKind::AdminSocket] {
            assert_eq!(
                decide("/signet.admin.v1.Admin/Shutdown", caller)
                    .unwrap_err()
                    .code(),
                Code::Unimplemented
            );
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
}
