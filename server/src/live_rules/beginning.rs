//! Which rules a start goes on by.

use std::{sync::Arc, time::SystemTime};

use super::{
    LiveRulesParts, OfSource, Revision,
    accepted::{Accepted, Change, keep},
    admins::{AdminRules, Unfit},
};
use crate::{rules::RuleSet, store::StoreError};

/// In the audit log: nobody has confirmed anything, and nothing was weighed.
const AUTHOR: &str = "start";

/// What a start finds.
pub(super) struct Beginning {
    /// The rules that it goes on by.
    pub(super) in_force: Arc<RuleSet>,
    /// What admins have set, or why it cannot be read.
    pub(super) admins: Result<AdminRules, String>,
    /// How the sources stand to those in force.
    pub(super) source: OfSource,
}

/// Finds out.
pub(super) async fn found(parts: &LiveRulesParts) -> Result<Beginning, StoreError> {
    let admins = AdminRules::read(parts.store.admin_rules().await?.as_deref());
    let first = parts.first.as_ref();
    let merged = admins.as_ref().map_err(Clone::clone).and_then(|admins| {
        let merged = admins.merged(first.scope(), &first.written(), parts.longest_ttl);
        merged.map(Arc::new).map_err(|unfit| match unfit {
            Unfit::File(problem) | Unfit::Admins(problem) => problem,
        })
    });
    let (first, problem) = match merged {
        Ok(merged) => (merged, None),
        Err(problem) => {
            tracing::warn!(
                problem,
                "the rules that admins have set cannot be used with those of the configuration"
            );
            (parts.first.clone(), Some(problem))
        }
    };
    let in_force = in_force(parts, &first).await?;
    let source = match problem {
        Some(problem) => OfSource::Unusable(problem),
        None if Arc::ptr_eq(&in_force, &first) => OfSource::InForce,
        None => OfSource::NotWeighed,
    };
    Ok(Beginning {
        in_force,
        admins,
        source,
    })
}

/// Those that were accepted last; the `first` of the sources where there are none, or where they mean nothing to this server.
async fn in_force(parts: &LiveRulesParts, first: &Arc<RuleSet>) -> Result<Arc<RuleSet>, StoreError> {
    let Some(body) = parts.store.accepted_rules().await? else {
        return taken(parts, first, None, None).await;
    };
    let kept = match Accepted::read(&body) {
        Ok(kept) => kept,
        Err(problem) => {
            mean_nothing(&problem);
            return taken(parts, first, None, None).await;
        }
    };
    // Who was not told yet is not told by a second start either.
    let untold = kept.untold_since();
    if kept.may_be_unheard(parts.longest_ttl, parts.clock.now()) {
        // The process before ended between the edit and the word of it.
        parts.agents.all_untold();
    }
    if kept.rules == first.written() {
        return if kept.revision == Revision(first.revision()).to_string() {
            Ok(first.clone())
        } else {
            // Of other clusters: whoever reads the audit log knows rules by their revision.
            taken(parts, first, Some(kept.revision), untold).await
        };
    }
    match RuleSet::compile_written(first.scope(), kept.rules) {
        Ok(accepted) => {
            tracing::warn!(
                "the rules of the configuration and of admins differ from those that were accepted last, which are in force until they are weighed"
            );
            let of_admins = kept.of_admins.iter().map(String::as_str);
            Ok(Arc::new(accepted.with_those_of_admins(of_admins)))
        }
        Err(errors) => {
            mean_nothing(&errors.to_string());
            taken(parts, first, Some(kept.revision), untold).await
        }
    }
}

/// Those of the sources, as they are.
async fn taken(
    parts: &LiveRulesParts,
    first: &Arc<RuleSet>,
    previous: Option<String>,
    untold_since: Option<SystemTime>,
) -> Result<Arc<RuleSet>, StoreError> {
    let change = Change {
        author: AUTHOR,
        previous,
        withdrawn: 0,
        untold_since,
        of_admins: None,
    };
    keep(parts.store.as_ref(), first, change, parts.clock.now()).await?;
    Ok(first.clone())
}

fn mean_nothing(problem: &str) {
    tracing::warn!(
        problem,
        "the rules that were accepted last mean nothing to this server: those of the configuration and of admins are in force"
    );
}
