//! What was believed, over a restart of the agent and of the machine: bundle, CRLs, numbers. All of it is public; it is
//! verified anew when it is read, but for the dates of the CRLs, which were judged when they came: the clock of a machine
//! that has just started may be wrong.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use signet_certs::authority::{AuthorityError, AuthorityId};
use signet_certs::crl::CrlNumber;
use signet_certs::id::TrustDomain;
use signet_certs::time::{from_unix_millis, unix_millis};
use signet_runtime::files::{self, Durability};
use signet_runtime::sync::Mutex;

use super::departed::Gone;
use super::error::TrustError;
use super::judge::believed_before;
use super::{Departed, HeldAuthority, LeftLists, Said, TrustState};
use crate::server_client::{OfferedAuthority, TrustUpdate};

/// Name of the file in the data folder.
const FILE: &str = "trust.json";

/// Largest file that is read, in bytes; the server bounds what it pushes far below.
const MAX_FILE: u64 = 32 * 1024 * 1024;

#[derive(Deserialize, Serialize)]
struct Kept {
    trust_domain: String,
    sequence_number: u64,
    #[serde(default)]
    refresh_hint_seconds: u64,
    #[serde(default)]
    policy_revision: u64,
    #[serde(default)]
    epoch: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    departed: Vec<KeptDeparted>,
    /// By authority, the number of its last list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left: Vec<(String, u64)>,
    /// Over whose connection it came, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    said: Vec<String>,
    x509: Vec<KeptAuthority>,
    control: Vec<KeptAuthority>,
}

/// An authority that may not come back.
#[derive(Deserialize, Serialize)]
struct KeptDeparted {
    id: String,
    since_unix_ms: i64,
    /// By whom it was said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    said: Vec<Vec<String>>,
}

/// DER in hexadecimal; an empty CRL where there is none.
#[derive(Deserialize, Serialize)]
struct KeptAuthority {
    certificate: String,
    crl: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tainted: bool,
}

/// The file in which the newest trust state is kept.
#[derive(Debug)]
pub(crate) struct TrustFile {
    path: PathBuf,
    /// SHA-256 of what is in it.
    written: Mutex<Option<[u8; 32]>>,
}

impl TrustFile {
    /// The file in this folder; reads nothing.
    pub(crate) fn new(data_dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            path: data_dir.join(FILE),
            written: Mutex::default(),
        })
    }

    /// What an earlier run believed. Whatever is wrong with it is logged; the server tells everything again.
    pub(crate) fn read(&self, trust_domain: &TrustDomain) -> Option<TrustState> {
        match self.try_read(trust_domain) {
            Ok(state) => Some(state),
            Err(Unreadable::Missing) => None,
            Err(Unreadable::Because(problem)) => {
                tracing::warn!(path = %self.path.display(), %problem, "the kept trust state is not used");
                None
            }
        }
    }

    fn try_read(&self, trust_domain: &TrustDomain) -> Result<TrustState, Unreadable> {
        let kept: Kept = serde_json::from_slice(&read(&self.path)?).map_err(because)?;
        if kept.trust_domain != trust_domain.as_str() {
            return Err(because(format!("it is of trust domain {}", kept.trust_domain)));
        }
        let offered = |kept: Vec<KeptAuthority>| kept.into_iter().map(offered).collect::<Result<_, _>>();
        let update = TrustUpdate {
            sequence_number: kept.sequence_number,
            refresh_hint: Duration::from_secs(kept.refresh_hint_seconds),
            x509: offered(kept.x509).map_err(because)?,
            control: offered(kept.control).map_err(because)?,
            policy_revision: kept.policy_revision,
            affected: None,
            epoch: kept.epoch,
            clock: None,
            unreachable_since: None,
            departed: Vec::new(),
            not_issuing: Vec::new(),
            wanted: Vec::new(),
            said: said(&kept.said).map_err(because)?,
        };
        let departed: Result<Vec<_>, _> = kept.departed.iter().map(departed).collect();
        let state = believed_before(&update, trust_domain).map_err(|error: TrustError| because(error))?;
        let left = |(id, number): (String, u64)| Ok((id.parse()?, CrlNumber(number)));
        let left: Result<Vec<_>, <AuthorityId as FromStr>::Err> = kept.left.into_iter().map(left).collect();
        Ok(TrustState {
            departed: Departed::of(departed.map_err(because)?),
            left: LeftLists::of(left.map_err(because)?),
            ..state
        })
    }

    /// Keeps a state. Blocks for the disk.
    ///
    /// # Errors
    /// When it cannot be written; the former one is there then.
    pub(crate) fn write(&self, state: &TrustState) -> io::Result<()> {
        let kept = Kept {
            trust_domain: state.bundle.trust_domain.as_str().to_owned(),
            sequence_number: state.bundle.sequence_number,
            refresh_hint_seconds: state.bundle.refresh_hint.as_secs(),
            policy_revision: state.policy_revision,
            epoch: state.epoch,
            departed: state.departed.iter().map(gone).collect(),
            said: state.said.iter().map(ToString::to_string).collect(),
            left: state
                .left
                .iter()
                .map(|(id, number)| (id.to_string(), number.0))
                .collect(),
            x509: state.x509.iter().map(written).collect(),
            control: state.control.iter().map(written).collect(),
        };
        let text = serde_json::to_vec(&kept)?;
        let sum = sha256(&text);
        let mut written = self.written.lock();
        if *written != Some(sum) {
            files::replace(&self.path, &text, 0o600, Durability::Durable)?;
            *written = Some(sum);
        }
        Ok(())
    }
}

/// Why there is no kept state.
enum Unreadable {
    Missing,
    Because(String),
}

fn because(problem: impl ToString) -> Unreadable {
    Unreadable::Because(problem.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, Unreadable> {
    files::read(path, MAX_FILE).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Missing,
        _ => because(error),
    })
}

fn offered(kept: KeptAuthority) -> Result<OfferedAuthority, hex::FromHexError> {
    Ok(OfferedAuthority {
        certificate: hex::decode(kept.certificate)?.into(),
        crl: hex::decode(kept.crl)?.into(),
        named: None,
        tainted: kept.tainted,
    })
}

fn gone(gone: &Gone) -> KeptDeparted {
    let words = gone.said.iter();
    KeptDeparted {
        id: gone.id.to_string(),
        since_unix_ms: unix_millis(gone.since),
        said: words
            .map(|said| said.iter().map(ToString::to_string).collect())
            .collect(),
    }
}

fn departed(kept: &KeptDeparted) -> Result<Gone, AuthorityError> {
    let words: Result<_, _> = kept.said.iter().map(|kept| said(kept)).collect();
    Ok(Gone {
        id: kept.id.parse()?,
        since: from_unix_millis(kept.since_unix_ms),
        said: words?,
    })
}

fn said(kept: &[String]) -> Result<Said, AuthorityError> {
    let ids: Result<Vec<AuthorityId>, _> = kept.iter().map(|id| id.parse()).collect();
    ids.map(Said::of)
}

fn written(held: &HeldAuthority) -> KeptAuthority {
    KeptAuthority {
        certificate: hex::encode(held.certificate.der()),
        crl: held
            .crl
            .as_ref()
            .map(|crl| hex::encode(crl.der()))
            .unwrap_or_default(),
        tainted: held.tainted,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}
