//! `signet.agent.v1`: wire types in, domain types out, and back. Who may call is decided in front ([`super::access`]).

use std::{collections::HashSet, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use signet_certs::{
    authority::AuthorityId, crl::CrlNumber, id::TrustDomain, time::unix_millis, tls::SharedRoots,
    verify::VerifiedSvid,
};
use signet_proto::agent::{self as wire, agent_server, issue_item, issue_result, refusal};
use signet_runtime::{clock::Clock, drain::Drain};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataValue};
use zeroize::Zeroizing;

use super::listener::Peer;
use crate::{
    admission::RETRY_AFTER,
    agents::{Affected, Agents, Report, Session},
    attest::AgentIdentity,
    issuer::{Evidence, IssueItem, Issuer, MAX_ITEMS, NodeRequest, Outcome, Refusal, RefusalReason},
    store::{AgentRow, Store},
    trust::{PublishedAuthority, TrustSnapshot},
};

/// This server's protocol. Another major version is refused; minor versions one apart work both ways.
const VERSION: wire::ProtocolVersion = wire::ProtocolVersion { major: 1, minor: 0 };
const FEATURES: [&str; 2] = ["pod-token", "unix"];
/// A token of Kubernetes is a few kilobytes at most.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Longest texts taken from an agent.
const MAX_TEXT_BYTES: usize = 4096;
/// Pods on one node that a report may name; Kubernetes recommends at most 110.
const MAX_PODS: usize = 4096;

/// The service.
pub struct AgentService {
    /// Name of the trust domain.
    pub trust_domain: TrustDomain,
    /// Issues.
    pub issuer: Arc<Issuer>,
    /// Open trust streams.
    pub agents: Arc<Agents>,
    /// What is true now.
    pub trust: watch::Receiver<Arc<TrustSnapshot>>,
    /// For the check of a certificate that is presented with a request.
    pub control: Arc<SharedRoots>,
    /// What is known of agents.
    pub store: Arc<dyn Store>,
    /// Revision of the rules, told to agents.
    pub policy_revision: u64,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Ends streams.
    pub drain: Drain,
}

type TrustStream = Pin<Box<dyn Stream<Item = Result<wire::TrustState, Status>> + Send>>;

