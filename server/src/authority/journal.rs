//! The journal: an [`AuthoritySet`] as JSON with a version, so that a restart continues where the last change ended.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use signet_certs::authority::AuthorityId;
use signet_certs::time::{from_unix_millis, unix_millis};

use super::links::{Link, Links};
use super::state::{Activation, AuthorityRecord, AuthoritySet, AuthorityState, Introduced, NewAuthority};

/// The version this build writes and reads.
pub(crate) const JOURNAL_VERSION: u32 = 1;

/// Why a journal cannot be used. None of these is guessed away: the server does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// Not the JSON that was expected.
    #[error("the authority journal is not readable")]
    Syntax(#[from] serde_json::Error),
    /// Written by a later version.
    #[error(
        "the authority journal has version {0}, this server reads version {JOURNAL_VERSION}: upgrade the server"
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
}

/// Times are Unix milliseconds; an unknown member is refused, since it may carry meaning that would be lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    state: String,
    certificate: String,
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
        version: JOURNAL_VERSION,
        authorities,
        links: set.links().iter().map(link_row).collect(),
    })?)
}

/// Reads a journal body.
///
/// # Errors
/// [`JournalError`]; the version is looked at before anything else.
pub(crate) fn decode(body: &[u8]) -> Result<AuthoritySet, JournalError> {
    let VersionOnly { version } = serde_json::from_slice(body)?;
    if version != JOURNAL_VERSION {
        return Err(JournalError::Version(version));
    }
    let document: Document = serde_json::from_slice(body)?;
    let authorities = document
        .authorities
        .iter()
        .map(record)
        .collect::<Result<Vec<_>, _>>()?;
    let links = document.links.iter().map(link).collect::<Result<_, _>>()?;
    let set = AuthoritySet {
        authorities,
        links: Links::of(links),
    };
    check_counts(&set)?;
    Ok(set)
}

fn check_counts(set: &AuthoritySet) -> Result<(), JournalError> {
    let mut seen: Vec<&AuthorityRecord> = Vec::new();
    for record in &set.authorities {
        let single = !matches!(record.state, AuthorityState::Old { .. });
        let twice = seen
            .iter()
            .any(|other| other.id() == record.id() || (single && other.state.name() == record.state.name()));
        if twice {
            return Err(damaged(
                &record.id().to_string(),
                "a second one in the same place",
            ));
        }
        seen.push(record);
    }
    Ok(())
}

fn row(record: &AuthorityRecord) -> Row {
    let (mut activation, mut leaves_until, mut drained_at) = (None, None, None);
    match record.state {
        AuthorityState::Prepared {
            activation: waits_for,
        } => {
            activation = Some(activation_name(waits_for).to_owned());
        }
        AuthorityState::Active => {}
        AuthorityState::Old {
            leaves_until: until,
            drained_at: drained,
        } => {
            leaves_until = Some(unix_millis(until));
            drained_at = drained.map(unix_millis);
        }
    }
    Row {
        id: record.id().to_string(),
        state: record.state.name().to_owned(),
        certificate: STANDARD.encode(&record.certificate.certificate),
        not_before: unix_millis(record.certificate.not_before),
        not_after: unix_millis(record.certificate.not_after),
        longest_leaf_ttl_ms: u64::try_from(record.longest_leaf_ttl.as_millis()).unwrap_or(u64::MAX),
        author: record.author.to_string(),
        introduced_sequence: record.introduced.map(|introduced| introduced.sequence),
        introduced_at: record.introduced.map(|introduced| unix_millis(introduced.at)),
        activation,
        leaves_until,
        drained_at,
    }
}

fn record(row: &Row) -> Result<AuthorityRecord, JournalError> {
    let id = AuthorityId::from_str(&row.id).map_err(|_| damaged(&row.id, "its id does not parse"))?;
    let certificate = STANDARD
        .decode(&row.certificate)
        .map_err(|_| damaged(&row.id, "its certificate is not base64"))?;
    Ok(AuthorityRecord {
        certificate: NewAuthority {
            id,
            certificate: certificate.into(),
            not_before: from_unix_millis(row.not_before),
            not_after: from_unix_millis(row.not_after),
        },
        state: state(row)?,
        introduced: introduced(row)?,
        longest_leaf_ttl: Duration::from_millis(row.longest_leaf_ttl_ms),
        author: row.author.as_str().into(),
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
            leaves_until: moment(row.leaves_until)
                .ok_or_else(|| damaged(&row.id, "the end of its leaves is missing"))?,
            drained_at: moment(row.drained_at),
        }),
        unknown => Err(JournalError::UnknownState(unknown.to_owned())),
    }
}

