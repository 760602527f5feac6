//! What goes on while the server is killed: workers ask for certificates, revoke some of them, and change authorities.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use signet_certs::verify::{LeafInfo, inspect_leaf};
use signet_proto::admin::admin_client::AdminClient;
use signet_proto::admin::{AllowRequest, RevokeRequest, RotateAuthorityRequest, revoke_request::Target};
use signet_proto::agent::issue_result::Outcome;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::agent_client::{ClientCertificate, RawAgent, new_csr};
use crate::domain::Domain;
use crate::uds;

/// The load's agent; its pods share what one agent may have.
const NODE: &str = "node-load";
const PODS: usize = 60;
/// Workers that ask for certificates.
const ISSUING: usize = 3;
/// Between two requests of a worker: all lives together stay below what the pods may have.
const PACE: Duration = Duration::from_millis(10);
/// Authorities that a run makes at most: each Old one stays as long as what it signed.
const MOST_AUTHORITIES: usize = 8;

/// What the load needs, however often the server comes and goes.
pub(super) struct Load {
    certificate: Arc<ClientCertificate>,
    pods: Vec<String>,
    tokens: Arc<[String]>,
}

impl Load {
    pub(super) async fn of(domain: &Domain) -> Result<Self> {
        let pods: Vec<String> = (0..PODS).map(|number| format!("load-{number}")).collect();
        let tokens = pods.iter().map(|pod| domain.shop_pod(pod, NODE));
        let tokens = tokens.collect::<Result<Arc<[String]>>>()?;
        let (_, certificate) = domain.raw_agent(NODE).await?;
        Ok(Self {
            certificate: Arc::new(certificate),
            pods,
            tokens,
        })
    }

    pub(super) fn pods(&self) -> &[String] {
        &self.pods
    }

    /// Begins; it goes on until it is ended. So many authorities were seen.
    pub(super) fn begin(&self, domain: &Domain, authorities: usize, random: &mut fastrand::Rng) -> Running {
        let (found, seen) = mpsc::unbounded_channel();
        let over = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        let (to_revoke, revoking) = mpsc::unbounded_channel();
        for _ in 0..ISSUING {
            let worker = Issuing {
                address: domain.server.agents(),
                certificate: self.certificate.clone(),
                tokens: self.tokens.clone(),
                found: found.clone(),
                to_revoke: to_revoke.clone(),
                over: over.clone(),
                random: seeded(random),
            };
            workers.spawn(worker.run());
        }
        workers.spawn(revoke(
            domain.server.admin_socket(),
            revoking,
            found.clone(),
            seeded(random),
        ));
        // The first one comes soon, so that no run is without.
        let one_in = if authorities > 2 { 8 } else { 2 };
        if random.u8(0..one_in) == 0 && authorities < MOST_AUTHORITIES {
            let kind = if random.bool() { "x509" } else { "control" };
            workers.spawn(rotate(domain.server.admin_socket(), kind));
        }
        Running { seen, over, workers }
    }
}

fn seeded(random: &mut fastrand::Rng) -> fastrand::Rng {
    fastrand::Rng::with_seed(random.u64(..))
}

/// What somebody was told.
pub(super) enum Found {
    Issued(LeafInfo),
    /// Its serial and its authority's id: it is on the list that is published.
    Revoked(String, String),
    /// A denial stands for this identity.
    Denied(String, String),
    /// It is to be lifted: whether it stands nobody knows.
    Lifting(String),
    /// It was lifted.
    Allowed(String),
}

/// The load of one life.
pub(super) struct Running {
    seen: mpsc::UnboundedReceiver<Found>,
    over: Arc<AtomicBool>,
    workers: JoinSet<Result<()>>,
}

impl Running {
    /// All that was told before the server was killed.
    pub(super) async fn end(mut self) -> Result<Vec<Found>> {
        self.over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.workers.join_next().await {
            ended.context("a worker of the load")??;
        }
        let mut all = Vec::new();
        while let Ok(found) = self.seen.try_recv() {
            all.push(found);
        }
        Ok(all)
    }
}

