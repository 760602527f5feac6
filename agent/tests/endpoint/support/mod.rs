//! A workload socket with a scripted source behind it, and clients for it.

pub(crate) mod raw;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use signet_agent::testing::{
    AttachError, Caller, Endpoint, GrantedSvid, Lists, Origin, PrivateKey, ServedSocket, Services, Settings,
    WorkloadSource, WorkloadState, X509Context, services,
};
use signet_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use signet_runtime::clock::{Clock, FakeClock};
use signet_testkit::{HOUR, MINUTE, now};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

/// Longest any test waits for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .expect("did not happen in time")
}

/// Gives every caller the same watch, counts who asked, refuses on demand.
pub(crate) struct Script {
    pub(crate) states: watch::Sender<WorkloadState>,
    pub(crate) refusal: Mutex<Option<AttachError>>,
    pub(crate) asked: AtomicUsize,
    pub(crate) callers: Mutex<Vec<Caller>>,
    pub(crate) panics: Mutex<bool>,
}

impl Script {
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl WorkloadSource for Script {
    fn attach<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<watch::Receiver<WorkloadState>, AttachError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.callers.lock().unwrap().push(caller.clone());
            assert!(!*self.panics.lock().unwrap(), "scripted panic");
            match self.refusal.lock().unwrap().clone() {
                Some(refusal) => Err(refusal),
                None => Ok(self.states.subscribe()),
            }
        })
    }
}

/// A clock that panics when it is told to.
#[derive(Debug)]
pub(crate) struct TestClock {
    inner: FakeClock,
    pub(crate) panics: std::sync::atomic::AtomicBool,
}

impl TestClock {
    pub(crate) fn set_offset(&self, seconds: i64) {
        self.inner.set_offset(seconds);
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        assert!(!self.panics.load(Ordering::SeqCst), "scripted panic");
        self.inner.now()
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// One served socket in a temporary directory.
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    pub(crate) script: Arc<Script>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) endpoint: Endpoint,
    pub(crate) served: Option<ServedSocket>,
    _directory: tempfile::TempDir,
}

/// How long streams wait for something to serve, so that tests end soon.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);

/// Settings that make tests end soon.
pub(crate) fn settings() -> Settings {
    Settings {
        handshake_limit: Duration::from_millis(200),
        drain_limit: Duration::from_secs(2),
        ..Settings::default()
    }
}

pub(crate) fn volume() -> Origin {
    Origin::Volume {
        volume_id: "csi-1".to_owned(),
        pod_uid: "pod-1".to_owned(),
    }
}

impl Socket {
    /// A socket whose workload is Pending.
    pub(crate) fn pending() -> Self {
        Self::with(settings(), volume(), WorkloadState::Pending { problem: None })
    }

    /// A socket whose workload has `example()`.
    pub(crate) fn ready() -> Self {
        Self::with(settings(), volume(), ready(example()))
    }

    pub(crate) fn with(settings: Settings, origin: Origin, state: WorkloadState) -> Self {
        Self::new(PATIENCE, settings, origin, state)
    }

    /// A volume's socket whose streams wait so long for something to serve.
    pub(crate) fn patient(patience: Duration, state: WorkloadState) -> Self {
        Self::new(patience, settings(), volume(), state)
    }

    pub(crate) fn new(patience: Duration, settings: Settings, origin: Origin, state: WorkloadState) -> Self {
        let directory = signet_testkit::folder();
        let path = directory.path().join("api.sock");
        let script = Arc::new(Script {
            states: watch::Sender::new(state),
            refusal: Mutex::new(None),
            asked: AtomicUsize::new(0),
            callers: Mutex::default(),
            panics: Mutex::new(false),
        });
        let clock = Arc::new(TestClock {
            inner: FakeClock::new(now()),
            panics: false.into(),
        });
        let endpoint = endpoint(&script, &clock, patience, settings);
        let listener = signet_runtime::uds::bind(&path, 0o777, None, None).unwrap();
        let served = Some(endpoint.serve(listener, origin));
        Self {
            path,
            script,
            clock,
            endpoint,
            served,
            _directory: directory,
        }
    }

    /// Publishes a state.
    pub(crate) fn say(&self, state: WorkloadState) {
        self.script.states.send_replace(state);
    }

    /// A gRPC channel of its own to the socket.
    pub(crate) async fn channel(&self) -> Channel {
        let path = self.path.clone();
        tonic::transport::Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .unwrap()
    }

    /// A Workload API client on a channel of its own.
    pub(crate) async fn client(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(self.channel().await)
    }

    /// A call on a connection of its own. When it returns, everything that was to be done before it has been done: all
    /// tasks of a test share one thread.
    pub(crate) async fn round_trip(&self) {
        let mut health = tonic_health::pb::health_client::HealthClient::new(self.channel().await);
        soon(health.check(tonic_health::pb::HealthCheckRequest::default()))
            .await
            .unwrap();
    }

    /// Waits until so many streams hold a subscription.
    pub(crate) async fn subscribed(&self, count: usize) {
        soon(async {
            while self.script.states.receiver_count() != count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

/// The socket of a volume of this pod.
pub(crate) fn serve_pod(socket: &Socket, pod_uid: &str) -> (PathBuf, ServedSocket) {
    let path = socket.path.with_file_name(format!("{pod_uid}.sock"));
    let listener = signet_runtime::uds::bind(&path, 0o777, None, None).unwrap();
    let origin = Origin::Volume {
        volume_id: format!("csi-{pod_uid}"),
        pod_uid: pod_uid.to_owned(),
    };
    let served = socket.endpoint.serve(listener, origin);
    (path, served)
}

/// The Workload API over a script, on sockets of its own.
pub(crate) fn endpoint(
    script: &Arc<Script>,
    clock: &Arc<TestClock>,
    patience: Duration,
    settings: Settings,
) -> Endpoint {
    let Services { routes, calls } = services(script.clone(), clock.clone(), patience);
    Endpoint::new(routes, calls, settings)
}

/// A request with the security header.
pub(crate) fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

pub(crate) fn ready(context: X509Context) -> WorkloadState {
    WorkloadState::Ready(Arc::new(context))
}

/// An SVID of made-up bytes, valid for an hour from a minute ago.
pub(crate) fn svid(id: &str, serial: u8) -> GrantedSvid {
    GrantedSvid {
        spiffe_id: id.to_owned(),
        chain: Bytes::from(vec![0x30, serial]),
        key: PrivateKey::from_pkcs8(Zeroizing::new(vec![0x30, 0x80, serial])),
        not_before: now() - MINUTE,
        not_after: now() + HOUR,
        hint: String::new(),
    }
}

/// Two SVIDs, one CRL, one foreign trust domain.
pub(crate) fn example() -> X509Context {
    X509Context {
        trust_domain: "example.org".to_owned(),
        svids: vec![
            svid("spiffe://example.org/ns/a/sa/b", 1),
            svid("spiffe://example.org/other", 2),
        ],
        bundle: Bytes::from_static(&[0x30, 0x10]),
        crls: Lists::new(vec![Bytes::from_static(&[0x30, 0x20])]),
        federated_bundles: BTreeMap::from([("friend.example".to_owned(), Bytes::from_static(&[0x30, 0x30]))]),
    }
}

/// The status a stream or a call ended with; it must not have ended in any other way.
pub(crate) fn ended_with<T: std::fmt::Debug>(result: Result<Option<T>, Status>, code: Code) -> String {
    let status = result.expect_err("the stream must end with a status");
    assert_eq!(status.code(), code, "{status:?}");
    status.message().to_owned()
}
