//! The configured file (PEM) and the kept one (JSON).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use signet_certs::anchors_file::{AnchorsFile, MAX_ANCHORS_FILE, readable_distrust};
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::crl::Crl;
use signet_certs::id::TrustDomain;
use signet_certs::verify::TrustedAuthority;
use signet_runtime::files;

use super::AnchorsError;
use super::state::{Broken, Configured, State};
use crate::server_client::trust::{FileWord, Said, of_domain, usable};

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
    /// Of anchors and retired ones, over whose connection they became that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    said: BTreeMap<String, Vec<String>>,
    /// What the configured file said last.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    distrusted: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    listed: BTreeSet<String>,
}

#[derive(Deserialize, Serialize)]
struct KeptAnchor {
    certificate: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    crl: String,
}

pub(super) fn read_configured(path: &Path, trust_domain: &TrustDomain) -> Result<Configured, Broken> {
    let bytes = files::read(path, MAX_ANCHORS_FILE as u64).map_err(|problem| Broken {
        error: AnchorsError::Unreadable {
            path: path.to_owned(),
            problem,
        },
        distrusted: BTreeSet::new(),
    })?;
    let broken = |problem: String| Broken {
        error: AnchorsError::unusable(path, problem),
        distrusted: readable_distrust(&bytes),
    };
    let file = AnchorsFile::parse(&bytes).map_err(|error| broken(error.to_string()))?;
    for certificate in file.certificates() {
        of_domain(certificate, trust_domain).map_err(|error| broken(error.to_string()))?;
    }
    Ok(Configured {
        word: FileWord {
            distrusted: file.distrusted().clone(),
            listed: file.certificates().iter().map(AuthorityCertificate::id).collect(),
        },
        certificates: file.certificates().to_vec(),
        source: sha256(&bytes),
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
    let ids = |kept: &BTreeSet<String>| kept.iter().map(|id| id.parse().ok()).collect::<Option<_>>();
    let said = |id: &String| -> Option<Said> {
        let kept = kept.said.get(id).map(Vec::as_slice).unwrap_or_default();
        let ids: Option<Vec<_>> = kept.iter().map(|id| id.parse().ok()).collect();
        ids.map(Said::of)
    };
    let retired = kept.retired.iter().map(|id| Some((id.parse().ok()?, said(id)?)));
    let retired: Option<BTreeMap<AuthorityId, Said>> = retired.collect();
    let others = kept.said.keys().filter(|id| !kept.retired.contains(id));
    let others: Option<BTreeMap<AuthorityId, Said>> =
        others.map(|id| Some((id.parse().ok()?, said(id)?))).collect();
    Some(State {
        anchors: anchors?,
        source,
        said: others?,
        retired: retired?,
        file: FileWord {
            distrusted: ids(&kept.distrusted)?,
            listed: ids(&kept.listed)?,
        },
        ..State::default()
    })
    .filter(|_| kept.trust_domain == trust_domain.as_str())
}

/// What is kept of a state.
pub(super) fn kept_text(trust_domain: &TrustDomain, state: &State) -> io::Result<Vec<u8>> {
    let anchor = |anchor: &TrustedAuthority| KeptAnchor {
        certificate: hex::encode(anchor.certificate.der()),
        crl: anchor
            .crl
            .as_ref()
            .map(|crl| hex::encode(crl.der()))
            .unwrap_or_default(),
    };
    let said = |(id, said): (&AuthorityId, &Said)| {
        let ids = said.iter().map(ToString::to_string).collect();
        (!said.is_empty()).then_some((id.to_string(), ids))
    };
    let kept = Kept {
        trust_domain: trust_domain.as_str().to_owned(),
        source_sha256: hex::encode(state.source),
        anchors: state.anchors.iter().map(anchor).collect(),
        retired: state.retired.keys().map(ToString::to_string).collect(),
        said: state.retired.iter().chain(&state.said).filter_map(said).collect(),
        distrusted: state.file.distrusted.iter().map(ToString::to_string).collect(),
        listed: state.file.listed.iter().map(ToString::to_string).collect(),
    };
    Ok(serde_json::to_vec(&kept)?)
}

fn read(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(files::read(path, limit)?).map_err(io::Error::other)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}
