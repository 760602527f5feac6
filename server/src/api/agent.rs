//! `signet.agent.v1`: wire types in, domain types out, and back. Who may call is decided in front ([`super::access`]).

mod attests;
mod convert;
mod evidence;
mod frames;
mod sync;

use std::{collections::HashMap, pin::Pin, sync::Arc};

use futures_util::Stream;
use signet_certs::{id::TrustDomain, time::unix_millis, tls::SharedRoots, verify::VerifiedSvid};
use signet_proto::agent::{self as wire, agent_server, objection, opening::Feature};
use signet_runtime::{
    bucket::Bucket,
    drain::Drain,
    encoded::{Encoded, WithEncoded},
    limits::Limit,
    ready::Readiness,
    refusals::Refusals,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use self::{
    convert::{Faulty, MAX_TEXT_BYTES, check_token, faulty_result, item, result, status_of, too_busy},
    evidence::Evidence,
    frames::States,
    sync::{Pace, SyncStream},
};
use super::{access::Guest, listener::Peer, opening::Opening, retry::later};
use crate::{
    agents::{AgentNode, Agents},
    attest::{AgentIdentity, Outages},
    clock::TrustedClock,
    issuer::{CallRefused, CallingAgent, Issuer, MAX_ITEMS, NodeRequest},
    put_back::PutBack,
    rules::RuleSet,
    store::Standing,
    trust::TrustSnapshot,
};

pub(crate) use self::{attests::Attests, frames::Renderings, sync::pace};

/// Why calls are refused, as the [`Refusals`] of the agents' door count it.
pub(crate) const REASONS: &[&str] = &[attests::ATTESTATIONS, ITEMS, FRUITLESS];
const ITEMS: &str = "items";
const FRUITLESS: &str = "fruitless_csrs";

/// Rows of the table of limits.
pub(crate) fn limits() -> [Limit; 2] {
    attests::limits()
}

/// The service.
pub(crate) struct AgentService {
    /// Name of the trust domain.
    pub trust_domain: TrustDomain,
    /// Issues.
    pub issuer: Arc<Issuer>,
    /// What attestations cost.
    pub attests: Attests,
    /// Where what is refused to agents is counted.
    pub refusals: Refusals,
    /// Open trust streams.
    pub agents: Arc<Agents>,
    /// What is true now.
    pub trust: watch::Receiver<Arc<TrustSnapshot>>,
    /// Judges the lists that agents report.
    pub put_back: Arc<PutBack>,
    /// For the check of a certificate that is presented with a request.
    pub control: Arc<SharedRoots>,
    /// The rules in force, whose revision agents are told.
    pub rules: watch::Receiver<Arc<RuleSet>>,
    /// What is told to all of them, encoded.
    pub renderings: Arc<Renderings>,
    /// How many are told something at once.
    pub pace: Pace,
    /// Of the store, told to agents.
    pub epoch: u64,
    /// The server's time.
    pub clock: Arc<TrustedClock>,
    /// The clusters that cannot be reached.
    pub outages: watch::Receiver<Outages>,
    /// Whether the server issues, told to agents.
    pub readiness: Readiness,
    /// Ends streams.
    pub drain: Drain,
}

/// Longest request: a report with the largest list that was asked for; 256 CSRs and tokens at their usual size are well below.
const MAX_REQUEST_BYTES: usize = 4 << 20;

impl AgentService {
    /// As a gRPC service, with its bounds.
    #[must_use]
    pub(crate) fn into_grpc(self) -> WithEncoded<agent_server::AgentServer<Self>> {
        WithEncoded(agent_server::AgentServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES))
    }
}

type TrustStream = Pin<Box<dyn Stream<Item = Result<wire::TrustState, Status>> + Send>>;

#[tonic::async_trait]
impl agent_server::Agent for AgentService {
    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloResponse>, Status> {
        let opening = opening(&request);
        let agreed = opening.open(request.get_ref())?;
        Ok(Response::new(wire::HelloResponse {
            version: Some(agreed.version()),
            features: agreed.names(),
            software: concat!("signet-server ", env!("CARGO_PKG_VERSION")).to_owned(),
            clock_unix_ms: unix_millis(self.clock.now()),
            trust_domain: self.trust_domain.as_str().to_owned(),
            cluster_uid: String::new(),
        }))
    }

