//! The agent's own certificate: which node this is, proved by the projected token of the agent's pod.
//!
//! The key is made here and lives as long as the token does (`node/key.rs` says why). The certificate stays in memory: a
//! restart attests anew. Near half of its life the node attests again with the token as it then is, while serving goes
//! on; a failure keeps the certificate and tries again. The token is read at each use, since kubelet replaces it, and it
//! is sent only over a connection on which the server has proved its identity.

mod key;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::csr::create_csr;
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use signet_certs::signer::LeafKey;
use signet_certs::svid::X509Svid;
use signet_certs::tls::RotatingIdentity;
use signet_runtime::backoff::Backoff;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::pace::{random_unit, sleep_until};
use signet_runtime::ready::ReadyGuard;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use zeroize::Zeroizing;

use self::key::NodeKeys;
use crate::server_client::anchors::ControlAnchors;
use crate::server_client::received::verified;
use crate::server_client::trust::TrustState;
use crate::server_client::{AttestedNode, NodeAttestation, ServerApi, ServerError};

/// Kubernetes' tokens have a few kilobytes; more is not read.
const MAX_TOKEN: u64 = 16 * 1024;

/// Renewal near half of the remaining life; the width spreads the agents of a cluster.
const RENEWAL: (f64, f64) = (0.45, 0.10);

/// The agent's certificate, without its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NodeIdentity {
    /// `spiffe://<td>/signet/agent/<cluster>/<node uid>`.
    pub spiffe_id: SpiffeId,
    /// Of the certificate.
    pub serial: SerialNumber,
    /// Who signed it.
    pub authority: AuthorityId,
    /// When it ends.
    pub not_after: SystemTime,
    /// Kubernetes' name of the node.
    pub node_name: String,
    /// UID of the node object.
    pub node_uid: String,
}

/// How the node stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct NodeState {
    /// The newest certificate, also when it has expired since.
    pub identity: Option<NodeIdentity>,
    /// Why the last attestation failed; empty when it did not.
    pub problem: String,
}

/// Why an attestation failed. All of it is tried again: tokens, clocks and servers change.
#[derive(Debug, Error)]
pub(crate) enum NodeError {
    /// The projected token cannot be read.
    #[error("{}: {problem}; the agent's pod needs a projected service account token there", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The server said no, or was not reached.
    #[error("the node is not attested: {0}")]
    Server(#[from] ServerError),
    /// The server's answer is not usable.
    #[error("the server's certificate for this node is not usable: {0}")]
    Unusable(String),
}

/// What the node attestor works with.
pub(crate) struct NodeAttestor {
    /// The server.
    pub api: Arc<dyn ServerApi>,
    /// Verify what the server sends, and grow by what it names.
    pub anchors: Arc<ControlAnchors>,
    /// Where the certificate goes.
    pub identity: Arc<RotatingIdentity>,
    /// The projected token.
    pub token_file: PathBuf,
    /// Where the key is kept, root-only.
    pub data_dir: PathBuf,
    /// Name of the cluster in the server's configuration.
    pub cluster: String,
    /// Whose node.
    pub trust_domain: TrustDomain,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Says when the certificate was revoked.
    pub trust: watch::Receiver<Option<Arc<TrustState>>>,
    /// Wakes the attestor when the server does not accept the certificate.
    pub attest_again: Arc<Notify>,
    /// Where the outcome goes.
    pub state: watch::Sender<NodeState>,
    /// Serial of the newest certificate, for those who connect with it.
    pub certificate: watch::Sender<Option<SerialNumber>>,
    /// Waiting times between attempts.
    pub backoff: Backoff,
    /// Dropped with the first certificate.
    pub ready: Option<ReadyGuard>,
}

/// Why a certificate is to be replaced.
enum Renewal {
    /// Near half of its remaining life has passed.
    Due,
    /// The server does not accept it, or its authority is being replaced.
    Early,
    /// It is on the control authority's CRL.
    Revoked,
}

impl NodeAttestor {
    /// Runs until draining starts.
    pub(crate) async fn run(mut self, drain: Drain) {
        tokio::select! {
            () = drain.signalled() => {}
            () = self.keep_attested() => {}
        }
    }

