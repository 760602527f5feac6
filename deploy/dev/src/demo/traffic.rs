//! Two pods under traffic: one long connection and a stream of short ones, so that both renewal and revocation show.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use signet_runtime::sync::Mutex;
use signet_workload::{Acceptor, Connector, Endpoint, Options, PeerRule, X509Source};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

/// Pause between requests.
const PAUSE: Duration = Duration::from_millis(20);
/// One request.
const REQUEST: Duration = Duration::from_secs(5);

/// Identity of the pod behind `socket`.
pub(super) async fn source(socket: &Path) -> anyhow::Result<X509Source> {
    let endpoint: Endpoint = format!("unix://{}", socket.display()).parse()?;
    let source = X509Source::start(Options::new(endpoint));
    timeout(Duration::from_secs(20), source.ready())
        .await
        .with_context(|| format!("no identity at {} within 20 s", socket.display()))?
        .map_err(|error| anyhow::anyhow!("no identity at {}: {error}", socket.display()))?;
    Ok(source)
}

/// What has happened so far.
#[derive(Clone, Debug, Default)]
struct Seen {
    requests: u64,
    failures: Vec<String>,
    cut: Option<String>,
}

/// Running traffic; ends when dropped.
pub(super) struct Traffic {
    address: SocketAddr,
    seen: watch::Receiver<Seen>,
    ended: Arc<Mutex<bool>>,
    _tasks: JoinSet<()>,
}

impl Traffic {
    /// Backend serves, frontend calls: over one connection that stays open, and over a new one each time.
    pub(super) async fn start(frontend: &X509Source, backend: &X509Source) -> anyhow::Result<Self> {
        let (frontend_id, backend_id) = (own_id(frontend)?, own_id(backend)?);
        let acceptor = backend.acceptor(PeerRule::Exactly(frontend_id))?;
        let connector = frontend.connector(PeerRule::Exactly(backend_id))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = watch::Sender::new(Seen::default());
        let receiver = seen.subscribe();
        let ended = Arc::new(Mutex::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, seen.clone()));
        tasks.spawn(long_connection(
            address,
            connector.clone(),
            seen.clone(),
            ended.clone(),
        ));
        tasks.spawn(short_connections(address, connector, seen, ended.clone()));
        Ok(Self {
            address,
            seen: receiver,
            ended,
            _tasks: tasks,
        })
    }

    /// Waits for `count` more answers.
    pub(super) async fn more(&self, count: u64, patience: Duration) -> anyhow::Result<()> {
        let mut seen = self.seen.clone();
        let goal = seen.borrow_and_update().requests + count;
        let reached = seen.wait_for(|seen| seen.requests >= goal || !seen.failures.is_empty());
        let seen = timeout(patience, reached)
            .await
            .context("traffic stands still")??
            .clone();
        match seen.failures.first() {
            Some(failure) => bail!("a request failed: {failure}"),
            None => Ok(()),
        }
    }

    pub(super) fn requests(&self) -> u64 {
        self.seen.borrow().requests
    }

    pub(super) fn failures(&self) -> Vec<String> {
        self.seen.borrow().failures.clone()
    }

    /// Waits until the backend has cut a connection of its own accord; from here on failures are what is wanted.
    pub(super) async fn cut(&self, patience: Duration) -> anyhow::Result<String> {
        *self.ended.lock() = true;
        let mut seen = self.seen.clone();
        let cut = seen.wait_for(|seen| seen.cut.is_some());
        let seen = timeout(patience, cut)
            .await
            .context("the connection was not cut")??;
        seen.cut.clone().context("no reason")
    }

    /// Connects once more with the revoked identity; the backend must refuse.
    pub(super) async fn refused(&self, frontend: &X509Source) -> anyhow::Result<String> {
        let connector = frontend.connector(PeerRule::Any)?;
        match request(self.address, &connector).await {
            Ok(()) => bail!("the revoked identity was still served"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }
}

fn own_id(source: &X509Source) -> anyhow::Result<signet_workload::SpiffeId> {
    let context = source.context().context("the source has no SVID")?;
    Ok(context
        .default_svid()
        .context("the source has no SVID")?
        .spiffe_id()
        .clone())
}

/// The backend: repeats lines while the caller is trusted.
async fn serve(listener: TcpListener, acceptor: Acceptor, seen: watch::Sender<Seen>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        tokio::spawn(async move {
            // Who is refused in the handshake learns it there.
            let Ok((stream, peer)) = acceptor.accept(stream).await else {
                return;
            };
            let (reader, mut writer) = tokio::io::split(stream);
            let mut lines = BufReader::new(reader).lines();
            let talk = async {
                while let Ok(Some(line)) = lines.next_line().await {
                    if writer.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                        return;
                    }
                }
            };
            if let Err(reason) = peer.while_trusted(talk).await {
                seen.send_modify(|seen| seen.cut = Some(reason.to_string()));
            }
        });
    }
}

async fn long_connection(
    address: SocketAddr,
    connector: Connector,
    seen: watch::Sender<Seen>,
    ended: Arc<Mutex<bool>>,
) {
    let talk = async {
        // Certificates live for seconds here and a careful peer ends a connection with them: connect anew, like a pool.
        loop {
            let (stream, _) = connector.connect(TcpStream::connect(address).await?).await?;
            let (reader, mut writer) = tokio::io::split(stream);
            let mut lines = BufReader::new(reader).lines();
            for _ in 0..100 {
                writer.write_all(b"ping\n").await?;
                let line = timeout(REQUEST, lines.next_line()).await??;
                anyhow::ensure!(line.as_deref() == Some("ping"), "the connection ended");
                seen.send_modify(|seen| seen.requests += 1);
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let result: anyhow::Result<()> = talk.await;
    if let Err(error) = result {
        note(&seen, &ended, &error);
    }
}

async fn short_connections(
    address: SocketAddr,
    connector: Connector,
    seen: watch::Sender<Seen>,
    ended: Arc<Mutex<bool>>,
) {
    loop {
        match request(address, &connector).await {
            Ok(()) => seen.send_modify(|seen| seen.requests += 1),
            Err(error) => {
                note(&seen, &ended, &error);
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A failure counts only before the identity was revoked.
fn note(seen: &watch::Sender<Seen>, ended: &Mutex<bool>, error: &anyhow::Error) {
    if !*ended.lock() {
        seen.send_modify(|seen| seen.failures.push(format!("{error:#}")));
    }
}

async fn request(address: SocketAddr, connector: &Connector) -> anyhow::Result<()> {
    let (mut stream, _) = connector.connect(TcpStream::connect(address).await?).await?;
    stream.write_all(b"ping\n").await?;
    let mut answer = [0; 5];
    timeout(REQUEST, stream.read_exact(&mut answer)).await??;
    anyhow::ensure!(&answer == b"ping\n", "a wrong answer");
    stream.shutdown().await?;
    Ok(())
}
