//! An agent that says whatever a test wants to the server: `signet.agent.v1` over TLS with the generated stubs.

mod dial;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use signet_certs::{csr::create_csr, signer::LeafKey};
use signet_proto::agent::{
    AttestNodeRequest, AttestNodeResponse, HelloRequest, HelloResponse, IssueItem, IssueResult,
    IssueX509SvidsRequest, IssuedSvid, KubernetesNodeToken, PodToken, agent_client::AgentClient,
    attest_node_request, issue_item, issue_result::Outcome, opening,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

pub use self::dial::open_tls;
use self::dial::{dial, tls_config};
use crate::raw_grpc::RawCodec;

/// A connection of an agent, or of somebody who claims to be one.
#[derive(Clone)]
pub struct RawAgent {
    client: AgentClient<Channel>,
    channel: Channel,
    address: SocketAddr,
}

/// A client certificate with its key.
pub struct ClientCertificate {
    /// Leaf first, DER.
    pub chain: Vec<Vec<u8>>,
    /// Its key.
    pub key: LeafKey,
}

impl RawAgent {
    /// Connects, with or without a certificate, and does not say hello yet.
    ///
    /// # Errors
    /// When there is no server, or it refuses the handshake.
    pub async fn connect(address: SocketAddr, certificate: Option<&ClientCertificate>) -> Result<Self> {
        Self::connect_from(None, address, certificate).await
    }

    /// As [`connect`](Self::connect), from this address of the machine's own.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_from(
        own: Option<IpAddr>,
        address: SocketAddr,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Self> {
        let tls = Arc::new(tls_config(certificate)?);
        let connector = service_fn(move |_: Uri| {
            let tls = Arc::clone(&tls);
            async move { dial(own, address, tls).await.map(TokioIo::new) }
        });
        // The connector does TLS itself, so for tonic this is plain.
        let endpoint = Endpoint::from_static("http://signet-server");
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.with_context(|| format!("connect to {address}"))?;
        let client = AgentClient::new(channel.clone()).max_decoding_message_size(64 << 20);
        Ok(Self {
            client,
            channel,
            address,
        })
    }

    /// Connects without a certificate, attests with this token, and connects again as the agent it became.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses the token.
    pub async fn attested(
        address: SocketAddr,
        cluster: &str,
        token: &str,
    ) -> Result<(Self, ClientCertificate)> {
        let mut stranger = Self::connect(address, None).await?;
        stranger.hello().await?;
        let key = new_key()?;
        let attested = stranger.attest(create_csr(&key)?, cluster, token).await?;
        let certificate = ClientCertificate {
            chain: attested
                .certificate_chain
                .iter()
                .map(|der| der.to_vec())
                .collect(),
            key,
        };
        let mut agent = Self::connect(address, Some(&certificate)).await?;
        agent.hello().await?;
        Ok((agent, certificate))
    }

    /// The stub, for calls with anything in them.
    pub fn stub(&self) -> AgentClient<Channel> {
        self.client.clone()
    }

    /// The connection itself, for requests that no stub would send.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends these bytes as the one message of a call, and returns those of the one answer.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn exchange(&self, method: &'static str, message: Bytes) -> Result<Bytes, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        ready(&mut grpc).await?;
        let answer = grpc.unary(Request::new(message), path(method)?, RawCodec);
        Ok(answer.await?.into_inner())
    }

    /// Sends these bytes as the messages of a call that is a stream both ways.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn converse(
        &self,
        method: &'static str,
        messages: mpsc::Receiver<Bytes>,
    ) -> Result<Streaming<Bytes>, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        ready(&mut grpc).await?;
        let messages = Request::new(ReceiverStream::new(messages));
        let answers = grpc.streaming(messages, path(method)?, RawCodec);
        Ok(answers.await?.into_inner())
    }

    /// Says hello as this build does: the first call on a connection.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn hello(&mut self) -> Result<HelloResponse, Status> {
        let hello = HelloRequest {
            version: Some(opening::VERSION),
            features: opening::names(),
            software: "signet-tests".to_owned(),
            ..HelloRequest::default()
        };
        Ok(self.client.hello(hello).await?.into_inner())
    }

    /// Asks to be accepted as the agent of the node that the token names.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn attest(
        &mut self,
        csr: Vec<u8>,
        cluster: &str,
        token: &str,
    ) -> Result<AttestNodeResponse, Status> {
        let token = KubernetesNodeToken {
            cluster: cluster.to_owned(),
            token: token.to_owned(),
        };
        let evidence = Some(attest_node_request::Evidence::Kubernetes(token));
        Ok(self
            .client
            .attest_node(AttestNodeRequest {
                csr: csr.into(),
                evidence,
            })
            .await?
            .into_inner())
    }

    /// Asks for certificates; as many results as items.
    ///
    /// # Errors
    /// What the server answers to the call as a whole.
    pub async fn issue(&mut self, items: Vec<IssueItem>) -> Result<Vec<IssueResult>, Status> {
        let request = IssueX509SvidsRequest { items };
        Ok(self.client.issue_x509_svids(request).await?.into_inner().results)
    }

    /// What the server says to this caller where it does not serve him; nothing where it looks at what he asks for, and be it refused.
    pub async fn shut_out(&mut self) -> Option<Status> {
        let item = pod_item(new_csr().ok()?, "no token");
        self.issue(vec![item]).await.err()
    }

    /// Asks for one certificate on a pod's token.
    ///
    /// # Errors
    /// When the call fails as a whole.
    pub async fn issue_one(&mut self, csr: Vec<u8>, token: &str) -> Result<Outcome> {
        let results = self.issue(vec![pod_item(csr, token)]).await?;
        ensure!(results.len() == 1, "{} results for one item", results.len());
        let result = results.into_iter().next().and_then(|result| result.outcome);
        result.context("a result without an outcome")
    }

    /// Asks for one certificate with a key of its own, and expects to get it.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn issue_good(&mut self, token: &str) -> Result<IssuedSvid> {
        match self.issue_one(new_csr()?, token).await? {
            Outcome::Issued(issued) => Ok(issued),
            other => anyhow::bail!("not issued: {other:?}"),
        }
    }
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))
}

fn path(method: &'static str) -> Result<PathAndQuery, Status> {
    PathAndQuery::from_maybe_shared(format!("/signet.agent.v1.Agent/{method}"))
        .map_err(|error| Status::internal(error.to_string()))
}

/// An item that rests on a pod's token.
pub fn pod_item(csr: Vec<u8>, token: &str) -> IssueItem {
    let evidence = issue_item::Evidence::PodToken(PodToken {
        token: token.to_owned(),
        ..PodToken::default()
    });
    IssueItem {
        csr: csr.into(),
        spiffe_id: String::new(),
        evidence: Some(evidence),
    }
}

/// A fresh P-256 key.
///
/// # Errors
/// When the machine has no randomness.
pub fn new_key() -> Result<LeafKey> {
    Ok(LeafKey::generate(&SystemRandom::new())?)
}

/// An honest certificate request for a key that is thrown away.
///
/// # Errors
/// As [`new_key`].
pub fn new_csr() -> Result<Vec<u8>> {
    Ok(create_csr(&new_key()?)?)
}
