//! What the journal holds beside the authorities themselves.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use signet_certs::authority::AuthorityId;
use signet_certs::time::{from_unix_millis, unix_millis};

use super::{JournalError, damaged, moment};
use crate::authority::departed::{DepartedAuthority, Left};
use crate::authority::operation::{Operation, Stage, Told, Verb};
use crate::authority::state::{AuthorityRecord, Turn};

/// One that left for good.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DepartedRow {
    id: String,
    at: i64,
    not_after: i64,
    author: String,
    left: String,
    #[serde(default, skip_serializing_if = "is_false")]
    forced: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    has_key: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown_sequence: Option<u64>,
}

impl DepartedRow {
    pub(super) fn of(departed: &DepartedAuthority) -> Self {
        Self {
            id: departed.id.to_string(),
            at: unix_millis(departed.at),
            not_after: unix_millis(departed.not_after),
            author: departed.author.to_string(),
            left: departed.left.name().to_owned(),
            forced: departed.forced,
            has_key: departed.has_key,
            shown_sequence: departed.shown,
        }
    }

    pub(super) fn read(&self) -> Result<DepartedAuthority, JournalError> {
        let left = Left::from_name(&self.left);
        Ok(DepartedAuthority {
            id: id(&self.id)?,
            at: from_unix_millis(self.at),
            not_after: from_unix_millis(self.not_after),
            author: self.author.as_str().into(),
            left: left.ok_or_else(|| damaged(&self.id, "how it left is not known"))?,
            forced: self.forced,
            has_key: self.has_key,
            shown: self.shown_sequence,
        })
    }
}

/// What an admin has asked for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationRow {
    number: u64,
    verb: String,
    target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    author: String,
    begun: i64,
    stage: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agents: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reported: Option<usize>,
}

impl OperationRow {
    pub(super) fn of(operation: &Operation) -> Self {
        Self {
            number: operation.number,
            verb: operation.verb.name().to_owned(),
            target: operation.target.to_string(),
            previous: operation.previous.map(|previous| previous.to_string()),
            author: operation.author.to_string(),
            begun: unix_millis(operation.begun),
            stage: operation.stage.name().to_owned(),
            ended: operation.ended.map(unix_millis),
            agents: operation.told.map(|told| told.agents),
            reported: operation.told.map(|told| told.reported),
        }
    }

    pub(super) fn read(&self) -> Result<Operation, JournalError> {
        let unknown = || damaged(&self.target, "what is under way with it is not known");
        Ok(Operation {
            number: self.number,
            verb: Verb::from_name(&self.verb).ok_or_else(unknown)?,
            target: id(&self.target)?,
            previous: self.previous.as_deref().map(id).transpose()?,
            author: self.author.as_str().into(),
            begun: from_unix_millis(self.begun),
            stage: Stage::from_name(&self.stage).ok_or_else(unknown)?,
            ended: moment(self.ended),
            told: self.agents.map(|agents| Told {
                agents,
                reported: self.reported.unwrap_or_default(),
            }),
        })
    }
}

/// When an authority came to stand somewhere. For people: what is not known is left out.
#[derive(Serialize, Deserialize)]
pub(super) struct TurnRow {
    authority: String,
    state: String,
    at: i64,
}

impl TurnRow {
    pub(super) fn of(record: &AuthorityRecord) -> impl Iterator<Item = Self> {
        record.history.iter().map(|turn| Self {
            authority: record.id().to_string(),
            state: turn.state.to_owned(),
            at: unix_millis(turn.at),
        })
    }

    pub(super) fn add_to(&self, authorities: &mut [AuthorityRecord]) {
        let names = ["prepared", "active", "old", "tainted"];
        let known = names.into_iter().find(|name| *name == self.state);
        let mut records = authorities.iter_mut();
        let record = records.find(|record| record.id().to_string() == self.authority);
        if let (Some(record), Some(state)) = (record, known) {
            let at = from_unix_millis(self.at);
            record.history.push(Turn { state, at });
        }
    }
}

fn id(text: &str) -> Result<AuthorityId, JournalError> {
    AuthorityId::from_str(text).map_err(|_| damaged(text, "its id does not parse"))
}

fn is_false(flag: &bool) -> bool {
    !flag
}
