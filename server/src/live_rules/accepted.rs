//! Rules as those accepted last, kept for the next start.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use signet_certs::time::{from_unix_millis, unix_millis};

use super::Revision;
use crate::{
    audit_event::{AuditAction, AuditEvent},
    rules::{RuleSet, WrittenRules},
    store::{RulesToKeep, Store, StoreError},
};

/// As the store has them.
#[derive(Serialize, Deserialize)]
pub(super) struct Accepted {
    /// Of the rules for the clusters there were then.
    pub(super) revision: String,
    pub(super) rules: WrittenRules,
    /// Names of those that admins have set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) of_admins: Vec<String>,
    /// When they were accepted, in Unix milliseconds, as long as those whom they concern may not have been named to their agents.
    untold_since: Option<i64>,
}

/// A change of the rules in force, for the audit log.
pub(super) struct Change<'c> {
    pub(super) author: &'c str,
    /// Revision of the rules before; none for the first of a store.
    pub(super) previous: Option<String>,
    pub(super) withdrawn: u64,
    /// Since when agents have to be told of rules that changed, if they have to.
    pub(super) untold_since: Option<SystemTime>,
    /// What admins have set by now, where that is not kept yet, and the line of the edit.
    pub(super) edited: Option<(String, AuditAction)>,
}

impl Accepted {
    fn of(rules: &RuleSet, untold_since: Option<SystemTime>) -> Self {
        Self {
            revision: Revision(rules.revision()).to_string(),
            rules: rules.written(),
            of_admins: rules.names_of_admins(),
            untold_since: untold_since.map(unix_millis),
        }
    }

    /// What a store has.
    pub(super) fn read(body: &str) -> Result<Self, String> {
        serde_json::from_str(body).map_err(|error| error.to_string())
    }

    fn body(&self) -> String {
        // Plain structs: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Since when agents had to be told, and nobody knows whether they were.
    pub(super) fn untold_since(&self) -> Option<SystemTime> {
        self.untold_since.map(from_unix_millis)
    }

    /// Whether somebody may hold what these rules do not give, and does not know; not once the `longest` life of a certificate is over.
    pub(super) fn may_be_unheard(&self, longest: Duration, now: SystemTime) -> bool {
        let since = self.untold_since();
        since.is_some_and(|since| now < since + longest)
    }
}

/// Stores rules as those accepted last, with the line that says so.
pub(super) async fn keep(
    store: &dyn Store,
    rules: &RuleSet,
    change: Change<'_>,
    now: SystemTime,
) -> Result<(), StoreError> {
    let action = AuditAction::RulesChanged {
        author: change.author.to_owned(),
        previous: change.previous,
        revision: Revision(rules.revision()).to_string(),
        rules: rules.rules().count() as u64,
        withdrawn: change.withdrawn,
    };
    let accepted = Accepted::of(rules, change.untold_since);
    let (of_admins, edited) = change.edited.unzip();
    let kept = RulesToKeep {
        accepted: Some(accepted.body()),
        of_admins,
    };
    let lines = edited.into_iter().chain([action]);
    let lines = lines.map(|action| AuditEvent::new(now, action)).collect();
    store.keep_rules(kept, lines).await
}

/// Remembers of which source these rules are, and leaves it as it is whether agents were told of them.
pub(super) async fn moved(store: &dyn Store, rules: &RuleSet) -> Result<(), StoreError> {
    let known = store.accepted_rules().await?;
    let known = known.and_then(|body| Accepted::read(&body).ok());
    let untold = known.and_then(|known| known.untold_since());
    let kept = RulesToKeep {
        accepted: Some(Accepted::of(rules, untold).body()),
        of_admins: None,
    };
    store.keep_rules(kept, Vec::new()).await
}

/// Remembers that those whom these rules concern have been named.
pub(super) async fn told(store: &dyn Store, rules: &RuleSet) -> Result<(), StoreError> {
    let kept = RulesToKeep {
        accepted: Some(Accepted::of(rules, None).body()),
        of_admins: None,
    };
    store.keep_rules(kept, Vec::new()).await
}