    async fn attest_node(
        &self,
        request: Request<wire::AttestNodeRequest>,
    ) -> Result<Response<wire::AttestNodeResponse>, Status> {
        let Some(peer) = peer(&request).cloned() else {
            return Err(Status::internal("the connection of this call is not known"));
        };
        timeout(attests::LONGEST, self.attest(&peer, request))
            .await
            .unwrap_or_else(|_| Err(attests::too_late()))
    }

    async fn issue_x509_svids(
        &self,
        request: Request<wire::IssueX509SvidsRequest>,
    ) -> Result<Response<wire::IssueX509SvidsResponse>, Status> {
        let (agent, certificate) = self.caller(&request).await?;
        let opening = opening(&request);
        let agreed = opening.agreed()?;
        let items = request.into_inner().items;
        if items.is_empty() || items.len() > MAX_ITEMS {
            return Err(Status::invalid_argument(format!(
                "a request has 1 to {MAX_ITEMS} items, this one {}",
                items.len()
            )));
        }
        // An item that is refused for its form fails alone, or an agent with one kind of evidence that is too new here would lose
        // all its pods.
        let items: Vec<_> = items.into_iter().map(|asked| item(asked, agreed)).collect();
        let faults: Vec<_> = items.iter().map(|item| item.as_ref().err().copied()).collect();
        let sound = items.into_iter().filter_map(Result::ok).collect();
        let answered = self.issuer.issue(&agent, sound).await;
        let answered = answered.map_err(|refused| self.not_served(refused, &certificate))?;
        let revision = answered.policy_revision;
        let mut outcomes = answered.outcomes.into_iter();
        let mut next = || outcomes.next().map(|outcome| result(outcome, revision));
        let answer = |faulty: Option<Faulty>| match faulty {
            Some(faulty) => faulty_result(faulty, revision),
            None => next().unwrap_or_default(),
        };
        Ok(Response::new(wire::IssueX509SvidsResponse {
            results: faults.into_iter().map(answer).collect(),
        }))
    }

    type SyncTrustStream = TrustStream;

    async fn sync_trust(
        &self,
        request: Request<Streaming<wire::TrustReport>>,
    ) -> Result<Response<TrustStream>, Status> {
        let peer = peer(&request).ok_or_else(no_certificate)?;
        let (svid, key_exchange) = (peer.svid.clone().ok_or_else(no_certificate)?, peer.key_exchange);
        let opening = opening(&request);
        let agreed = opening.agreed()?;
        let more = agreed.version().minor > 0;
        let by_digest = agreed.has(Feature::CrlDigest);
        let epoch = more.then_some(self.epoch);
        let is_guest = request.extensions().get::<Guest>().is_some();
        let session = if is_guest {
            self.agents.connect_guest(svid.spiffe_id()).ok_or_else(too_busy)?
        } else {
            self.agents.connect(&self.node(&svid).await?).over(key_exchange)
        };
        let (sender, receiver) = mpsc::channel(1);
        let stream = SyncStream {
            session,
            evidence: Evidence::new(&self.put_back, svid.spiffe_id().clone(), more, is_guest),
            svid,
            trust: self.trust.clone(),
            clock: self.clock.clone(),
            outages: self.outages.clone(),
            readiness: self.readiness.clone(),
            rules: self.rules.clone(),
            renderings: self.renderings.clone(),
            pace: self.pace.clone(),
            held: by_digest.then(HashMap::new),
            epoch,
            sender,
            reasons: Bucket::full(sync::OTHER_REASONS, tokio::time::Instant::now()),
            reports_from: tokio::time::Instant::now(),
            objected_to: None,
        };
        let drain = self.drain.clone();
        self.drain.spawn(stream.run(request.into_inner(), drain));
        // A stream never ends with OK: a watcher would take that for "nothing will ever change again".
        let end = Status::unavailable("the trust stream ended: open another");
        Ok(encoded(States::new(receiver, end)))
    }

    type GetTrustStream = TrustStream;

    async fn get_trust(&self, _: Request<wire::GetTrustRequest>) -> Result<Response<TrustStream>, Status> {
        let snapshot = self.trust.borrow().clone();
        let own = wire::TrustState {
            epoch: self.epoch,
            clock_unix_ms: unix_millis(self.clock.now()),
            ..wire::TrustState::default()
        };
        let state = self.renderings.of(&snapshot).message(&own, |_, _| false);
        Ok(encoded(States::once(state)))
    }
}

