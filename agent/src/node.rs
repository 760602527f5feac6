//! The agent's own certificate: which node this is, proved by the projected token of the agent's pod.
//!
//! The key is made here and lives as long as the token does (`node/key.rs` says why). A restart goes on with the kept
//! certificate. Near half of its life the node attests again with the token as it then is, while serving goes on; a
//! failure keeps the certificate and tries again. The token is read at each use, since kubelet replaces it, and it is
//! sent only over a connection on which the server has proved its identity.

mod key;
mod state;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use signet_certs::authority::AuthorityId;
use signet_certs::csr::create_csr;
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use signet_certs::signer::LeafKey;
use signet_certs::svid::X509Svid;
use signet_certs::tls::RotatingIdentity;
use signet_certs::verify::inspect_leaf;
use signet_runtime::backoff::Backoff;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::pace::{random_unit, sleep_until_elapsed};
use signet_runtime::signal::Reread;
use tokio::sync::watch;
use zeroize::Zeroizing;

use self::key::NodeKeys;
pub(crate) use self::state::{NodeError, NodeIdentity, NodeState};
use self::token::read_token;
use crate::server_client::anchors::ControlAnchors;
use crate::server_client::objections::Objections;
use crate::server_client::received::verified;
use crate::server_client::trust::TrustState;
use crate::server_client::{AttestedNode, NodeAttestation, ServerApi, ServerError};
use crate::time::Moment;

/// Renewal near half of the remaining life; the width spreads the agents of a cluster.
const RENEWAL: (f64, f64) = (0.45, 0.10);

/// Where the authority of the certificates of all agents is being replaced, they attest anew within this time, and not all at once.
const SPREAD: Duration = Duration::from_secs(10);

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
    /// Where key and certificate are kept, root-only; `None` keeps them in memory.
    pub state_dir: Option<PathBuf>,
    /// Name of the cluster in the server's configuration.
    pub cluster: String,
    /// Whose node.
    pub trust_domain: TrustDomain,
    /// The agent's time.
    pub clock: Arc<dyn Clock>,
    /// Says when the certificate was revoked.
    pub trust: watch::Receiver<Option<Arc<TrustState>>>,
    /// What the server says against the certificate.
    pub objections: Arc<Objections>,
    /// Where the outcome goes.
    pub state: watch::Sender<NodeState>,
    /// Serial of the newest certificate, for those who connect with it.
    pub certificate: watch::Sender<Option<SerialNumber>>,
    /// Ends a wait: the token's file may be another one.
    pub reread: Reread,
    /// Waiting times between attempts.
    pub backoff: Backoff,
}

