//! The configured file (PEM) and the kept one (JSON).

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use signet_certs::bundle::parse_pem_certificates;
use signet_certs::crl::Crl;
use signet_certs::id::TrustDomain;
use signet_certs::verify::TrustedAuthority;
use signet_runtime::files::{self, Durability};

use super::AnchorsError;
use super::state::State;
use crate::server_client::trust::{Departed, TrustError, usable};

/// Largest anchors file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Kept anchors carry CRLs; this many bytes are read at most.
const MAX_KEPT: u64 = 32 * 1024 * 1024;

/// The kept file.
#[derive(Deserialize, Serialize)]
struct Kept {
    trust_domain: String,
    source_sha256: String,
    anchors: Vec<KeptAnchor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retired: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct KeptAnchor {
    certificate: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    crl: String,
}

pub(super) fn read_configured(path: &Path, trust_domain: &TrustDomain) -> Result<State, AnchorsError> {
    let unusable = |problem: String| AnchorsError::Unusable {
        path: path.to_owned(),
        problem,
    };
    let text = read(path, MAX_FILE).map_err(|problem| AnchorsError::Unreadable {
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
        ended: Vec::new(),
        source: sha256(text.as_bytes()),
        retired: BTreeSet::new(),
        departed: Departed::default(),
    })
}

/// Whatever is wrong with the kept file, the configured one is the way back.
pub(super) fn read_kept(path: &Path, trust_domain: &TrustDomain) -> Option<State> {
    let text = match read(path, MAX_KEPT) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
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
        ended: Vec::new(),
        source,
        retired: retired?,
        departed: Departed::default(),
    })
    .filter(|_| kept.trust_domain == trust_domain.as_str())
}

pub(super) fn write_kept(path: &Path, trust_domain: &TrustDomain, state: &State) -> io::Result<()> {
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

fn read(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(files::read(path, limit)?).map_err(io::Error::other)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}
