//! The journal: an [`AuthoritySet`] as JSON with a version, so that a restart continues where the last change ended.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use signet_certs::authority::AuthorityId;
use signet_certs::signer::SignatureAlgorithm;
use signet_certs::time::{from_unix_millis, unix_millis};

use super::departed::Departed;
use super::links::{Link, Links};
use super::material::Material;
use super::operation::{Operations, Verb};
use super::state::{Activation, AuthorityRecord, AuthoritySet, AuthorityState, Introduced, NewAuthority};

mod rows;

use self::rows::{DepartedRow, OperationRow, TurnRow};

/// The latest version this build writes and reads: with authorities that are not to be trusted any more. What an earlier build may
/// forget without harm is written as version 1, which it reads.
pub(crate) const JOURNAL_VERSION: u32 = 2;
/// The version of a journal in which nothing is to be distrusted.
const PLAIN_VERSION: u32 = 1;

/// Why a journal cannot be used. None of these is guessed away: the server does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// Not the JSON that was expected.
    #[error("the authority journal is not readable")]
    Syntax(#[from] serde_json::Error),
    /// Written by a later version.
    #[error(
        "the authority journal has version {0}, this server reads up to version {JOURNAL_VERSION}: upgrade the server"
    )]
    Version(u32),
    /// A state this version does not know.
    #[error("the authority journal names the unknown state {0:?}: upgrade the server")]
    UnknownState(String),
    /// A member that contradicts another or does not parse.
    #[error("the authority journal is damaged at authority {authority}: {problem}")]
    Damaged {
        /// As written.
        authority: String,
        /// What is wrong.
        problem: &'static str,
    },
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    authorities: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    links: Vec<LinkRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    departed: Vec<DepartedRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operations: Vec<OperationRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    history: Vec<TurnRow>,
}

/// Times are Unix milliseconds; an unknown member is refused, since it may carry meaning that would be lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    state: String,
    /// Left out where it is the usual one.
    #[serde(default, skip_serializing_if = "is_usual")]
    algorithm: SignatureAlgorithm,
    certificate: String,
    /// Who signed that one, and so on up to the root; nothing of one that signed itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    above: Vec<String>,
    not_before: i64,
    not_after: i64,
    longest_leaf_ttl_ms: u64,
    author: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    introduced_sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    introduced_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaves_until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drained_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tainted_sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    out_at: Option<i64>,
}

/// A link: who certified whose key, until when.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkRow {
    by: String,
    to: String,
    not_after: i64,
    certificate: String,
}

/// Writes the journal body.
///
/// # Errors
/// Only if JSON cannot be written, which nothing in it can cause.
pub(crate) fn encode(set: &AuthoritySet) -> Result<Vec<u8>, JournalError> {
    let authorities = set.authorities.iter().map(row).collect();
    Ok(serde_json::to_vec(&Document {
        version: version(set),
        authorities,
        links: set.links().iter().map(link_row).collect(),
        departed: set.departed().iter().map(DepartedRow::of).collect(),
        operations: set.operations().iter().map(OperationRow::of).collect(),
        history: set.authorities.iter().flat_map(TurnRow::of).collect(),
    })?)
}

/// An earlier build would take back what has left, and forget that it is to take something away.
fn version(set: &AuthoritySet) -> u32 {
    let is_tainted = |record: &AuthorityRecord| matches!(record.state, AuthorityState::Tainted { .. });
    let mut running = set.operations().running();
    let retires = running.any(|one| matches!(one.verb, Verb::Retire | Verb::Emergency));
    if retires || set.departed().iter().next().is_some() || set.authorities.iter().any(is_tainted) {
        JOURNAL_VERSION
    } else {
        PLAIN_VERSION
    }
}

/// Reads a journal body.
///
/// # Errors
/// [`JournalError`]; the version is looked at before anything else.
pub(crate) fn decode(body: &[u8]) -> Result<AuthoritySet, JournalError> {
    let VersionOnly { version } = serde_json::from_slice(body)?;
    if !(PLAIN_VERSION..=JOURNAL_VERSION).contains(&version) {
        return Err(JournalError::Version(version));
    }
    let document: Document = serde_json::from_slice(body)?;
    let authorities = document.authorities.iter().map(record);
    let mut authorities = authorities.collect::<Result<Vec<_>, _>>()?;
    for turn in &document.history {
        turn.add_to(&mut authorities);
    }
    let links = document.links.iter().map(link).collect::<Result<_, _>>()?;
    let departed = document.departed.iter().map(DepartedRow::read);
    let operations = document.operations.iter().map(OperationRow::read);
    let set = AuthoritySet {
        authorities,
        links: Links::of(links),
        departed: Departed::of(departed.collect::<Result<_, _>>()?),
        operations: Operations::of(operations.collect::<Result<_, _>>()?),
    };
    check_counts(&set)?;
    Ok(set)
}

fn check_counts(set: &AuthoritySet) -> Result<(), JournalError> {
    let mut seen: Vec<&AuthorityRecord> = Vec::new();
    for record in &set.authorities {
        let single = record.state.is_in_service();
        let twice = seen
            .iter()
            .any(|other| other.id() == record.id() || (single && other.state.name() == record.state.name()));
        if twice {
            return Err(damaged(
                &record.id().to_string(),
                "a second one in the same place",
            ));
        }
        if set.departed().get(record.id()).is_some() {
            return Err(damaged(&record.id().to_string(), "it has left for good"));
        }
        seen.push(record);
    }
    Ok(())
}

