//! Envoy's secret discovery service on the agent's Unix sockets: certificates and validation contexts for sidecar proxies.
//!
//! Like the Workload API this renders what is decided elsewhere; who calls is known from the connection. No security header is needed, for
//! Envoy sends none. The three calls are StreamSecrets (`api_type: GRPC`), DeltaSecrets (`DELTA_GRPC`) and FetchSecrets, which answers once.
//!
//! **What is sent.** An answer when names are asked for, and one more each time something of them has changed; never the same again
//! because a proxy refused it, for it would refuse it again. Secrets have the names they were asked by ([`names`]); validation contexts come
//! in two forms, one for each of Envoy's validators ([`node`]), with the newest list of every authority where that validator reads it.
//!
//! **What is read.** Requests are bounded, their nodes' long lists of extensions skipped, and what was read is kept by nobody: an idle
//! stream holds its names.
//!
//! The requests are read and the answers encoded here, not by the library: it would keep a buffer of the longest request for as long as a
//! stream is open, and hold each proxy's copy of all revocation lists.

mod answer;
mod delta;
mod names;
mod node;
mod observed;
mod proxy;
mod requests;
mod secret;
mod sotw;
mod stream;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

use self::delta::Delta;
pub(crate) use self::names::Names;
pub(crate) use self::observed::Observed;
use self::requests::Requests;
use self::sotw::Sotw;
use self::stream::{Conversation, Talk};
use crate::sockets::Call;
use crate::streams::Following;

/// The fully qualified name of the service.
pub(crate) const SERVICE_NAME: &str = "envoy.service.secret.v3.SecretDiscoveryService";

const STREAM: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
const DELTA: &str = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";
const FETCH: &str = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets";

/// Its calls.
pub(crate) const CALLS: [(&str, Call); 3] = [
    (STREAM, Call::Stream),
    (DELTA, Call::Stream),
    (FETCH, Call::Single),
];

/// The only type there is.
const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// How secrets are named and what they are for, and where it is seen what became of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sds {
    /// Names beside SPIFFE IDs.
    pub(crate) names: Arc<Names>,
    /// Validation contexts are for Envoy's SPIFFE validator unless a proxy says otherwise.
    pub(crate) plain: bool,
    /// What proxies made of what they were sent.
    pub(crate) observed: Arc<Observed>,
}

/// The service behind one or many sockets.
#[derive(Clone)]
pub(crate) struct Service {
    following: Following,
    sds: Sds,
}

impl Service {
    /// For the workloads that are followed.
    pub(crate) fn new(following: Following, sds: Sds) -> Self {
        Self { following, sds }
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        match head.uri.path() {
            STREAM => {
                self.talk(&head.extensions, body, Sotw::new(&self.sds), false)
                    .await
            }
            FETCH => {
                self.talk(&head.extensions, body, Sotw::new(&self.sds), true)
                    .await
            }
            DELTA => {
                self.talk(&head.extensions, body, Delta::new(&self.sds), false)
                    .await
            }
            _ => Err(Status::unimplemented("there is no such call")),
        }
    }

    async fn talk<C: Conversation>(
        &self,
        extensions: &http::Extensions,
        body: Body,
        conversation: C,
        once: bool,
    ) -> Result<Response<Body>, Status> {
        let follower = self.following.attach(extensions).await?;
        let outlet = follower.outlet();
        let talk = Talk::new(
            follower,
            Requests::new(body),
            conversation,
            self.sds.observed.clone(),
            once,
        );
        let mut response = Response::new(Body::new(outlet.body(talk.into_messages())));
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }
}

impl NamedService for Service {
    const NAME: &'static str = SERVICE_NAME;
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}
