//! How the sources stand to the rules in force, as it is shown and told.

use std::sync::Arc;

use super::{
    super::{OfSource, Revision, Waiting, weigh::Weighed},
    Owner,
};
use crate::rules::RuleSet;

impl Owner {
    pub(super) fn wait(&self, rules: Arc<RuleSet>, weighed: Weighed) {
        let revision = Revision(rules.revision());
        let since = match &self.standing.borrow().source {
            OfSource::Waiting(waiting) if waiting.rules.revision() == rules.revision() => waiting.since,
            _ => self.parts.clock.now(),
        };
        tracing::warn!(
            withdrawn = weighed.withdrawn.count,
            at_most = self.parts.confirm_above,
            %revision,
            "other rules wait: they would withdraw live identities; look at `signet-server rule list`, then confirm them with `signet-server rule confirm` and their revision"
        );
        self.stands(OfSource::Waiting(Arc::new(Waiting {
            rules,
            since,
            withdrawn: weighed.withdrawn,
        })));
    }

    pub(super) fn unusable(&self, problem: String) {
        let is_known =
            matches!(&self.standing.borrow().source, OfSource::Unusable(known) if *known == problem);
        if !is_known {
            tracing::warn!(
                problem,
                "the rules of the configuration cannot be used, those in force stay"
            );
        }
        self.stands(OfSource::Unusable(problem));
    }

    pub(super) fn needs_restart(&self, keys: Vec<String>) {
        self.standing.send_if_modified(|standing| {
            if standing.restart_for == keys {
                return false;
            }
            if !keys.is_empty() {
                let keys = keys.join(", ");
                tracing::warn!(
                    keys,
                    "the configuration has changed in more than its rules: that needs a restart"
                );
            }
            standing.restart_for = keys;
            true
        });
    }

    pub(super) fn put_off(&self, is_put_off: bool) {
        let changed = self.standing.send_if_modified(|standing| {
            std::mem::replace(&mut standing.is_put_off, is_put_off) != is_put_off
        });
        if changed && is_put_off {
            tracing::info!("the configuration was looked at as often as it may be, and is again in a moment");
        }
    }

    pub(super) fn stands(&self, source: OfSource) {
        let (waiting, unusable) = match &source {
            OfSource::Waiting(waiting) => (waiting.withdrawn.count, false),
            OfSource::Unusable(_) => (0, true),
            OfSource::InForce | OfSource::NotWeighed => (0, false),
        };
        self.parts.metrics.set_rules(waiting, unusable);
        self.standing.send_modify(|standing| standing.source = source);
    }

    /// Those that admins have set.
    pub(super) fn show_set(&self) {
        let set = self.admins.rules().into();
        self.standing.send_modify(|standing| standing.set = set);
    }
}