    async fn keep_attested(&mut self) {
        let rng = SystemRandom::new();
        // A certificate that is not accepted right after it was given is not replaced in a tight loop.
        let mut early = self.backoff.clone();
        let mut keys = NodeKeys::open(&self.data_dir);
        loop {
            match self.attest(&mut keys, &rng).await {
                Ok(identity) => {
                    self.backoff.reset();
                    self.ready = None;
                    tracing::info!(spiffe_id = %identity.spiffe_id, serial = %identity.serial, "node attested");
                    self.state.send_replace(NodeState {
                        identity: Some(identity.clone()),
                        problem: String::new(),
                    });
                    self.certificate.send_replace(Some(identity.serial));
                    match self.wait_for_renewal(&identity, random_unit()).await {
                        Renewal::Due => early.reset(),
                        Renewal::Early => tokio::time::sleep(early.next(random_unit())).await,
                        Renewal::Revoked => {
                            // Its key is not certified again, even if that means waiting for the next token.
                            keys.forget();
                            tokio::time::sleep(early.next(random_unit())).await;
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "node not attested, will retry");
                    self.state.send_modify(|state| state.problem = error.to_string());
                    tokio::time::sleep(self.wait_after(&error, random_unit())).await;
                }
            }
        }
    }

    async fn attest(&self, keys: &mut NodeKeys, rng: &SystemRandom) -> Result<NodeIdentity, NodeError> {
        let token = self.read_token().await?;
        let unusable = |error: &dyn std::fmt::Display| NodeError::Unusable(error.to_string());
        let key = keys.key_for(&token, rng).map_err(|error| unusable(&error))?;
        let csr = create_csr(&key).map_err(|error| unusable(&error))?;
        let request = NodeAttestation {
            csr,
            cluster: self.cluster.clone(),
            token,
        };
        let attested = self.api.attest_node(request).await?;
        let (svid, identity) = self.verify(&attested, key)?;
        self.identity.set(&svid).map_err(|error| unusable(&error))?;
        self.api.identity_changed();
        Ok(identity)
    }

    /// As the server itself will verify it: chain, role, and exactly the ID of an agent of this cluster.
    fn verify(&self, attested: &AttestedNode, key: LeafKey) -> Result<(X509Svid, NodeIdentity), NodeError> {
        let unusable = |error: &dyn std::fmt::Display| NodeError::Unusable(error.to_string());
        // Named over the verified channel: a certificate may come from an authority newer than the anchors.
        let named: Result<Vec<_>, _> = attested
            .control_authorities
            .iter()
            .map(|der| AuthorityCertificate::from_der(der))
            .collect();
        self.anchors.add(&named.map_err(|error| unusable(&error))?);
        let roots = self.anchors.roots().load();
        let svid = verified(
            &attested.chain,
            &attested.spiffe_id,
            key,
            &roots,
            self.clock.now(),
        )
        .map_err(|error| unusable(&error))?;
        let expected = SpiffeId::agent(&self.trust_domain, &self.cluster, &attested.node_uid);
        if expected.as_ref() != Ok(svid.spiffe_id()) {
            return Err(NodeError::Unusable(format!(
                "it names {}, which is not this node",
                svid.spiffe_id()
            )));
        }
        let identity = NodeIdentity {
            spiffe_id: svid.spiffe_id().clone(),
            serial: svid.serial(),
            authority: svid.authority_id(),
            not_after: svid.not_after(),
            node_name: attested.node_name.clone(),
            node_uid: attested.node_uid.clone(),
        };
        Ok((svid, identity))
    }

    async fn wait_for_renewal(&mut self, identity: &NodeIdentity, u: f64) -> Renewal {
        let now = self.clock.now();
        let left = identity.not_after.duration_since(now).unwrap_or_default();
        let renew_at = now + left.mul_f64(RENEWAL.1.mul_add(u, RENEWAL.0));
        let spoken_against = self.trust.wait_for(|trust| {
            trust
                .as_ref()
                .is_some_and(|trust| trust.speaks_against(&identity.authority, &identity.serial))
        });
        let trust = tokio::select! {
            () = sleep_until(self.clock.as_ref(), renew_at) => return Renewal::Due,
            () = self.attest_again.notified() => {
                tracing::warn!("the server does not accept the node's certificate");
                return Renewal::Early;
            }
            Ok(trust) = spoken_against => trust.clone(),
        };
        if trust.is_some_and(|trust| trust.revoked(&identity.authority, &identity.serial)) {
            tracing::warn!("the node's certificate is revoked");
            return Renewal::Revoked;
        }
        tracing::info!("the authority of the node's certificate is being replaced");
        Renewal::Early
    }

    fn wait_after(&mut self, error: &NodeError, u: f64) -> Duration {
        let wish = match error {
            NodeError::Server(ServerError::Unavailable { retry_after, .. }) => {
                retry_after.unwrap_or_default()
            }
            _ => Duration::ZERO,
        };
        self.backoff.next(u).max(wish)
    }

    async fn read_token(&self) -> Result<Zeroizing<String>, NodeError> {
        let path = self.token_file.clone();
        let outcome = tokio::task::spawn_blocking(move || read_token(&path)).await;
        let outcome = outcome.unwrap_or_else(|error| Err(error.to_string()));
        outcome.map_err(|problem| NodeError::Token {
            path: self.token_file.clone(),
            problem,
        })
    }
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN as usize + 1));
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_TOKEN + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_TOKEN {
        return Err(format!("the file is larger than {MAX_TOKEN} bytes"));
    }
    // In place, so that there is one copy.
    let end = text.trim_end().len();
    text.truncate(end);
    let leading = text.len() - text.trim_start().len();
    text.drain(..leading);
    if text.is_empty() {
        return Err("the file is empty".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
