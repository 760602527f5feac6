//! A simulated agent: TLS, Hello, a trust stream, and a report for every state. It reads what it must of a state to answer,
//! and believes everything.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use signet_certs::{authority::AuthorityCertificate, bundle::TrustBundle, id::TrustDomain};
use signet_proto::agent::{CrlReport, HelloRequest, TrustReport, opening};
use signet_runtime::sync::Mutex;
use signet_tests::{
    agent_client::{ClientCertificate, open_tls},
    domain::TRUST_DOMAIN,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, body::Body};

use super::state::{List, Offered, Scanner, State};
use crate::process::now;

/// Pods on each node.
const PODS: u64 = 30;
/// For all streams to be open once the nodes have attested.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many pods an agent says it has: the admin's list of agents shows by that which revocation list each has reported.
pub(super) const fn pods(newest_list: u64) -> u64 {
    PODS + newest_list
}

/// All agents together.
#[derive(Default)]
pub(super) struct Fleet {
    /// Lists of workload authorities with a higher number are the news.
    known: AtomicU64,
    /// The highest number yet.
    newest: AtomicU64,
    longest: AtomicU64,
    open: AtomicUsize,
    lost: AtomicUsize,
    reached: Mutex<Vec<Instant>>,
    /// What is made of certificates, once for all.
    ids: Mutex<HashMap<Vec<u8>, Bytes>>,
    digests: Mutex<HashMap<Vec<u8>, Bytes>>,
}

