//! Who may call what: one table, enforced in front of every handler and walked by a test for every kind of caller.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http_body_util::Limited;
use signet_certs::tls::SharedRoots;
use signet_runtime::clock::Clock;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    listener::Peer,
    opening::{HELLO, Opening},
};
use crate::agents::Agents;

/// What a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
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

/// What must have happened on the connection before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing: the call opens the connection, or does without what that agrees on.
    Nothing,
    /// Hello.
    Hello,
}

/// Every RPC of every listener: who may call it, and after what. A path that is not here is refused. Agents of protocol 1.0
/// attest without Hello (ADR 0007); the client of the admin socket comes with this very binary.
pub(crate) const ACCESS: &[(&str, Access, Before)] = {
    use Access::{AdminSocket, Agent, AgentEvenExpired, Anyone};
    use Before::{Hello, Nothing};
    &[
        (HELLO, Anyone, Nothing),
        ("/signet.agent.v1.Agent/AttestNode", Anyone, Nothing),
        ("/signet.agent.v1.Agent/IssueX509Svids", Agent, Hello),
        ("/signet.agent.v1.Agent/SyncTrust", AgentEvenExpired, Hello),
        ("/signet.admin.v1.Admin/Status", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ShowAuthorities", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/RotateAuthority", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ListSvids", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/Revoke", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/Allow", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ListDenials", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ShowCrls", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ListAgents", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ShowClock", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ConfirmClock", AdminSocket, Nothing),
    ]
};

/// What the caller turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallerKind<'a> {
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

/// The decision for one call, on a connection with this opening.
///
/// # Errors
/// `UNIMPLEMENTED` for an unknown path, `FAILED_PRECONDITION` before Hello, `UNAUTHENTICATED` without a usable certificate,
/// `PERMISSION_DENIED` otherwise.
pub(crate) fn decide(path: &str, caller: CallerKind<'_>, opening: &Opening) -> Result<(), Status> {
    let Some((_, access, before)) = ACCESS.iter().find(|(known, ..)| *known == path) else {
        return Err(Status::unimplemented("no such method on this server"));
    };
    match (access, caller) {
        (Access::AdminSocket, CallerKind::AdminSocket) => {}
        (Access::AdminSocket, _) => {
            return Err(Status::permission_denied("served on the admin socket only"));
        }
        (_, CallerKind::AdminSocket) => {
            return Err(Status::permission_denied("not served on the admin socket"));
        }
        _ => {}
    }
    if *before == Before::Hello {
        opening.agreed()?;
    }
    match caller {
        CallerKind::AdminSocket => Ok(()),
        _ if *access == Access::Anyone => Ok(()),
        CallerKind::Anonymous => Err(Status::unauthenticated(
            "an agent certificate is required: attest the node first",
        )),
        CallerKind::Certificate { agent: false, .. } => {
            Err(Status::permission_denied("the certificate is not an agent's"))
        }
        CallerKind::Certificate {
            rejected: Some(why), ..
        } => Err(Status::unauthenticated(format!(
            "the agent certificate is refused: {why}"
        ))),
        CallerKind::Certificate { expired: true, .. } if *access == Access::Agent => Err(
            Status::unauthenticated("the agent certificate has expired: attest the node again"),
        ),
        CallerKind::Certificate { .. } => Ok(()),
    }
}

/// Puts [`decide`] in front of every service of one listener.
#[derive(Clone, Debug)]
pub(crate) struct AccessLayer {
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
            return decide(path, CallerKind::AdminSocket, &Opening::default());
        };
        let Some(peer) = request.extensions().get::<Peer>() else {
            return decide(path, CallerKind::Anonymous, &Opening::default());
        };
        let Some(svid) = &peer.svid else {
            return decide(path, CallerKind::Anonymous, &peer.opening);
        };
        let now = self.clock.now();
        let expired = svid.not_after() < now;
        let agent = svid.spiffe_id().is_agent();
        let mut rejected = svid
            .recheck_revocation(&control.load(), now)
            .err()
            .map(|error| error.to_string());
        if agent && rejected.is_none() && !self.agents.is_newest(svid.spiffe_id(), svid.serial()) {
            rejected = Some("a newer certificate of this agent is in use".to_owned());
        }
        decide(
            path,
            CallerKind::Certificate {
                agent,
                expired,
                rejected: rejected.as_deref(),
            },
            &peer.opening,
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
pub(crate) struct AccessService<S> {
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
        .any(|(known, access, _)| *known == path && *access == Access::Anyone)
    {
        request.map(|body| Body::new(Limited::new(body, STRANGERS_REQUEST)))
    } else {
        request
    }
}

#[cfg(test)]
mod tests;
