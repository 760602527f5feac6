//! Which rules a start goes on by.

use std::{sync::Arc, time::SystemTime};

use super::{
    LiveRulesParts, NotStarted, OfSource, Revision,
    accepted::{Accepted, Change, keep},
    admins::AdminRules,
    source::Unusable,
};
use crate::rules::{RuleSet, WrittenRules};

/// In the audit log: nobody has confirmed anything, and nothing was weighed.
const AUTHOR: &str = "start";

/// What a start finds.
pub(super) struct Beginning {
    /// The rules that it goes on by.
    pub(super) in_force: Arc<RuleSet>,
    /// What admins have set.
    pub(super) admins: AdminRules,
    /// The rules of the file, or why they cannot be used.
    pub(super) file: Result<WrittenRules, Unusable>,
    /// How the sources stand to those in force.
    pub(super) source: OfSource,
}

/// Finds out.
pub(super) async fn found(parts: &LiveRulesParts) -> Result<Beginning, NotStarted> {
    let admins = AdminRules::read(parts.store.admin_rules().await?.as_deref());
    let admins = admins.map_err(NotStarted::Unreadable)?;
    let written = parts.first.written();
    let merged = admins.merged(parts.first.scope(), &written, parts.longest_ttl);
    let (first, file) = match merged {
        Ok(merged) => (Ok(Arc::new(merged)), Ok(written)),
        Err(unfit) => {
            let unusable = unfit.of(written);
            let problem = unusable.problem.clone();
            tracing::warn!(
                problem,
                "the rules that admins have set cannot be used with those of the configuration"
            );
            (Err(problem), Err(unusable))
        }
    };
    let in_force = in_force(parts, first.as_ref()).await?;
    let source = match &first {
        Err(problem) => OfSource::Unusable(problem.clone()),
        Ok(first) if Arc::ptr_eq(&in_force, first) => OfSource::InForce,
        Ok(_) => OfSource::NotWeighed,
    };
    Ok(Beginning {
        in_force,
        admins,
        file,
        source,
    })
}

/// Those that were accepted last; the `first` of the sources where there are none, or where they mean nothing to this server.
async fn in_force(
    parts: &LiveRulesParts,
    first: Result<&Arc<RuleSet>, &String>,
) -> Result<Arc<RuleSet>, NotStarted> {
    // The file alone is no way out: what admins deny would be given.
    let usable = || first.map_err(|problem| NotStarted::Unfit(problem.clone()));
    let Some(body) = parts.store.accepted_rules().await? else {
        return taken(parts, usable()?, None, None).await;
    };
    let kept = match Accepted::read(&body) {
        Ok(kept) => kept,
        Err(problem) => {
            let first = usable()?;
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
    if let Ok(first) = first
        && kept.rules == first.written()
    {
        return if kept.revision == Revision(first.revision()).to_string() {
            Ok(first.clone())
        } else {
            // Of other clusters: whoever reads the audit log knows rules by their revision.
            taken(parts, first, Some(kept.revision), untold).await
        };
    }
    match RuleSet::compile_written(parts.first.scope(), kept.rules) {
        Ok(accepted) => {
            tracing::warn!(
                "the rules of the configuration and of admins differ from those that were accepted last, which are in force until they are weighed"
            );
            let of_admins = kept.of_admins.iter().map(String::as_str);
            Ok(Arc::new(accepted.with_those_of_admins(of_admins)))
        }
        Err(errors) => {
            let first = usable()?;
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
) -> Result<Arc<RuleSet>, NotStarted> {
    let change = Change {
        author: AUTHOR,
        previous,
        withdrawn: 0,
        untold_since,
        edited: None,
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
