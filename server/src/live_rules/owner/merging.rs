//! The rules of both sources as one set.

use std::sync::Arc;

use super::{
    super::{
        NotEdited, accepted,
        admins::{AdminRules, Edit, Unfit},
        source::{Checked, Unusable},
    },
    Owner,
};
use crate::rules::{RuleScope, RuleSet, WrittenRules};

/// What a text of the file makes of the rules: its own, all of them, and its other keys that need a restart.
type Judged = (WrittenRules, Arc<RuleSet>, Vec<String>);

/// What an edit makes of the rules.
pub(super) struct WithEdit {
    /// Those of the admins.
    pub(super) admins: AdminRules,
    /// All of them.
    pub(super) rules: Arc<RuleSet>,
    /// Those of the file as it is now; none where those of it that are in force stand for it.
    pub(super) file: Option<WrittenRules>,
}

impl Owner {
    /// The rules of a text and of the admins, for the clusters of this process.
    pub(super) async fn check(&self, text: Arc<str>) -> Result<Judged, Unusable> {
        let (source, scope) = (self.source(), self.parts.first.scope().clone());
        let (longest, in_force) = (self.parts.longest_ttl, self.in_force().revision());
        let admins = self.admins.clone();
        let work = move || {
            let Checked {
                rules: file,
                restart_for,
                warnings,
            } = source.check(&text).map_err(Unusable::all)?;
            let rules = match admins.merged(&scope, &file, longest) {
                Ok(rules) => rules,
                Err(Unfit::File(problem)) => {
                    return Err(Unusable::all(format!(
                        "they need a restart, for the clusters of the configuration have changed or a life is longer than before: {problem}"
                    )));
                }
                Err(unfit) => return Err(unfit.of(file)),
            };
            if rules.revision() != in_force {
                for warning in warnings {
                    tracing::warn!(warning, "configuration");
                }
            }
            Ok((file, Arc::new(rules), restart_for))
        };
        let checked = signet_runtime::spans::spawn_blocking(work).await;
        checked.unwrap_or_else(|error| Err(Unusable::all(error.to_string())))
    }

    /// What an edit makes of the admins' rules, and of all of them.
    pub(super) async fn with(&self, edit: &Edit, author: &str) -> Result<WithEdit, NotEdited> {
        let scope = self.parts.first.scope();
        let waits_for_admins = match &self.file {
            Ok(file) => return self.beside(file.clone(), scope, edit, author).await,
            Err(unusable) => unusable.rules.as_ref(),
        };
        // What stood in the file's way may be gone with the edit: then the file counts at once.
        if let Some(file) = waits_for_admins
            && let Ok(with) = self.beside(file.clone(), scope, edit, author).await
        {
            return Ok(with);
        }
        let in_force = self.in_force();
        let mut stays = in_force.written_in_file();
        // Another rule of the file is in its way still. What is given up for the file's stays in force until that counts.
        if let (Edit::Delete { name }, Some(file)) = (edit, waits_for_admins)
            && file.has(name)
        {
            stays
                .rules
                .extend(in_force.rules().find(|rule| rule.name == *name).cloned());
        }
        let with = self.beside(stays, in_force.scope(), edit, author).await?;
        Ok(WithEdit { file: None, ..with })
    }

    async fn beside(
        &self,
        file: WrittenRules,
        scope: &RuleScope,
        edit: &Edit,
        author: &str,
    ) -> Result<WithEdit, NotEdited> {
        let admins = self
            .admins
            .edited(edit, &file, (author, self.parts.clock.now()))?;
        let (scope, longest) = (scope.clone(), self.parts.longest_ttl);
        let work = move || {
            let rules = Arc::new(admins.merged(&scope, &file, longest)?);
            let file = Some(file);
            Ok(WithEdit { admins, rules, file })
        };
        let merged = signet_runtime::spans::spawn_blocking(work).await;
        merged.unwrap_or_else(|error| Err(NotEdited::Unfit(error.to_string())))
    }

    /// The rules in force, where some of them are of the other source by now.
    pub(super) async fn moved(&self, rules: Arc<RuleSet>) {
        if rules.names_of_admins() == self.in_force().names_of_admins() {
            return;
        }
        if let Err(error) = accepted::moved(self.parts.store.as_ref(), &rules).await {
            tracing::warn!(%error, "after a restart some rules are said to be of the other source until they are read");
        }
        self.current.send_replace(rules);
    }
}