impl Fleet {
    pub(super) fn begin(&self) {
        self.reached.lock().clear();
        self.known
            .store(self.newest.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    pub(super) fn reached(&self) -> Vec<Instant> {
        self.reached.lock().clone()
    }

    pub(super) fn newest_list(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    pub(super) fn longest_list(&self) -> u64 {
        self.longest.load(Ordering::SeqCst)
    }

    /// Agents that have said what they hold.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Agents whose stream has ended.
    pub(super) fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }

    pub(super) async fn until_open(&self, agents: usize) -> Result<()> {
        let begun = now();
        while self.open() < agents {
            ensure!(
                now() - begun < PATIENCE && self.lost() == 0,
                "{} of {agents} trust streams are open, {} have ended",
                self.open(),
                self.lost()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn id(&self, certificate: &[u8]) -> Result<Bytes> {
        let mut ids = self.ids.lock();
        if let Some(id) = ids.get(certificate) {
            return Ok(id.clone());
        }
        let id = AuthorityCertificate::from_der(certificate)?.id();
        let id = Bytes::copy_from_slice(id.as_bytes());
        ids.insert(certificate.to_vec(), id.clone());
        Ok(id)
    }

    fn digest(&self, state: &State) -> Result<Bytes> {
        let bundle = || state.authorities.iter().filter(|one| !one.is_control);
        let key: Vec<u8> = bundle().flat_map(|one| one.certificate.iter().copied()).collect();
        let mut digests = self.digests.lock();
        if let Some(digest) = digests.get(&key) {
            return Ok(digest.clone());
        }
        let certificates = bundle().map(|one| AuthorityCertificate::from_der(&one.certificate));
        let bundle = TrustBundle::new(
            TrustDomain::parse(TRUST_DOMAIN)?,
            certificates.collect::<Result<_, _>>()?,
            state.sequence,
            Duration::from_secs(state.refresh_hint),
        );
        let digest = Bytes::copy_from_slice(&bundle.digest());
        digests.insert(key, digest.clone());
        Ok(digest)
    }
}

/// Opens the connection and the stream of one agent.
pub(super) async fn open(
    fleet: Arc<Fleet>,
    own: IpAddr,
    server: SocketAddr,
    certificate: &ClientCertificate,
) -> Result<()> {
    let tls = open_tls(own, server, certificate).await?;
    let (mut requests, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(tls))
        .await?;
    tokio::spawn(async move {
        // The stream says that it ended.
        let _ = connection.await;
    });
    hello(&mut requests).await?;
    let (reports, outgoing) = mpsc::channel(4);
    reports.send(message(&TrustReport::default())).await?;
    let outgoing = ReceiverStream::new(outgoing).map(|bytes| Ok::<_, Status>(Frame::data(bytes)));
    let request = request("SyncTrust", Body::new(StreamBody::new(outgoing)))?;
    let states = requests.send_request(request).await?.into_body();
    let agent = Agent {
        fleet,
        held: HashMap::new(),
        is_open: false,
        _connection: requests,
    };
    tokio::spawn(agent.follow(states, reports));
    Ok(())
}

async fn hello(requests: &mut SendRequest<Body>) -> Result<()> {
    let hello = HelloRequest {
        version: Some(opening::VERSION),
        features: opening::names(),
        ..HelloRequest::default()
    };
    let body = Full::new(message(&hello)).map_err(|never| match never {});
    let answer = requests.send_request(request("Hello", Body::new(body))?).await?;
    let answer = answer.into_body().collect().await?;
    let status = answer.trailers().and_then(|trailers| trailers.get("grpc-status"));
    ensure!(status.is_some_and(|status| status == "0"), "Hello was refused");
    Ok(())
}

fn request(method: &str, body: Body) -> Result<http::Request<Body>> {
    let uri = format!("http://signet-server/signet.agent.v1.Agent/{method}");
    Ok(http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?)
}

/// A message with its gRPC header.
fn message(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

struct Agent {
    fleet: Arc<Fleet>,
    held: HashMap<Bytes, List>,
    is_open: bool,
    _connection: SendRequest<Body>,
}

impl Agent {
    async fn follow(mut self, states: Incoming, reports: mpsc::Sender<Bytes>) {
        if let Err(error) = self.take_all(states, &reports).await {
            self.fleet.lost.fetch_add(1, Ordering::SeqCst);
            tracing::error!(%error, "a trust stream ended");
        }
    }

    async fn take_all(&mut self, mut states: Incoming, reports: &mpsc::Sender<Bytes>) -> Result<()> {
        let mut scanner = Scanner::default();
        while let Some(frame) = states.frame().await {
            let Ok(data) = frame?.into_data() else { break };
            let mut rest: &[u8] = &data;
            while let Some(state) = scanner.feed(&mut rest) {
                self.take(&state, reports).await?;
            }
        }
        bail!("the server ended it")
    }

    async fn take(&mut self, state: &State, reports: &mpsc::Sender<Bytes>) -> Result<()> {
        let mut is_news = false;
        for offered in &state.authorities {
            let id = self.fleet.id(&offered.certificate)?;
            let list = self.list(&id, offered)?;
            if !offered.is_control {
                is_news |= list.number > self.fleet.known.load(Ordering::SeqCst);
                self.fleet.newest.fetch_max(list.number, Ordering::SeqCst);
                self.fleet.longest.fetch_max(list.bytes, Ordering::SeqCst);
            }
            self.held.insert(id, list);
        }
        reports.send(self.report(state)?).await?;
        if !std::mem::replace(&mut self.is_open, true) {
            self.fleet.open.fetch_add(1, Ordering::SeqCst);
        } else if is_news {
            self.fleet.reached.lock().push(now());
        }
        Ok(())
    }

    fn list(&self, id: &Bytes, offered: &Offered) -> Result<List> {
        let held = || {
            self.held
                .get(id)
                .filter(|held| Some(held.sha256) == offered.named)
        };
        let list = offered.list.or_else(|| held().copied());
        list.context("the server named a list that it has not sent")
    }

    fn report(&self, state: &State) -> Result<Bytes> {
        let crl = |(id, list): (&Bytes, &List)| CrlReport {
            authority_id: id.clone(),
            number: list.number,
            sha256: Bytes::copy_from_slice(&list.sha256),
        };
        let bundle = state.authorities.iter().filter(|one| !one.is_control);
        let ids = bundle.filter_map(|one| self.fleet.id(&one.certificate).ok());
        let newest = ids
            .filter_map(|id| self.held.get(&id))
            .map(|list| list.number)
            .max();
        let newest = newest.unwrap_or_default();
        Ok(message(&TrustReport {
            sequence_number: state.sequence,
            bundle_digest: self.fleet.digest(state)?,
            crls: self.held.iter().map(crl).collect(),
            pod_uids: (0..pods(newest))
                .map(|pod| format!("00000000-0000-4000-8000-{pod:012}"))
                .collect(),
            ..TrustReport::default()
        }))
    }
}
