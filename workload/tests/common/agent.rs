//! An agent that says what the test wants, on a real Unix socket.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use signet_proto::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use signet_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use signet_runtime::clock::FakeClock;
use signet_runtime::uds;
use signet_testkit::now;
use signet_workload::{Code, Endpoint, Options, SpiffeId, X509Source};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// What the agent says now.
#[derive(Clone)]
pub enum Say {
    /// Nothing yet; streams wait.
    Nothing,
    /// This is the state.
    State(X509svidResponse),
    /// Streams end with this code; OK ends them cleanly.
    End(Code),
}

pub struct FakeAgent {
    pub directory: TempDir,
    pub calls: Arc<AtomicUsize>,
    say: watch::Sender<Say>,
    serving: Option<AbortHandle>,
}

impl FakeAgent {
    pub fn new(first: Say) -> Self {
        let mut agent = Self::absent(first);
        agent.appear();
        agent
    }

    /// An agent whose socket does not exist yet.
    pub fn absent(first: Say) -> Self {
        Self {
            directory: signet_testkit::folder(),
            calls: Arc::default(),
            say: watch::Sender::new(first),
            serving: None,
        }
    }

    pub fn appear(&mut self) {
        let listener = uds::bind(&self.path(), 0o600, None, None).unwrap();
        let service = Service {
            say: self.say.subscribe(),
            calls: self.calls.clone(),
        };
        let server = tonic::transport::Server::builder()
            .add_service(SpiffeWorkloadApiServer::new(service))
            .serve_with_incoming(UnixListenerStream::new(listener));
        self.serving = Some(tokio::spawn(server).abort_handle());
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    pub fn say(&self, say: Say) {
        self.say.send_replace(say);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// A source on this agent that lives at the tests' moment and calls again quickly.
    pub fn source(&self) -> X509Source {
        X509Source::start(self.options())
    }

    pub fn options(&self) -> Options {
        Options {
            clock: Arc::new(FakeClock::new(now())),
            backoff: (Duration::from_millis(1), Duration::from_millis(20)),
            ..Options::new(endpoint(&self.path()))
        }
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

pub fn endpoint(path: &Path) -> Endpoint {
    format!("unix://{}", path.display()).parse().unwrap()
}

struct Service {
    say: watch::Receiver<Say>,
    calls: Arc<AtomicUsize>,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = Boxed<X509svidResponse>;
    type FetchX509BundlesStream = Boxed<X509BundlesResponse>;
    type FetchJWTBundlesStream = Boxed<JwtBundlesResponse>;
    type FetchWITSVIDStream = Boxed<WitsvidResponse>;
    type FetchWITBundlesStream = Boxed<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let header: Vec<_> = request.metadata().get_all("workload.spiffe.io").iter().collect();
        if header != ["true"] {
            return Err(Status::invalid_argument("security header missing from request"));
        }
        let mut say = self.say.clone();
        say.mark_changed();
        let states = stream::unfold(say, |mut say| async move {
            loop {
                say.changed().await.ok()?;
                let said = say.borrow_and_update().clone();
                match said {
                    Say::Nothing => {}
                    Say::State(state) => return Some((Ok(state), say)),
                    Say::End(Code::Ok) => return None,
                    Say::End(code) => {
                        let code = tonic::Code::from_i32(code as i32);
                        return Some((Err(Status::new(code, "as the test wants")), say));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut say = self.say.clone();
        say.mark_changed();
        let states = stream::unfold(say, |mut say| async move {
            loop {
                say.changed().await.ok()?;
                let said = say.borrow_and_update().clone();
                if let Say::State(state) = said {
                    return Some((Ok(bundles_of(state)), say));
                }
            }
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn fetch_jwtsvid(&self, _: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_witsvid(
        &self,
        _: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// What the agent says of whom to trust, without who we are.
fn bundles_of(state: X509svidResponse) -> X509BundlesResponse {
    let own = state.svids.into_iter().filter_map(|entry| {
        let id: SpiffeId = entry.spiffe_id.parse().ok()?;
        Some((id.trust_domain().id().to_string(), entry.bundle))
    });
    X509BundlesResponse {
        crl: state.crl,
        bundles: own.chain(state.federated_bundles).collect(),
    }
}