fn row(record: &AuthorityRecord) -> Row {
    let activation = match record.state {
        AuthorityState::Prepared { activation } => Some(activation_name(activation).to_owned()),
        _ => None,
    };
    let tainted_sequence = match record.state {
        AuthorityState::Tainted { shown, .. } => shown,
        _ => None,
    };
    let end = record.state.end();
    let leaves_until = end.map(|(leaves_until, _)| unix_millis(leaves_until));
    let drained_at = end.and_then(|(_, drained_at)| drained_at).map(unix_millis);
    let Material::X509(chain) = &record.authority.material;
    let mut encoded = chain.iter().map(|der| STANDARD.encode(der));
    Row {
        id: record.id().to_string(),
        state: record.state.name().to_owned(),
        algorithm: record.authority.algorithm,
        certificate: encoded.next().unwrap_or_default(),
        above: encoded.collect(),
        not_before: unix_millis(record.authority.not_before),
        not_after: unix_millis(record.authority.not_after),
        longest_leaf_ttl_ms: u64::try_from(record.longest_leaf_ttl.as_millis()).unwrap_or(u64::MAX),
        author: record.author.to_string(),
        introduced_sequence: record.introduced.map(|introduced| introduced.sequence),
        introduced_at: record.introduced.map(|introduced| unix_millis(introduced.at)),
        activation,
        leaves_until,
        drained_at,
        tainted_sequence,
        out_at: record.state.out_at().map(unix_millis),
    }
}

fn record(row: &Row) -> Result<AuthorityRecord, JournalError> {
    let id = AuthorityId::from_str(&row.id).map_err(|_| damaged(&row.id, "its id does not parse"))?;
    let certificates = std::iter::once(&row.certificate).chain(&row.above);
    let chain = certificates
        .map(|text| STANDARD.decode(text).map(Arc::from))
        .collect::<Result<Arc<[Arc<[u8]>]>, _>>()
        .map_err(|_| damaged(&row.id, "its certificate is not base64"))?;
    let material = Material::X509(chain);
    Ok(AuthorityRecord {
        authority: NewAuthority {
            id,
            algorithm: row.algorithm,
            not_before: from_unix_millis(row.not_before),
            not_after: from_unix_millis(row.not_after),
            signs_list: material.signs_list(),
            material,
        },
        state: state(row)?,
        introduced: introduced(row)?,
        longest_leaf_ttl: Duration::from_millis(row.longest_leaf_ttl_ms),
        author: row.author.as_str().into(),
        history: Vec::new(),
    })
}

fn link_row(link: &Link) -> LinkRow {
    LinkRow {
        by: link.by.to_string(),
        to: link.to.to_string(),
        not_after: unix_millis(link.not_after),
        certificate: STANDARD.encode(&link.certificate),
    }
}

fn link(row: &LinkRow) -> Result<Link, JournalError> {
    let id = |text: &str| AuthorityId::from_str(text).map_err(|_| damaged(text, "its id does not parse"));
    let certificate = STANDARD
        .decode(&row.certificate)
        .map_err(|_| damaged(&row.to, "the link to it is not base64"))?;
    Ok(Link {
        by: id(&row.by)?,
        to: id(&row.to)?,
        not_after: from_unix_millis(row.not_after),
        certificate: certificate.into(),
    })
}

fn state(row: &Row) -> Result<AuthorityState, JournalError> {
    match row.state.as_str() {
        "prepared" => {
            let activation = row.activation.as_deref().and_then(activation_from);
            let activation = activation.ok_or_else(|| damaged(&row.id, "what it waits for is missing"))?;
            Ok(AuthorityState::Prepared { activation })
        }
        "active" => Ok(AuthorityState::Active),
        "old" => Ok(AuthorityState::Old {
            leaves_until: leaves_until(row)?,
            drained_at: moment(row.drained_at),
        }),
        "tainted" => Ok(AuthorityState::Tainted {
            leaves_until: leaves_until(row)?,
            drained_at: moment(row.drained_at),
            shown: row.tainted_sequence,
            out_at: moment(row.out_at),
        }),
        unknown => Err(JournalError::UnknownState(unknown.to_owned())),
    }
}

fn leaves_until(row: &Row) -> Result<SystemTime, JournalError> {
    moment(row.leaves_until).ok_or_else(|| damaged(&row.id, "the end of its leaves is missing"))
}

fn introduced(row: &Row) -> Result<Option<Introduced>, JournalError> {
    match (row.introduced_sequence, moment(row.introduced_at)) {
        (Some(sequence), Some(at)) => Ok(Some(Introduced { sequence, at })),
        (None, None) => Ok(None),
        _ => Err(damaged(&row.id, "half of its introduction is missing")),
    }
}

fn is_usual(algorithm: &SignatureAlgorithm) -> bool {
    *algorithm == SignatureAlgorithm::default()
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::OnSchedule => "on_schedule",
        Activation::WhenSpread => "when_spread",
        Activation::AtOnce => "at_once",
        Activation::InEmergency => "emergency",
    }
}

fn activation_from(name: &str) -> Option<Activation> {
    let all = [
        Activation::OnSchedule,
        Activation::WhenSpread,
        Activation::AtOnce,
        Activation::InEmergency,
    ];
    all.into_iter()
        .find(|activation| activation_name(*activation) == name)
}

fn moment(millis: Option<i64>) -> Option<SystemTime> {
    millis.map(from_unix_millis)
}

fn damaged(authority: &str, problem: &'static str) -> JournalError {
    JournalError::Damaged {
        authority: authority.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests;