#[tonic::async_trait]
impl agent_server::Agent for AgentService {
    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloResponse>, Status> {
        let version = request.into_inner().version.unwrap_or_default();
        if version.major != VERSION.major {
            return Err(Status::failed_precondition(format!(
                "the agent speaks protocol {}.{}, this server {}.{}: upgrade the older of the two, the server first",
                version.major, version.minor, VERSION.major, VERSION.minor
            )));
        }
        Ok(Response::new(wire::HelloResponse {
            version: Some(VERSION),
            features: FEATURES.map(str::to_owned).to_vec(),
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
        let presented = self.presented(&request);
        let source = peer(&request).map_or_else(String::new, |peer| peer.address.to_string());
        let request = request.into_inner();
        let Some(wire::attest_node_request::Evidence::Kubernetes(token)) = request.evidence else {
            return Err(Status::invalid_argument(
                "no evidence of a kind that this server knows",
            ));
        };
        check_token(&token.token)?;
        if token.cluster.len() > MAX_TEXT_BYTES {
            return Err(Status::invalid_argument("the cluster name is too long"));
        }
        let request = NodeRequest {
            csr: request.csr,
            cluster: token.cluster,
            token: Zeroizing::new(token.token),
            source,
        };
        let certificate = self
            .issuer
            .issue_to_node(request, presented.as_deref())
            .await
            .map_err(status_of_outcome)?;
        Ok(Response::new(wire::AttestNodeResponse {
            certificate_chain: vec![certificate.leaf.into()],
            spiffe_id: certificate.spiffe_id.to_string(),
            node_name: certificate.node_name,
            node_uid: certificate.node_uid,
            control_authorities: self
                .trust
                .borrow()
                .control
                .iter()
                .map(|a| Bytes::copy_from_slice(a.certificate.der()))
                .collect(),
        }))
    }

    async fn issue_x509_svids(
        &self,
        request: Request<wire::IssueX509SvidsRequest>,
    ) -> Result<Response<wire::IssueX509SvidsResponse>, Status> {
        let agent = self.caller(&request).await?;
        let items = request.into_inner().items;
        if items.is_empty() || items.len() > MAX_ITEMS {
            return Err(Status::invalid_argument(format!(
                "a request has 1 to {MAX_ITEMS} items, this one {}",
                items.len()
            )));
        }
        let items = items.into_iter().map(item).collect::<Result<_, _>>()?;
        let outcomes = self.issuer.issue(&agent, items).await.ok_or_else(too_busy)?;
        Ok(Response::new(wire::IssueX509SvidsResponse {
            results: outcomes.into_iter().map(result).collect(),
        }))
    }

    type SyncTrustStream = TrustStream;

    async fn sync_trust(
        &self,
        request: Request<Streaming<wire::TrustReport>>,
    ) -> Result<Response<TrustStream>, Status> {
        let svid = peer(&request)
            .and_then(|peer| peer.svid.clone())
            .ok_or_else(no_certificate)?;
        let row = self.agent_row(&svid).await?;
        let session = self.agents.connect(&row.spiffe_id, &row.cluster, &row.node_name);
        let (sender, receiver) = mpsc::channel(1);
        let stream = SyncStream {
            session,
            svid,
            trust: self.trust.clone(),
            clock: self.clock.clone(),
            policy_revision: self.policy_revision,
            sender,
        };
        let drain = self.drain.clone();
        self.drain.spawn(stream.run(request.into_inner(), drain));
        // A stream never ends with OK: a watcher would take that for "nothing will ever change again".
        let end = futures_util::stream::once(async {
            Err(Status::unavailable("the trust stream ended: open another"))
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver).chain(end))))
    }
}

impl AgentService {
    /// The presented certificate, if it counts at this moment.
    fn presented<T>(&self, request: &Request<T>) -> Option<Arc<VerifiedSvid>> {
        let svid = peer(request)?.svid.clone()?;
        svid.recheck(&self.control.load(), self.clock.now())
            .is_ok()
            .then_some(svid)
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<AgentIdentity, Status> {
        let svid = peer(request)
            .and_then(|peer| peer.svid.clone())
            .ok_or_else(no_certificate)?;
        let row = self.agent_row(&svid).await?;
        Ok(AgentIdentity {
            spiffe_id: row.spiffe_id,
            cluster: row.cluster,
            node_name: row.node_name,
            node_uid: row.node_uid,
        })
    }

    /// What is recorded of the calling agent: its node is never taken from what it says.
    async fn agent_row(&self, svid: &VerifiedSvid) -> Result<AgentRow, Status> {
        self.agents
            .row(&svid.spiffe_id, self.store.as_ref())
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

fn no_certificate() -> Status {
    Status::unauthenticated("an agent certificate is required: attest the node first")
}

fn check_token(token: &str) -> Result<(), Status> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Status::invalid_argument(format!(
            "a token of more than {MAX_TOKEN_BYTES} bytes is refused"
        )));
    }
    Ok(())
}

fn item(item: wire::IssueItem) -> Result<IssueItem, Status> {
    let evidence = match item.evidence {
        Some(issue_item::Evidence::PodToken(pod)) => {
            check_token(&pod.token)?;
            Evidence::PodToken(Zeroizing::new(pod.token))
        }
        Some(issue_item::Evidence::Unix(unix)) => unix_evidence(unix)?,
        None => {
            return Err(Status::invalid_argument(
                "no evidence of a kind that this server knows",
            ));
        }
    };
    if item.spiffe_id.len() > MAX_TEXT_BYTES {
        return Err(Status::invalid_argument("the SPIFFE ID is too long"));
    }
    let spiffe_id = (!item.spiffe_id.is_empty()).then_some(item.spiffe_id);
    Ok(IssueItem {
        csr: item.csr,
        spiffe_id,
        evidence,
    })
}

fn unix_evidence(unix: wire::UnixWorkload) -> Result<Evidence, Status> {
    if unix.path.len() > MAX_TEXT_BYTES {
        return Err(Status::invalid_argument("the executable's path is too long"));
    }
    let sha256 = match unix.sha256.len() {
        0 => None,
        _ => Some(
            unix.sha256
                .as_ref()
                .try_into()
                .map_err(|_| Status::invalid_argument("a SHA-256 has 32 bytes"))?,
        ),
    };
    let path = (!unix.path.is_empty()).then_some(unix.path);
    Ok(Evidence::Unix {
        uid: unix.uid,
        gid: unix.gid,
        path,
        sha256,
    })
}

fn result(outcome: Outcome) -> wire::IssueResult {
    let outcome = match outcome {
        Outcome::Issued(issued) => issue_result::Outcome::Issued(wire::IssuedSvid {
            spiffe_id: issued.spiffe_id.to_string(),
            certificate_chain: vec![issued.leaf.into()],
            hint: issued.hint,
            identities: issued
                .identities
                .into_iter()
                .map(|(id, hint)| wire::Identity {
                    spiffe_id: id.to_string(),
                    hint,
                })
                .collect(),
            policy_revision: issued.policy_revision,
        }),
        Outcome::Refused(refusal) => issue_result::Outcome::Refusal(wire_refusal(refusal)),
        Outcome::Unavailable { message, retry_after } => {
            issue_result::Outcome::Unavailable(wire::Unavailable {
                message,
                retry_after_ms: millis(retry_after),
            })
        }
    };
    wire::IssueResult {
        outcome: Some(outcome),
    }
}

fn wire_refusal(refused: Refusal) -> wire::Refusal {
    let reason = match refused.reason {
        RefusalReason::InvalidRequest => refusal::Reason::InvalidRequest,
        RefusalReason::NotAttested => refusal::Reason::NotAttested,
        RefusalReason::NoMatch => refusal::Reason::NoMatch,
        RefusalReason::Denied => refusal::Reason::Denied,
        RefusalReason::Budget => refusal::Reason::Budget,
    };
    wire::Refusal {
        reason: reason.into(),
        message: refused.message,
        policy_revision: refused.policy_revision,
        retry_after_ms: refused.retry_after.map_or(0, millis),
    }
}

fn status_of_outcome(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Refused(refusal) => {
            let code = match refusal.reason {
                RefusalReason::InvalidRequest => Code::InvalidArgument,
                RefusalReason::Budget => Code::ResourceExhausted,
                RefusalReason::NotAttested | RefusalReason::NoMatch | RefusalReason::Denied => {
                    Code::PermissionDenied
                }
            };
            Status::new(code, refusal.message)
        }
        Outcome::Unavailable { message, retry_after } => {
            with_retry(Status::unavailable(message), retry_after)
        }
        Outcome::Issued(_) => Status::internal("an issued certificate is not an error"),
    }
}

