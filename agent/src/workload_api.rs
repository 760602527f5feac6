//! The SPIFFE Workload API on the agent's Unix sockets: X.509-SVIDs, bundles and revocation lists on watch streams.
//!
//! This module renders; what a workload gets is decided elsewhere and arrives through
//! [`WorkloadSource`](crate::context::WorkloadSource). The JWT and WIT profiles are not offered: their calls answer
//! Unimplemented, after the header check like all others.
//!
//! **Waiting.** While nothing can be served (before the first sync, while the server cannot be asked, after a certificate
//! has expired) a stream is held open for a bounded time ([`PATIENCE`](crate::streams::PATIENCE)), then it ends with Unavailable and says why. Held that long, a client gets its identity within milliseconds of its being
//! issued, whereas an early error costs it a back-off of up to a minute (java-spiffe); not held for ever, the reason
//! shows in the workload's log. A one-shot client with a shorter deadline sees its own DeadlineExceeded.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::Stream;

use signet_proto::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use signet_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use signet_runtime::encoded::{Encoded, WithEncoded};
use tonic::{Request, Response, Status};

use self::stream::{Render, Watcher};
use crate::sockets::Call;
use crate::streams::Following;

mod render;
mod stream;

/// Longest request message: all those of the X.509 profile are empty.
const MAX_REQUEST: usize = 4 * 1024;

/// The fully qualified name of the service; it has no package.
pub(crate) const SERVICE_NAME: &str = "SpiffeWorkloadAPI";

/// Its calls, each of which needs the security header (EP-03).
pub(crate) const CALLS: [(&str, Call); 7] = [
    ("/SpiffeWorkloadAPI/FetchX509SVID", Call::Guarded),
    ("/SpiffeWorkloadAPI/FetchX509Bundles", Call::Guarded),
    ("/SpiffeWorkloadAPI/FetchJWTSVID", Call::Guarded),
    ("/SpiffeWorkloadAPI/FetchJWTBundles", Call::Guarded),
    ("/SpiffeWorkloadAPI/ValidateJWTSVID", Call::Guarded),
    ("/SpiffeWorkloadAPI/FetchWITSVID", Call::Guarded),
    ("/SpiffeWorkloadAPI/FetchWITBundles", Call::Guarded),
];

/// The service.
pub(crate) type Service = WithEncoded<SpiffeWorkloadApiServer<WorkloadApi>>;

/// The service, for the workloads that are followed.
pub(crate) fn service(following: Following) -> Service {
    WithEncoded(
        SpiffeWorkloadApiServer::new(WorkloadApi { following }).max_decoding_message_size(MAX_REQUEST),
    )
}

/// The service behind one or many sockets. Who calls is known from the connection, never from the request.
pub(crate) struct WorkloadApi {
    following: Following,
}

/// What the generated service wants back. It says nothing: the messages are in the body that is [put in](Encoded) its place.
pub(crate) struct Nothing<M>(PhantomData<fn() -> M>);

impl<M> Stream for Nothing<M> {
    type Item = Result<M, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

impl WorkloadApi {
    /// Subscribes the caller and starts a stream of one kind of message.
    async fn watch<Q, M>(&self, request: Request<Q>, render: Render) -> Result<Response<Nothing<M>>, Status> {
        let follower = self.following.attach(request.extensions()).await?;
        let outlet = follower.outlet();
        let watcher = Watcher {
            follower,
            render,
            sent: None,
        };
        let body = outlet.body(watcher.into_messages());
        let mut response = Response::new(Nothing(PhantomData));
        response.extensions_mut().insert(Encoded::new(body));
        Ok(response)
    }
}

fn no_jwt() -> Status {
    Status::unimplemented("this agent does not offer the JWT profile")
}

fn no_wit() -> Status {
    Status::unimplemented("this agent does not offer the WIT profile")
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Nothing<X509svidResponse>;
    type FetchX509BundlesStream = Nothing<X509BundlesResponse>;
    type FetchJWTBundlesStream = Nothing<JwtBundlesResponse>;
    type FetchWITSVIDStream = Nothing<WitsvidResponse>;
    type FetchWITBundlesStream = Nothing<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.watch(request, render::svids).await
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.watch(request, render::bundles).await
    }

    async fn fetch_jwtsvid(&self, _: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        Err(no_jwt())
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(no_jwt())
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(no_jwt())
    }

    async fn fetch_witsvid(
        &self,
        _: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(no_wit())
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(no_wit())
    }
}
