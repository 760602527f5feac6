//! The control authorities by which the agent recognises its server, and where they are kept.
//!
//! They begin with the configured file. The server pushes newer ones over the verified channel; these are kept in
//! `data_dir/anchors.json`, so that a restart survives a rotation that the configured file has not heard of. When the
//! kept ones are dead (all expired, or the server cannot be verified by any) the configured file is read again: that is
//! how a lost control authority is recovered from. A configured file that has not changed since the kept ones were
//! derived from it adds nothing while one of them lives.
//!
//! Anybody on the network path can make a handshake fail and so cause that reading. It therefore only adds: no living
//! anchor and no CRL is lost by it, and an authority that the server has removed does not come back by a configured file
//! that lags behind. The next push of the server, once it is verified, says what really counts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::bundle::parse_pem_certificates;
use signet_certs::crl::Crl;
use signet_certs::id::TrustDomain;
use signet_certs::tls::SharedRoots;
use signet_certs::verify::{CrlPolicy, TrustRoots, TrustedAuthority};
use signet_runtime::files::{self, Durability};
use signet_runtime::sync::Mutex;
use thiserror::Error;

use super::trust::{HeldAuthority, TrustError, usable};

/// Largest anchors file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Kept anchors carry CRLs; this many bytes are read at most.
const MAX_KEPT: u64 = 32 * 1024 * 1024;

/// Removed authorities that are remembered; years of rotations.
const MAX_RETIRED: usize = 256;

/// Why there are no anchors.
#[derive(Debug, Error)]
pub enum AnchorsError {
    /// The configured file cannot be read.
    #[error("{}: {problem}; it must hold the control authorities that the server writes", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: std::io::Error,
    },
    /// The configured file holds something else.
    #[error("{}: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The anchors in force. Shared by the connector, the node attestor and the trust stream.
#[derive(Debug)]
pub struct ControlAnchors {
    trust_domain: TrustDomain,
    configured: PathBuf,
    kept: PathBuf,
    roots: Arc<SharedRoots>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    anchors: Vec<TrustedAuthority>,
    /// SHA-256 of the configured file that the anchors descend from.
    source: [u8; 32],
    /// Authorities that the server no longer names.
    retired: BTreeSet<AuthorityId>,
}

/// The kept file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    trust_domain: String,
    source_sha256: String,
    anchors: Vec<KeptAnchor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retired: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeptAnchor {
    certificate: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    crl: String,
}

impl ControlAnchors {
    /// Reads the kept anchors if one of them lives, else the configured ones.
    ///
    /// # Errors
    /// [`AnchorsError`] when neither can be used.
    pub fn load(
        trust_domain: &TrustDomain,
        configured: &Path,
        data_dir: &Path,
        now: SystemTime,
    ) -> Result<Arc<Self>, AnchorsError> {
        let kept = data_dir.join("anchors.json");
        let state = match read_kept(&kept, trust_domain) {
            Some(state) if state.one_lives(now) => state,
            Some(dead) => dead.joined(read_configured(configured, trust_domain)?, now),
            None => read_configured(configured, trust_domain)?,
        };
        let roots = Arc::new(SharedRoots::new(control_roots(trust_domain, &state.anchors)));
        Ok(Arc::new(Self {
            trust_domain: trust_domain.clone(),
            configured: configured.to_owned(),
            kept,
            roots,
            state: Mutex::new(state),
        }))
    }

    /// The anchors as roots for a verifier; replaced in place.
    pub fn roots(&self) -> Arc<SharedRoots> {
        self.roots.clone()
    }

    /// Takes over what the server pushed, and keeps it on disk.
    pub fn update(&self, control: &[HeldAuthority]) {
        let trusted = |held: &HeldAuthority| TrustedAuthority {
            certificate: held.certificate.clone(),
            crl: Some(held.crl.clone()),
        };
        let anchors: Vec<_> = control.iter().map(trusted).collect();
        let mut state = self.state.lock();
        if same(&state.anchors, &anchors) {
            return;
        }
        state.replace(anchors);
        self.roots
            .store(control_roots(&self.trust_domain, &state.anchors));
        if let Err(error) = write_kept(&self.kept, &self.trust_domain, &state) {
            // Served all the same; a restart then begins with older anchors.
            tracing::warn!(path = %self.kept.display(), %error, "cannot keep the control anchors");
        }
    }

    /// Adds authorities that the verified server named when this node attested, before the first push.
    pub fn add(&self, certificates: &[AuthorityCertificate]) {
        let mut state = self.state.lock();
        for certificate in certificates {
            if !state
                .anchors
                .iter()
                .any(|known| known.certificate == *certificate)
            {
                state.anchors.push(TrustedAuthority {
                    certificate: certificate.clone(),
                    crl: None,
                });
            }
        }
        self.roots
            .store(control_roots(&self.trust_domain, &state.anchors));
    }

    /// The server could not be verified. Reads the configured file again; `true` when it gave other anchors, so that
    /// another attempt makes sense.
    ///
    /// # Errors
    /// [`AnchorsError`] when the file cannot be used.
    pub fn server_not_verified(&self, now: SystemTime) -> Result<bool, AnchorsError> {
        let fresh = read_configured(&self.configured, &self.trust_domain)?;
        let mut state = self.state.lock();
        if state.one_lives(now) && fresh.source == state.source {
            return Ok(false);
        }
        let joined = state.joined(fresh, now);
        if same(&state.anchors, &joined.anchors) {
            return Ok(false);
        }
        tracing::warn!(path = %self.configured.display(), "control anchors are read from the configured file again");
        self.roots
            .store(control_roots(&self.trust_domain, &joined.anchors));
        *state = joined;
        Ok(true)
    }
}

