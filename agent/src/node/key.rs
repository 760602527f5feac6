//! The agent's private key with the certificate it has, in one file. The server takes a node token with one key only, so
//! the key lives as long as the token: the same for a retry whose answer was lost, for an early renewal, and after a
//! restart of the agent's container, which finds the same token; a new one with each new token. The certificate lies
//! beside it, so that a restart asks for nothing.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use signet_certs::signer::{KeyError, LeafKey};
use signet_certs::verify::inspect_leaf;
use zeroize::Zeroizing;

use crate::kept::{self, SvidHex, SvidText};
use crate::server_client::AttestedNode;
use crate::server_client::trust::Said;
use crate::token::pod_of;

/// Name of the file in the folder for the agent's state.
const FILE: &str = "node.json";

/// What the file has beside key, chain and names, at most.
const ENVELOPE: usize = 512;

/// The file.
#[derive(Deserialize, Serialize)]
struct Kept<'a> {
    /// Of the token that the key goes with.
    token_sha256: &'a str,
    /// UID of the pod that the token is bound to.
    #[serde(default)]
    pod_uid: String,
    #[serde(borrow)]
    svid: SvidText<'a>,
    #[serde(default)]
    node_name: String,
    #[serde(default)]
    node_uid: String,
}

/// See the module's documentation.
pub(super) struct NodeKeys {
    /// `None` keeps everything in memory.
    path: Option<PathBuf>,
    held: Option<Held>,
}

struct Held {
    token_sha256: String,
    pod_uid: String,
    pkcs8: Zeroizing<Vec<u8>>,
    /// With the server's names; not verified yet.
    certificate: Option<AttestedNode>,
}

impl NodeKeys {
    /// Takes over what an earlier run kept in this folder; a missing or damaged file is no obstacle.
    pub(super) fn open(state_dir: Option<&Path>) -> Self {
        let path = state_dir.map(|dir| dir.join(FILE));
        let held = path.as_deref().and_then(read);
        Self { path, held }
    }

    /// The key that goes with this token. It is in its file before it is used: the server may remember it from then on.
    pub(super) fn key_for(&mut self, token: &str, rng: &SystemRandom) -> Result<LeafKey, KeyError> {
        let token_sha256 = hex::encode(digest(&SHA256, token.as_bytes()));
        if let Some(held) = self
            .held
            .as_ref()
            .filter(|held| held.token_sha256 == token_sha256)
            && let Ok(key) = LeafKey::from_pkcs8(held.pkcs8.clone(), rng)
        {
            return Ok(key);
        }
        let key = LeafKey::generate(rng)?;
        self.held = Some(Held {
            token_sha256,
            pod_uid: pod_of(token),
            pkcs8: Zeroizing::new(key.pkcs8_der().to_vec()),
            certificate: None,
        });
        // Where it cannot be kept it works all the same, but a restart has to wait for the next token.
        self.write();
        Ok(key)
    }

    /// Keeps the certificate that the present key has got, before it is used.
    pub(super) fn certified(&mut self, certificate: AttestedNode) {
        if let Some(held) = &mut self.held {
            held.certificate = Some(certificate);
            self.write();
        }
    }

    /// The certificate that an earlier run kept, and its key, if that run was of the pod to which this token is bound. The
    /// server counts agents by their pods: another one attests for itself.
    pub(super) fn certificate(&self, token: &str, rng: &SystemRandom) -> Option<(AttestedNode, LeafKey)> {
        let held = self.held.as_ref().filter(|held| held.pod_uid == pod_of(token))?;
        let key = LeafKey::from_pkcs8(held.pkcs8.clone(), rng).ok()?;
        Some((held.certificate.clone()?, key))
    }

    /// The key is not to be certified again.
    pub(super) fn forget(&mut self) {
        self.held = None;
        if let Some(path) = &self.path {
            kept::remove(path);
        }
    }

    fn write(&self) {
        let (Some(path), Some(held)) = (&self.path, &self.held) else {
            return;
        };
        let certificate = held.certificate.as_ref();
        let chain = certificate
            .map(|certificate| certificate.chain.concat())
            .unwrap_or_default();
        let name = |of: fn(&AttestedNode) -> &String| certificate.map(of).cloned().unwrap_or_default();
        let svid = SvidHex::new(&chain, &held.pkcs8);
        let kept = Kept {
            token_sha256: &held.token_sha256,
            pod_uid: held.pod_uid.clone(),
            svid: svid.text(),
            node_name: name(|certificate| &certificate.node_name),
            node_uid: name(|certificate| &certificate.node_uid),
        };
        // A name may be escaped.
        let names = kept.node_name.len() + kept.node_uid.len() + kept.pod_uid.len();
        let size = svid.size() + 6 * names + ENVELOPE;
        if let Err(error) = kept::write(path, &kept, size) {
            tracing::warn!(%error, "cannot keep the node's key");
        }
    }
}

fn read(path: &Path) -> Option<Held> {
    let bytes = kept::read(path)?;
    let Ok(kept) = serde_json::from_slice::<Kept<'_>>(&bytes) else {
        tracing::warn!(path = %path.display(), "the node's key is not used: its file is damaged");
        return None;
    };
    let pkcs8 = kept.svid.pkcs8()?;
    let chain = kept.svid.chain()?;
    Some(Held {
        token_sha256: kept.token_sha256.to_owned(),
        pod_uid: kept.pod_uid,
        pkcs8,
        certificate: certificate(chain, kept.node_name, kept.node_uid),
    })
}

fn certificate(chain: Vec<Bytes>, node_name: String, node_uid: String) -> Option<AttestedNode> {
    let spiffe_id = inspect_leaf(chain.first()?).ok()?.spiffe_id;
    Some(AttestedNode {
        chain,
        spiffe_id,
        node_name,
        node_uid,
        control_authorities: Vec::new(),
        said: Said::default(),
    })
}

#[cfg(test)]
mod tests;