fn introduced(row: &Row) -> Result<Option<Introduced>, JournalError> {
    match (row.introduced_sequence, moment(row.introduced_at)) {
        (Some(sequence), Some(at)) => Ok(Some(Introduced { sequence, at })),
        (None, None) => Ok(None),
        _ => Err(damaged(&row.id, "half of its introduction is missing")),
    }
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::OnSchedule => "on_schedule",
        Activation::WhenSpread => "when_spread",
        Activation::AtOnce => "at_once",
    }
}

fn activation_from(name: &str) -> Option<Activation> {
    [Activation::OnSchedule, Activation::WhenSpread, Activation::AtOnce]
        .into_iter()
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
mod tests {
    use super::*;

    const ROW: &str = r#"{"id":"0101010101010101010101010101010101010101","state":"old","certificate":"AQID",
        "not_before":1000,"not_after":2000,"longest_leaf_ttl_ms":3600000,"author":"timer","introduced_sequence":7,
        "introduced_at":1500,"leaves_until":1900}"#;

    fn body(version: u32, rows: &str) -> Vec<u8> {
        format!(r#"{{"version":{version},"authorities":[{rows}]}}"#).into_bytes()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let set = decode(&body(1, ROW)).unwrap();
        assert_eq!(
            set.authorities()[0]
                .introduced
                .map(|introduced| introduced.sequence),
            Some(7)
        );
        assert_eq!(decode(&encode(&set).unwrap()).unwrap(), set);
    }

    #[test]
    fn links_are_kept_with_the_authorities() {
        let id = |number| AuthorityId::from_bytes([number; 20]);
        let mut set = decode(&body(1, ROW)).unwrap();
        set.links.add(Link {
            by: id(8),
            to: id(9),
            not_after: from_unix_millis(5000),
            certificate: [1, 2, 3].into(),
        });
        let written = encode(&set).unwrap();
        assert_eq!(decode(&written).unwrap(), set);
        let text = String::from_utf8(written).unwrap();
        let cut = text.replace("\"certificate\":\"AQID\"}]}", "\"certificate\":\"A?\"}]}");
        assert_ne!(cut, text);
        assert!(matches!(
            decode(cut.as_bytes()),
            Err(JournalError::Damaged { .. })
        ));
    }

    #[test]
    fn later_versions_and_unknown_states_are_typed_errors() {
        assert!(matches!(
            decode(&body(2, "\"anything\"")),
            Err(JournalError::Version(2))
        ));
        let tainted = ROW.replace("\"old\"", "\"tainted\"");
        let refused = decode(&body(1, &tainted)).unwrap_err();
        assert!(
            matches!(&refused, JournalError::UnknownState(state) if state == "tainted"),
            "{refused}"
        );
        let stranger = ROW.replace("\"author\"", "\"colour\":1,\"author\"");
        assert!(matches!(
            decode(&body(1, &stranger)),
            Err(JournalError::Syntax(_))
        ));
    }

    #[test]
    fn damage_is_not_guessed_away() {
        let without_end = ROW.replace(",\"leaves_until\":1900", "");
        let half = ROW.replace("\"introduced_sequence\":7,", "");
        let no_activation = ROW.replace("\"old\"", "\"prepared\"");
        let twice = format!("{ROW},{ROW}");
        for damaged in [without_end, half, no_activation, twice, ROW.replace("AQID", "A?")] {
            let refused = decode(&body(1, &damaged));
            assert!(
                matches!(refused, Err(JournalError::Damaged { .. })),
                "{refused:?}"
            );
        }
        assert!(matches!(decode(b"{"), Err(JournalError::Syntax(_))));
    }
}
