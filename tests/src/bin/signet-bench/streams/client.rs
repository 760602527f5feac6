//! Streams that take what comes: half of them of the Workload API, half as sidecar proxies open them.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use hyper_util::rt::TokioIo;
use signet_proto::{
    envoy::service::{
        discovery::v3::DiscoveryRequest,
        secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
    workload::{X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient},
};
use signet_tests::workload::with_header;
use tokio::{net::UnixStream, sync::mpsc, sync::watch, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// Longest that all streams take to have something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause before a stream that was told to come back is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// Open streams; they end when this is dropped.
pub(super) struct Clients {
    heard: Arc<Heard>,
    count: usize,
    _tasks: JoinSet<()>,
}

/// How many messages have come.
struct Heard {
    messages: AtomicUsize,
    wanted: AtomicUsize,
    enough: watch::Sender<bool>,
}

impl Heard {
    fn one(&self) {
        let messages = self.messages.fetch_add(1, Ordering::SeqCst) + 1;
        if messages >= self.wanted.load(Ordering::SeqCst) {
            self.enough.send_replace(true);
        }
    }
}

impl Clients {
    /// So many streams on each socket, `sharing` of which share a connection.
    pub(super) async fn open(sockets: &[PathBuf], each: usize, sharing: usize) -> Result<Self> {
        let count = each * sockets.len();
        let heard = Arc::new(Heard {
            messages: AtomicUsize::new(0),
            wanted: AtomicUsize::new(count),
            enough: watch::Sender::new(false),
        });
        let mut tasks = JoinSet::new();
        for socket in sockets {
            let mut opened = 0;
            while opened < each {
                let channel = connect(socket).await?;
                for number in opened..each.min(opened + sharing) {
                    let (channel, heard) = (channel.clone(), heard.clone());
                    if number % 2 == 0 {
                        tasks.spawn(workload(channel, heard));
                    } else {
                        tasks.spawn(proxy(channel, heard));
                    }
                }
                opened += sharing;
            }
        }
        Ok(Self {
            heard,
            count,
            _tasks: tasks,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Waits until each has its first message.
    pub(super) async fn settled(&self) -> Result<()> {
        ensure!(
            self.all().await,
            "{} of {} streams have something",
            self.heard.messages.load(Ordering::SeqCst),
            self.count
        );
        Ok(())
    }

    /// From now on one more message for each is what is waited for.
    pub(super) fn expect_one(&self) {
        self.heard.enough.send_replace(false);
        let messages = self.heard.messages.load(Ordering::SeqCst);
        self.heard.wanted.store(messages + self.count, Ordering::SeqCst);
    }

    /// Whether all that is waited for comes in time.
    pub(super) async fn all(&self) -> bool {
        let mut enough = self.heard.enough.subscribe();
        timeout(PATIENCE, enough.wait_for(|enough| *enough)).await.is_ok()
    }
}

async fn connect(socket: &Path) -> Result<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Ok(Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await?)
}

async fn workload(channel: Channel, heard: Arc<Heard>) {
    loop {
        let mut client = SpiffeWorkloadApiClient::new(channel.clone());
        if let Ok(stream) = client.fetch_x509svid(with_header(X509svidRequest {})).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(_)) = stream.message().await {
                heard.one();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn proxy(channel: Channel, heard: Arc<Heard>) {
    loop {
        let (requests, sent) = mpsc::channel(1);
        let asked = DiscoveryRequest {
            resource_names: vec!["default".to_owned(), "ROOTCA".to_owned()],
            type_url: TYPE.to_owned(),
            ..DiscoveryRequest::default()
        };
        let _ = requests.send(asked.clone()).await;
        let mut client = SecretDiscoveryServiceClient::new(channel.clone());
        if let Ok(stream) = client.stream_secrets(ReceiverStream::new(sent)).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(answer)) = stream.message().await {
                heard.one();
                let taken = DiscoveryRequest {
                    version_info: answer.version_info,
                    response_nonce: answer.nonce,
                    ..asked.clone()
                };
                let _ = requests.send(taken).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