impl State {
    fn one_lives(&self, now: SystemTime) -> bool {
        self.anchors
            .iter()
            .any(|anchor| anchor.certificate.is_valid_at(now))
    }

    /// What a verified server pushed; the rest is retired.
    fn replace(&mut self, anchors: Vec<TrustedAuthority>) {
        let before = self.anchors.iter().map(|anchor| anchor.certificate.id());
        self.retired.extend(before);
        for anchor in &anchors {
            self.retired.remove(&anchor.certificate.id());
        }
        while self.retired.len() > MAX_RETIRED {
            self.retired.pop_first();
        }
        self.anchors = anchors;
    }

    /// These anchors that live, and the configured ones that the server has not removed. Removed ones are taken only
    /// where nothing else would be left.
    fn joined(&self, configured: Self, now: SystemTime) -> Self {
        let living = |anchor: &&TrustedAuthority| anchor.certificate.is_valid_at(now);
        let mut anchors: Vec<_> = self.anchors.iter().filter(living).cloned().collect();
        for anchor in &configured.anchors {
            let id = anchor.certificate.id();
            let held = anchors.iter().any(|held| held.certificate.id() == id);
            if !held && !self.retired.contains(&id) {
                anchors.push(anchor.clone());
            }
        }
        if anchors.is_empty() {
            anchors = configured.anchors;
        }
        Self {
            anchors,
            source: configured.source,
            retired: self.retired.clone(),
        }
    }
}

/// CRLs come over the connection that these roots verify; see [`CrlPolicy::Tolerate`].
fn control_roots(trust_domain: &TrustDomain, anchors: &[TrustedAuthority]) -> TrustRoots {
    TrustRoots::new(vec![(trust_domain.clone(), anchors.to_vec())]).with_crl_policy(CrlPolicy::Tolerate)
}

fn same(left: &[TrustedAuthority], right: &[TrustedAuthority]) -> bool {
    let equal =
        |(a, b): (&TrustedAuthority, &TrustedAuthority)| a.certificate == b.certificate && a.crl == b.crl;
    left.len() == right.len() && left.iter().zip(right).all(equal)
}

fn read_configured(path: &Path, trust_domain: &TrustDomain) -> Result<State, AnchorsError> {
    let unusable = |problem: String| AnchorsError::Unusable {
        path: path.to_owned(),
        problem,
    };
    let text = read_bounded(path, MAX_FILE).map_err(|problem| AnchorsError::Unreadable {
        path: path.to_owned(),
        problem,
    })?;
    let certificates = parse_pem_certificates(&text).map_err(|error| unusable(error.to_string()))?;
    let anchor = |der: &Vec<u8>| -> Result<TrustedAuthority, TrustError> {
        Ok(TrustedAuthority {
            certificate: usable(der, trust_domain)?,
            crl: None,
        })
    };
    let anchors: Result<Vec<_>, _> = certificates.iter().map(anchor).collect();
    Ok(State {
        anchors: anchors.map_err(|error| unusable(error.to_string()))?,
        source: sha256(text.as_bytes()),
        retired: BTreeSet::new(),
    })
}

/// Whatever is wrong with the kept file, the configured one is the way back.
fn read_kept(path: &Path, trust_domain: &TrustDomain) -> Option<State> {
    let text = match read_bounded(path, MAX_KEPT) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "kept control anchors are not used");
            return None;
        }
    };
    let state = parse_kept(&text, trust_domain);
    if state.is_none() {
        tracing::warn!(path = %path.display(), "kept control anchors are not used: the file is damaged or of another domain");
    }
    state
}

fn parse_kept(text: &str, trust_domain: &TrustDomain) -> Option<State> {
    let kept: Kept = serde_json::from_str(text).ok()?;
    let source = hex::decode(kept.source_sha256).ok()?.try_into().ok()?;
    let anchor = |kept: &KeptAnchor| {
        let certificate = usable(&hex::decode(&kept.certificate).ok()?, trust_domain).ok()?;
        let crl = hex::decode(&kept.crl)
            .ok()
            .and_then(|der| Crl::verify(&der, &certificate).ok());
        Some(TrustedAuthority { certificate, crl })
    };
    let anchors: Option<Vec<_>> = kept.anchors.iter().map(anchor).collect();
    let retired: Option<_> = kept.retired.iter().map(|id| id.parse().ok()).collect();
    Some(State {
        anchors: anchors?,
        source,
        retired: retired?,
    })
    .filter(|_| kept.trust_domain == trust_domain.as_str())
}

fn write_kept(path: &Path, trust_domain: &TrustDomain, state: &State) -> std::io::Result<()> {
    let anchor = |anchor: &TrustedAuthority| KeptAnchor {
        certificate: hex::encode(anchor.certificate.der()),
        crl: anchor
            .crl
            .as_ref()
            .map(|crl| hex::encode(crl.der()))
            .unwrap_or_default(),
    };
    let kept = Kept {
        trust_domain: trust_domain.as_str().to_owned(),
        source_sha256: hex::encode(state.source),
        anchors: state.anchors.iter().map(anchor).collect(),
        retired: state.retired.iter().map(ToString::to_string).collect(),
    };
    let text = serde_json::to_vec(&kept)?;
    Ok(files::replace(path, &text, 0o600, Durability::Durable)?)
}

fn read_bounded(path: &Path, limit: u64) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(std::io::Error::other(format!("larger than {limit} bytes")));
    }
    Ok(text)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}

#[cfg(test)]
mod tests;