/// Why a certificate is to be replaced.
enum Renewal {
    /// Near half of its remaining life has passed.
    Due,
    /// The server does not accept it.
    Early,
    /// Its authority is being replaced, or distrusted.
    Replaced,
    /// It is on the control authority's CRL, or the server calls it revoked, which may be heard first.
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
        let mut keys = NodeKeys::open(self.state_dir.as_deref());
        if let Some(identity) = self.restored(&mut keys, &rng).await {
            tracing::info!(spiffe_id = %identity.spiffe_id, serial = %identity.serial, "the node's certificate was kept");
            self.hold(&identity);
            self.until_renewal(&identity, identity.not_before, &mut keys, &mut early)
                .await;
        }
        loop {
            match self.attest(&mut keys, &rng).await {
                Ok(identity) => {
                    self.backoff.reset();
                    tracing::info!(spiffe_id = %identity.spiffe_id, serial = %identity.serial, "node attested");
                    self.hold(&identity);
                    let from = self.clock.now();
                    self.until_renewal(&identity, from, &mut keys, &mut early).await;
                }
                Err(error) => {
                    if let NodeError::Server(ServerError::Revoked { .. }) = &error {
                        keys.forget();
                    }
                    tracing::warn!(%error, "node not attested, will retry");
                    self.state.send_modify(|state| state.problem = error.to_string());
                    let wait = self.wait_after(&error, random_unit());
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.reread.told() => {}
                    }
                }
            }
        }
    }

    /// The certificate in use from here on.
    fn hold(&mut self, identity: &NodeIdentity) {
        self.state.send_replace(NodeState {
            identity: Some(identity.clone()),
            problem: String::new(),
        });
        self.certificate.send_replace(Some(identity.serial));
    }

    /// What an earlier run kept, if it still is what the server would accept. A key whose certificate is on a held list
    /// is forgotten.
    async fn restored(&self, keys: &mut NodeKeys, rng: &SystemRandom) -> Option<NodeIdentity> {
        let token = self.read_token().await.ok()?;
        let (kept, key) = keys.certificate(&token, rng)?;
        let leaf = inspect_leaf(kept.chain.first()?).ok()?;
        if self.revoked(&leaf.authority_id, &leaf.serial) {
            tracing::warn!(serial = %leaf.serial, "the node's kept certificate is revoked");
            keys.forget();
            return None;
        }
        let judged = self.verify(&kept, key).and_then(|(svid, identity)| {
            let set = self.identity.set(&svid);
            set.map_err(|error| NodeError::Unusable(error.to_string()))?;
            Ok(identity)
        });
        match judged {
            Ok(identity) => {
                self.api.identity_changed(identity.serial);
                Some(identity)
            }
            Err(error) => {
                tracing::warn!(%error, "the node's kept certificate is not used");
                None
            }
        }
    }

    /// It is on a list that was kept, with the trust state or with the anchors.
    fn revoked(&self, authority: &AuthorityId, serial: &SerialNumber) -> bool {
        let roots = self.anchors.roots().load();
        let mut anchors = roots.authorities(&self.trust_domain).iter();
        let anchor = anchors.find(|anchor| anchor.certificate.id() == *authority);
        let lists = anchor.and_then(|anchor| anchor.crl.as_ref());
        lists.is_some_and(|crl| crl.is_revoked(serial))
            || self
                .trust
                .borrow()
                .as_ref()
                .is_some_and(|trust| trust.revoked(authority, serial))
    }

    /// Returns when the certificate is to be replaced. `from` is when the life began that is halved.
    async fn until_renewal(
        &mut self,
        identity: &NodeIdentity,
        from: SystemTime,
        keys: &mut NodeKeys,
        early: &mut Backoff,
    ) {
        match self.wait_for_renewal(identity, from, random_unit()).await {
            Renewal::Due => early.reset(),
            Renewal::Early => tokio::time::sleep(early.next(random_unit())).await,
            Renewal::Replaced => {
                let spread = SPREAD.mul_f64(random_unit());
                tokio::time::sleep(early.next(random_unit()) + spread).await;
            }
            Renewal::Revoked => {
                // Its key is not certified again, even if that means waiting for the next token.
                keys.forget();
                tokio::time::sleep(early.next(random_unit())).await;
            }
        }
        // What was said meanwhile was said against the certificate that is replaced now.
        self.objections.forget();
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
        keys.certified(attested);
        self.identity.set(&svid).map_err(|error| unusable(&error))?;
        self.api.identity_changed(identity.serial);
        Ok(identity)
    }

    /// As the server itself will verify it: chain, role, and exactly the ID of an agent of this cluster.
    fn verify(&self, attested: &AttestedNode, key: LeafKey) -> Result<(X509Svid, NodeIdentity), NodeError> {
        let unusable = |error: &dyn std::fmt::Display| NodeError::Unusable(error.to_string());
        // Named over the verified channel: a certificate may come from an authority newer than the anchors.
        let named = self.anchors.add(&attested.control_authorities, &attested.said);
        named.map_err(|error| unusable(&error))?;
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
            not_before: svid.not_before(),
            not_after: svid.not_after(),
            node_name: attested.node_name.clone(),
            node_uid: attested.node_uid.clone(),
        };
        Ok((svid, identity))
    }

    async fn wait_for_renewal(&mut self, identity: &NodeIdentity, from: SystemTime, u: f64) -> Renewal {
        let left = identity.not_after.duration_since(from).unwrap_or_default();
        let renew_on = from + left.mul_f64(RENEWAL.1.mul_add(u, RENEWAL.0));
        let renew_at = Moment::of(self.clock.as_ref()).reaches(renew_on);
        let spoken_against = self.trust.wait_for(|trust| {
            trust
                .as_ref()
                .is_some_and(|trust| trust.speaks_against(&identity.authority, &identity.serial))
        });
        let trust = tokio::select! {
            // First: the server says so too, to all agents at once.
            biased;
            () = self.anchors.refused(&identity.authority) => {
                tracing::warn!(authority = %identity.authority,
                    "the authority of the node's certificate is no control anchor any more: the node attests anew");
                return Renewal::Replaced;
            }
            () = sleep_until_elapsed(self.clock.as_ref(), renew_at) => return Renewal::Due,
            () = self.objections.heard() => {
                if self.objections.call_revoked(&identity.serial) {
                    tracing::warn!("the server calls the node's certificate revoked");
                    return Renewal::Revoked;
                }
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
        Renewal::Replaced
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
        let outcome = signet_runtime::spans::spawn_blocking(move || read_token(&path)).await;
        let outcome = outcome.unwrap_or_else(|error| Err(error.to_string()));
        outcome.map_err(|problem| NodeError::Token {
            path: self.token_file.clone(),
            problem,
        })
    }
}

#[cfg(test)]
mod tests;