/// An answer whose messages are encoded already.
fn encoded(states: States) -> Response<TrustStream> {
    let mut response: Response<TrustStream> = Response::new(Box::pin(futures_util::stream::pending()));
    response.extensions_mut().insert(Encoded::new(states));
    response
}

impl AgentService {
    /// What is asked for by whom the connection proves, after it has been paid for.
    async fn attest(
        &self,
        peer: &Peer,
        request: Request<wire::AttestNodeRequest>,
    ) -> Result<Response<wire::AttestNodeResponse>, Status> {
        self.attests.admit(&peer.line, &request.get_ref().csr).await?;
        let presented = self.presented(&request).await;
        let request = request.into_inner();
        let Some(wire::attest_node_request::Evidence::Kubernetes(token)) = request.evidence else {
            return Err(Faulty::UnknownEvidence.into());
        };
        check_token(&token.token)?;
        if token.cluster.len() > MAX_TEXT_BYTES {
            return Err(Status::invalid_argument("the cluster name is too long"));
        }
        let request = NodeRequest {
            csr: request.csr,
            cluster: token.cluster,
            token: Zeroizing::new(token.token),
            source: peer.address.ip(),
        };
        let certificate = self
            .issuer
            .issue_to_node(request, presented.as_deref())
            .await
            .map_err(status_of)?;
        Ok(Response::new(wire::AttestNodeResponse {
            certificate_chain: convert::chain(certificate.chain),
            spiffe_id: certificate.spiffe_id.to_string(),
            node_name: certificate.node_name,
            node_uid: certificate.node_uid,
            control_authorities: convert::anchors(&self.trust.borrow()),
        }))
    }

    /// The presented certificate, if it counts at this moment: nobody renews by one that has a successor in use.
    async fn presented<T>(&self, request: &Request<T>) -> Option<Arc<VerifiedSvid>> {
        let svid = peer(request)?.svid.clone()?;
        let time = self.clock.time();
        svid.recheck(&self.control.load(), time.now).ok()?;
        let presented = self.agents.present(&svid, time.now, time.earliest).await.ok()?;
        (presented.standing == Standing::Counts).then_some(svid)
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<(CallingAgent, Arc<VerifiedSvid>), Status> {
        let presented = peer(request).and_then(|peer| peer.svid.clone());
        let svid = presented.ok_or_else(no_certificate)?;
        let node = self.node(&svid).await?;
        let identity = AgentIdentity {
            spiffe_id: node.spiffe_id,
            cluster: node.cluster,
            node_name: node.node_name,
            node_uid: node.node_uid,
        };
        Ok((CallingAgent::new(identity, svid.serial()), svid))
    }

    fn not_served(&self, refused: CallRefused, certificate: &VerifiedSvid) -> Status {
        let caller = certificate.spiffe_id();
        match refused {
            CallRefused::TooBusy => {
                self.refusals.count(ITEMS, caller);
                too_busy()
            }
            CallRefused::Fruitless(wait) => {
                self.refusals.count(FRUITLESS, caller);
                later("too much of what this agent asks for comes to nothing", wait)
            }
            // The agent has a newer certificate already: by that it asks again, and attests no other.
            CallRefused::Certificate(lost @ Standing::Superseded) => Status::unavailable(lost.to_string()),
            CallRefused::Certificate(lost) => {
                let status = Status::unauthenticated(format!("the agent certificate is refused: {lost}"));
                match lost {
                    Standing::Revoked => objection::revoked(status, &certificate.serial().to_string()),
                    _ => status,
                }
            }
        }
    }

    /// What is recorded of the calling agent: its node is never taken from what it says.
    async fn node(&self, svid: &VerifiedSvid) -> Result<AgentNode, Status> {
        self.agents
            .node(svid.spiffe_id())
            .await
            .map_err(|error| {
                tracing::error!(%error, "agents could not be read from the store");
                Status::unavailable("the server cannot read its store at the moment")
            })?
            .ok_or_else(|| Status::unauthenticated("this server knows no such agent: attest the node again"))
    }
}

fn peer<T>(request: &Request<T>) -> Option<&Peer> {
    request.extensions().get::<Peer>()
}

/// What Hello has agreed on, on the connection of this request.
fn opening<T>(request: &Request<T>) -> Opening {
    peer(request).map_or_else(Opening::default, |peer| peer.opening.clone())
}

fn no_certificate() -> Status {
    Status::unauthenticated("an agent certificate is required: attest the node first")
}
