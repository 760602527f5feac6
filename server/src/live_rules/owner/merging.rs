//! The rules of both sources as one set.

use std::sync::Arc;

use super::{
    super::{
        NotEdited, accepted,
        admins::{AdminRules, Edit, Unfit},
        source::Checked,
    },
    Owner,
};
use crate::rules::{RuleSet, WrittenRules};

/// What a text of the file makes of the rules: its own, all of them, and its other keys that need a restart.
type Judged = (WrittenRules, Arc<RuleSet>, Vec<String>);

impl Owner {
    /// The rules of a text and of the admins, for the clusters of this process.
    pub(super) async fn check(&self, text: Arc<str>) -> Result<Judged, String> {
        let (source, scope) = (self.source(), self.parts.first.scope().clone());
        let (longest, in_force) = (self.parts.longest_ttl, self.in_force().revision());
        let admins = self.admins.clone();
        let work = move || {
            let Checked {
                rules: file,
                restart_for,
                warnings,
            } = source.check(&text)?;
            let merged = admins?.merged(&scope, &file, longest);
            let rules = merged.map_err(|unfit| match unfit {
                Unfit::File(problem) => format!(
                    "they need a restart, for the clusters of the configuration have changed or a life is longer than before: {problem}"
                ),
                Unfit::Admins(problem) => problem,
            })?;
            if rules.revision() != in_force {
                for warning in warnings {
                    tracing::warn!(warning, "configuration");
                }
            }
            Ok((file, Arc::new(rules), restart_for))
        };
        let checked = signet_runtime::spans::spawn_blocking(work).await;
        checked.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// What an edit makes of the admins' rules, and of all of them.
    pub(super) async fn with(
        &self,
        edit: &Edit,
        author: &str,
    ) -> Result<(AdminRules, Arc<RuleSet>), NotEdited> {
        let in_force = self.in_force();
        let (file, scope) = match &self.file {
            Ok(file) => (file.clone(), self.parts.first.scope().clone()),
            // Those of it that are in force stay.
            Err(_) => (in_force.written_in_file(), in_force.scope().clone()),
        };
        let admins = self
            .admins
            .as_ref()
            .map_err(|why| NotEdited::Unfit(why.clone()))?;
        let admins = admins.edited(edit, &file, (author, self.parts.clock.now()))?;
        let longest = self.parts.longest_ttl;
        let work = move || {
            let merged = admins.merged(&scope, &file, longest);
            merged.map(|rules| (admins, Arc::new(rules)))
        };
        let merged = signet_runtime::spans::spawn_blocking(work).await;
        let merged = merged.map_err(|error| NotEdited::Unfit(error.to_string()))?;
        merged.map_err(|unfit| match unfit {
            Unfit::File(problem) | Unfit::Admins(problem) => NotEdited::Unfit(problem),
        })
    }

    /// The rules in force, where some of them are of the other source by now.
    pub(super) async fn moved(&self, rules: Arc<RuleSet>) {
        if rules.names_of_admins() == self.in_force().names_of_admins() {
            return;
        }
        if let Err(error) = accepted::told(self.parts.store.as_ref(), &rules).await {
            tracing::warn!(%error, "after a restart some rules are said to be of the other source until they are read");
        }
        self.current.send_replace(rules);
    }
}
