//! Streams that take what comes: half of them of the Workload API, half as sidecar proxies open them.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use signet_proto::{
    envoy::service::{
        discovery::v3::DiscoveryRequest,
        secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
    workload::{X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient},
};
use signet_tests::{uds, workload::with_header};
use tokio::{sync::mpsc, sync::watch, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

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

/// Who has a message of the round, each stream counted once: one that gets two does not stand for another that gets none.
struct Heard {
    round: AtomicUsize,
    missing: AtomicUsize,
    complete: watch::Sender<bool>,
}

impl Heard {
    /// The first round, of so many streams.
    fn by(streams: usize) -> Arc<Self> {
        Arc::new(Self {
            round: AtomicUsize::new(1),
            missing: AtomicUsize::new(streams),
            complete: watch::Sender::new(streams == 0),
        })
    }

    /// Begins another one, when the last is complete.
    fn next(&self, streams: usize) {
        self.complete.send_replace(streams == 0);
        self.missing.store(streams, Ordering::SeqCst);
        // Last: what comes before belongs to the round before.
        self.round.fetch_add(1, Ordering::SeqCst);
    }
}

/// What one stream has had.
struct Ear {
    heard: Arc<Heard>,
    round: usize,
}

impl Ear {
    fn message(&mut self) {
        let round = self.heard.round.load(Ordering::SeqCst);
        if std::mem::replace(&mut self.round, round) != round
            && self.heard.missing.fetch_sub(1, Ordering::SeqCst) == 1
        {
            self.heard.complete.send_replace(true);
        }
    }
}

impl Clients {
    /// So many streams on each socket, `sharing` of which share a connection.
    pub(super) async fn open(sockets: &[PathBuf], each: usize, sharing: usize) -> Result<Self> {
        let count = each * sockets.len();
        let heard = Heard::by(count);
        let mut tasks = JoinSet::new();
        for socket in sockets {
            let mut opened = 0;
            while opened < each {
                let channel = uds::connect(socket).await?;
                for number in opened..each.min(opened + sharing) {
                    let channel = channel.clone();
                    let ear = Ear {
                        heard: heard.clone(),
                        round: 0,
                    };
                    if number % 2 == 0 {
                        tasks.spawn(workload(channel, ear));
                    } else {
                        tasks.spawn(proxy(channel, ear));
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
            self.count - self.heard.missing.load(Ordering::SeqCst),
            self.count
        );
        Ok(())
    }

    /// From now on another message for each is what is waited for.
    pub(super) fn expect_one(&self) {
        self.heard.next(self.count);
    }

    /// Whether all that is waited for comes in time.
    pub(super) async fn all(&self) -> bool {
        let mut complete = self.heard.complete.subscribe();
        let waited = timeout(PATIENCE, complete.wait_for(|complete| *complete)).await;
        waited.is_ok_and(|waited| waited.is_ok())
    }
}

async fn workload(channel: Channel, mut ear: Ear) {
    loop {
        let mut client = SpiffeWorkloadApiClient::new(channel.clone());
        if let Ok(stream) = client.fetch_x509svid(with_header(X509svidRequest {})).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(_)) = stream.message().await {
                ear.message();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn proxy(channel: Channel, mut ear: Ear) {
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
                ear.message();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_complete_when_each_stream_has_a_message_of_it() {
        let heard = Heard::by(2);
        let ear = || Ear {
            heard: heard.clone(),
            round: 0,
        };
        let (mut one, mut other) = (ear(), ear());
        for _ in 0..2 {
            one.message();
            one.message();
            assert!(!*heard.complete.borrow());
            other.message();
            assert!(*heard.complete.borrow());
            heard.next(2);
            assert!(!*heard.complete.borrow());
        }
    }
}
