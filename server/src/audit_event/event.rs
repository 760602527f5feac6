//! What was decided, with its time.

use std::time::SystemTime;

use serde::Serialize;

use super::AuditAction;
use super::written::time;

/// One decision, and when it was taken.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AuditEvent {
    #[serde(serialize_with = "time")]
    time: SystemTime,
    #[serde(flatten)]
    action: AuditAction,
}

impl AuditEvent {
    /// An event at `time`.
    pub(crate) fn new(time: SystemTime, action: AuditAction) -> Self {
        Self { time, action }
    }

    /// When it happened.
    pub(crate) fn time(&self) -> SystemTime {
        self.time
    }

    /// What happened.
    pub(crate) fn action(&self) -> &AuditAction {
        &self.action
    }

    /// As one JSON object, without its position in the log.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| {
            // Only a map with non-text keys or a failing Serialize gets here; neither exists above.
            format!("{{\"event\":\"unprintable\",\"error\":{:?}}}", error.to_string())
        })
    }
}