struct Issuing {
    address: std::net::SocketAddr,
    certificate: Arc<ClientCertificate>,
    tokens: Arc<[String]>,
    found: mpsc::UnboundedSender<Found>,
    to_revoke: mpsc::UnboundedSender<LeafInfo>,
    over: Arc<AtomicBool>,
    random: fastrand::Rng,
}

impl Issuing {
    /// Whatever fails is the killed server's fault, or a bound's: the next request follows.
    async fn run(mut self) -> Result<()> {
        let mut agent = None;
        while !self.over.load(Ordering::SeqCst) {
            tokio::time::sleep(PACE).await;
            let Some(connected) = &mut agent else {
                agent = self.connect().await;
                continue;
            };
            let token = &self.tokens[self.random.usize(..self.tokens.len())];
            match connected.issue_one(new_csr()?, token).await {
                Ok(Outcome::Issued(issued)) => {
                    let leaf = inspect_leaf(issued.certificate_chain.first().context("an empty chain")?)?;
                    if self.random.u8(0..4) == 0 {
                        let _ = self.to_revoke.send(leaf.clone());
                    }
                    let _ = self.found.send(Found::Issued(leaf));
                }
                Ok(_refused) => {}
                Err(_gone) => agent = None,
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Option<RawAgent> {
        let mut agent = RawAgent::connect(self.address, Some(&self.certificate))
            .await
            .ok()?;
        agent.hello().await.ok()?;
        Some(agent)
    }
}

/// Revokes what it is handed, one after the other.
async fn revoke(
    socket: std::path::PathBuf,
    mut leaves: mpsc::UnboundedReceiver<LeafInfo>,
    found: mpsc::UnboundedSender<Found>,
    mut random: fastrand::Rng,
) -> Result<()> {
    let Ok(channel) = uds::connect(&socket).await else {
        return Ok(());
    };
    let mut admin = AdminClient::new(channel);
    while let Some(leaf) = leaves.recv().await {
        // Some deny the identity, or all below it, which is nobody more; most of these are lifted again.
        let draw = random.u8(0..6);
        let id = leaf.spiffe_id.to_string();
        let target = match draw {
            0 => Target::SpiffeId(id.clone()),
            1 => Target::Prefix(id.clone()),
            _ => Target::Serial(leaf.serial.to_string()),
        };
        let request = RevokeRequest {
            target: Some(target),
            reason: "keyCompromise".to_owned(),
            ..RevokeRequest::default()
        };
        let Ok(answer) = admin.revoke(request).await else {
            continue;
        };
        let answer = answer.into_inner();
        if answer.not_published.is_empty() {
            for svid in answer.revoked.into_iter().filter(|svid| !svid.waits) {
                let _ = found.send(Found::Revoked(svid.serial, svid.authority_id));
            }
        }
        if draw > 1 {
            continue;
        }
        let denial_id = answer.denial_id;
        let _ = found.send(Found::Denied(denial_id.clone(), id));
        if random.u8(0..4) > 0 {
            let _ = found.send(Found::Lifting(denial_id.clone()));
            let request = AllowRequest {
                denial_id: denial_id.clone(),
            };
            if admin.allow(request).await.is_ok() {
                let _ = found.send(Found::Allowed(denial_id));
            }
        }
    }
    Ok(())
}

/// A rotation from its beginning, as far as it comes.
async fn rotate(socket: std::path::PathBuf, kind: &str) -> Result<()> {
    let Ok(channel) = uds::connect(&socket).await else {
        return Ok(());
    };
    let request = RotateAuthorityRequest {
        kind: kind.to_owned(),
        ..RotateAuthorityRequest::default()
    };
    if let Ok(progress) = AdminClient::new(channel).rotate_authority(request).await {
        let mut progress = progress.into_inner();
        while let Ok(Some(_)) = progress.message().await {}
    }
    Ok(())
}
