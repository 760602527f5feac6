//! Which rules a start goes on by.

use std::{sync::Arc, time::SystemTime};

use super::{
    LiveRulesParts, Revision,
    accepted::{Accepted, Change, keep},
};
use crate::{rules::RuleSet, store::StoreError};

/// In the audit log: nobody has confirmed anything, and nothing was weighed.
const AUTHOR: &str = "start";

/// Those that were accepted last; those of the source where there are none, or where they mean nothing to this server.
pub(super) async fn in_force(parts: &LiveRulesParts) -> Result<Arc<RuleSet>, StoreError> {
    let first = parts.first.clone();
    let Some(body) = parts.store.accepted_rules().await? else {
        return taken(parts, None, None).await;
    };
    let kept = match Accepted::read(&body) {
        Ok(kept) => kept,
        Err(problem) => {
            mean_nothing(&problem);
            return taken(parts, None, None).await;
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
            Ok(first)
        } else {
            // Of other clusters: whoever reads the audit log knows rules by their revision.
            taken(parts, Some(kept.revision), untold).await
        };
    }
    match RuleSet::compile_written(first.scope(), kept.rules) {
        Ok(accepted) => {
            tracing::warn!(
                "the rules of the configuration differ from those that were accepted last, which are in force until they are weighed"
            );
            Ok(Arc::new(accepted))
        }
        Err(errors) => {
            mean_nothing(&errors.to_string());
            taken(parts, Some(kept.revision), untold).await
        }
    }
}

/// Those of the source, as they are.
async fn taken(
    parts: &LiveRulesParts,
    previous: Option<String>,
    untold_since: Option<SystemTime>,
) -> Result<Arc<RuleSet>, StoreError> {
    let change = Change {
        author: AUTHOR,
        previous,
        withdrawn: 0,
        untold_since,
    };
    keep(parts.store.as_ref(), &parts.first, change, parts.clock.now()).await?;
    Ok(parts.first.clone())
}

fn mean_nothing(problem: &str) {
    tracing::warn!(
        problem,
        "the rules that were accepted last mean nothing to this server: those of the configuration are in force"
    );
}
