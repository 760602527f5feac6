//! The SPIFFE Workload API on the agent's Unix sockets: X.509-SVIDs, bundles and revocation lists on watch streams.
//!
//! This module renders; what a workload gets is decided elsewhere and arrives through
//! [`WorkloadSource`]. The JWT and WIT profiles are not offered: their calls answer
//! Unimplemented, after the header check ([`PROTECTED`]) like all others.
//!
//! **Waiting.** While nothing can be served (before the first sync, while the server cannot be asked, after a certificate
//! has expired) a stream is held open for a bounded time ([`PATIENCE`]), then it ends with Unavailable and says why. Held that long, a client gets its identity within milliseconds of its being
//! issued, whereas an early error costs it a back-off of up to a minute (java-spiffe); not held for ever, the reason
//! shows in the workload's log. A one-shot client with a shorter deadline sees its own DeadlineExceeded.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::Stream;

use signet_proto::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use signet_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use signet_runtime::clock::Clock;
use signet_runtime::encoded::{Encoded, WithEncoded};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use self::body::Watch;
use self::readings::Readings;
pub(crate) use self::readings::limit;
use self::stream::{Render, Watcher};
use crate::context::{AttachError, WorkloadSource, WorkloadState};
use crate::sockets::{Connection, Deadline, Rooms};

mod body;
mod message;
mod readings;
mod render;
mod status;
mod stream;

/// Longest request message. All requests of the X.509 profile are empty, and what probes and tools name is short.
const MAX_REQUEST: usize = 4 * 1024;

/// The fully qualified name of the service; it has no package.
const SERVICE_NAME: &str = "SpiffeWorkloadAPI";

/// How long a stream may have nothing to serve before it ends with Unavailable.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The calls that need the security header. Health and reflection are exempt, since probes and tools do not send it
/// (EP-05).
pub const PROTECTED: [&str; 7] = [
    "/SpiffeWorkloadAPI/FetchX509SVID",
    "/SpiffeWorkloadAPI/FetchX509Bundles",
    "/SpiffeWorkloadAPI/FetchJWTSVID",
    "/SpiffeWorkloadAPI/FetchJWTBundles",
    "/SpiffeWorkloadAPI/ValidateJWTSVID",
    "/SpiffeWorkloadAPI/FetchWITSVID",
    "/SpiffeWorkloadAPI/FetchWITBundles",
];

/// Everything a workload socket offers: the Workload API, gRPC health, and reflection in its two versions. `patience` is
/// `PATIENCE`, but for tests.
///
/// # Errors
/// When the descriptors built into the binary cannot be read.
pub fn routes(
    source: Arc<dyn WorkloadSource>,
    clock: Arc<dyn Clock>,
    patience: Duration,
) -> Result<Routes, tonic_reflection::server::Error> {
    let api = SpiffeWorkloadApiServer::new(WorkloadApi {
        source,
        clock,
        patience,
        readings: Arc::default(),
    })
    .max_decoding_message_size(MAX_REQUEST);
    // A new reporter says SERVING for the whole server, which is all that probes ask for.
    let (_, health) = tonic_health::server::health_reporter();
    Ok(Routes::new(WithEncoded(api))
        .add_service(health.max_decoding_message_size(MAX_REQUEST))
        .add_service(reflection().build_v1()?.max_decoding_message_size(MAX_REQUEST))
        .add_service(
            reflection()
                .build_v1alpha()?
                .max_decoding_message_size(MAX_REQUEST),
        )
        .prepare())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(signet_proto::DESCRIPTORS)
        .with_service_name(SERVICE_NAME)
}

/// The service behind one or many sockets. Who calls is known from the connection, never from the request.
struct WorkloadApi {
    source: Arc<dyn WorkloadSource>,
    clock: Arc<dyn Clock>,
    patience: Duration,
    readings: Arc<Readings>,
}

/// What the generated service wants back. It says nothing: the messages are in the body that is [put in](Encoded) its place.
struct Nothing<M>(PhantomData<fn() -> M>);

impl<M> Stream for Nothing<M> {
    type Item = Result<M, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

impl WorkloadApi {
    /// Subscribes the caller and starts a stream of one kind of message.
    async fn watch<Q, M>(&self, request: Request<Q>, render: Render) -> Result<Response<Nothing<M>>, Status> {
        let extensions = request.extensions();
        let deadline = extensions.get::<Deadline>().map(|deadline| deadline.0);
        let rooms = extensions.get::<Rooms>().cloned().unwrap_or_default();
        let connection = extensions
            .get::<Arc<Connection>>()
            .cloned()
            .ok_or_else(|| status::unavailable("internal fault of the agent: the connection is not known"))?;
        let watcher = Watcher {
            states: self.attach(&connection).await?,
            render,
            clock: self.clock.clone(),
            connection: connection.clone(),
            patience: self.patience,
            readings: self.readings.clone(),
            deadline,
            give_up: None,
            sent: None,
            rooms: rooms.clone(),
        };
        let body = Watch::new(watcher.into_messages(), connection, rooms);
        let mut response = Response::new(Nothing(PhantomData));
        response.extensions_mut().insert(Encoded::new(body));
        Ok(response)
    }

    async fn attach(&self, connection: &Connection) -> Result<watch::Receiver<WorkloadState>, Status> {
        if !connection.try_attach() {
            return Err(status::unavailable(
                "too many calls from this workload in a short time; retry later",
            ));
        }
        match timeout(self.patience, self.source.attach(connection.caller())).await {
            Ok(Ok(states)) => Ok(states),
            Ok(Err(AttachError::Refused(message))) => Err(status::refused(&message)),
            Ok(Err(AttachError::Unavailable(problem))) => Err(status::unavailable(&problem)),
            Err(_elapsed) => Err(status::unavailable("the caller could not be attested in time")),
        }
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