fn too_busy() -> Status {
    with_retry(
        Status::resource_exhausted("too many certificates are being issued at the moment"),
        RETRY_AFTER,
    )
}

fn with_retry(mut status: Status, after: Duration) -> Status {
    if let Ok(value) = MetadataValue::try_from(millis(after).to_string()) {
        status.metadata_mut().insert("retry-after-ms", value);
    }
    status
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One open trust stream.
struct SyncStream {
    session: Session,
    svid: Arc<VerifiedSvid>,
    trust: watch::Receiver<Arc<TrustSnapshot>>,
    clock: Arc<dyn Clock>,
    policy_revision: u64,
    sender: mpsc::Sender<Result<wire::TrustState, Status>>,
}

/// Why a trust stream goes on or ends.
enum Next {
    /// There is something to say.
    Say(Affected),
    /// The agent is gone.
    Gone,
    /// Told to the agent as the last thing.
    End(Status),
}

impl SyncStream {
    async fn run(mut self, mut reports: Streaming<wire::TrustReport>, drain: Drain) {
        let mut affected = Affected::Nothing;
        loop {
            let snapshot = self.trust.borrow_and_update().clone();
            let next = match self.rejected(&snapshot) {
                Some(why) => Next::End(Status::unauthenticated(why)),
                None => {
                    let state = state(&snapshot, self.policy_revision, std::mem::take(&mut affected));
                    self.say(state, &snapshot, &mut reports, &drain).await
                }
            };
            match next {
                Next::Say(pods) => affected = pods,
                Next::Gone => break,
                Next::End(status) => {
                    // An agent that does not read learns it from the end of the connection.
                    let _ = self.sender.try_send(Err(status));
                    break;
                }
            }
        }
        self.session.end(self.clock.now());
    }

    /// Sends `state`, then takes reports in until there is something new.
    async fn say(
        &mut self,
        state: wire::TrustState,
        said: &TrustSnapshot,
        reports: &mut Streaming<wire::TrustReport>,
        drain: &Drain,
    ) -> Next {
        let stopping = || Next::End(Status::unavailable("the server is stopping"));
        tokio::select! {
            sent = self.sender.send(Ok(state)) => if sent.is_err() { return Next::Gone },
            () = drain.signalled() => return stopping(),
        }
        loop {
            tokio::select! {
                changed = self.trust.changed() => match changed {
                    // Revisions of the revoked set move without any list changing.
                    Ok(()) if self.trust.borrow().same_content(said) => {}
                    Ok(()) => return Next::Say(Affected::Nothing),
                    Err(_) => return stopping(),
                },
                next = self.session.next_affected() => {
                    return next.map_or_else(
                        || Next::End(Status::unavailable("a newer stream of this agent took over")),
                        Next::Say,
                    );
                }
                report = reports.message() => match report {
                    Ok(Some(report)) => self.session.report(self.report(report)),
                    Ok(None) | Err(_) => return Next::Gone,
                },
                () = drain.signalled() => return stopping(),
            }
        }
    }

    /// Expiry does not end the stream, revocation does. Judged by the very lists that are about to be sent.
    fn rejected(&self, snapshot: &TrustSnapshot) -> Option<String> {
        let mut control = snapshot.control.iter();
        let why = match control.find(|published| published.certificate.id() == self.svid.authority_id) {
            None => "its authority is no longer trusted",
            Some(published) if published.crl.is_revoked(&self.svid.serial) => "it is revoked",
            Some(_) => return None,
        };
        Some(format!("the agent certificate is refused: {why}"))
    }

    fn report(&self, report: wire::TrustReport) -> Report {
        let authority = |bytes: &[u8]| AuthorityId::try_from(bytes).ok();
        Report {
            sequence: report.sequence_number,
            crls: report
                .crls
                .iter()
                .take(64)
                .filter_map(|crl| {
                    Some((
                        authority(&crl.authority_id)?,
                        CrlNumber(crl.number),
                        crl.sha256.as_ref().try_into().ok()?,
                    ))
                })
                .collect(),
            in_use: report
                .authorities_in_use
                .iter()
                .take(64)
                .filter_map(|used| Some((authority(&used.authority_id)?, used.current_svids)))
                .collect(),
            pod_uids: report
                .pod_uids
                .into_iter()
                .filter(|uid| uid.len() <= 64)
                .take(MAX_PODS)
                .collect::<HashSet<_>>(),
            clock_skew_ms: report.clock_unix_ms.saturating_sub(unix_millis(self.clock.now())),
        }
    }
}

fn state(snapshot: &TrustSnapshot, policy_revision: u64, affected: Affected) -> wire::TrustState {
    let authorities = |all: &[PublishedAuthority]| {
        all.iter()
            .map(|authority| wire::Authority {
                certificate: Bytes::copy_from_slice(authority.certificate.der()),
                crl: authority.crl.der().clone(),
                tainted: false,
            })
            .collect()
    };
    let (affected_pod_uids, all_affected) = match affected {
        Affected::Nothing => (Vec::new(), false),
        Affected::Pods(pods) => (pods.into_iter().collect(), false),
        Affected::All => (Vec::new(), true),
    };
    wire::TrustState {
        sequence_number: snapshot.sequence,
        refresh_hint_seconds: u32::try_from(snapshot.refresh_hint.as_secs()).unwrap_or(u32::MAX),
        x509_authorities: authorities(&snapshot.x509),
        control_authorities: authorities(&snapshot.control),
        policy_revision,
        affected_pod_uids,
        all_affected,
    }
}
