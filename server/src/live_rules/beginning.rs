//! Which rules a start goes on by.

use std::sync::Arc;

use super::{LiveRulesParts, owner::keep};
use crate::{
    rules::{RuleSet, WrittenRules},
    store::StoreError,
};

/// In the audit log: nobody has confirmed anything.
const AUTHOR: &str = "start";

/// Those that were accepted last; those of the source where there are none, or where they mean nothing to this server.
pub(super) async fn in_force(parts: &LiveRulesParts) -> Result<Arc<RuleSet>, StoreError> {
    let first = parts.first.clone();
    let accepted = match parts.store.accepted_rules().await? {
        None => Ok(None),
        Some(text) => accepted(&text, &first).map(Some),
    };
    match accepted {
        Ok(Some(accepted)) if accepted.written() == first.written() => return Ok(first),
        Ok(Some(accepted)) => {
            tracing::warn!(
                "the rules of the configuration differ from those that were accepted last, which are in force until they are weighed"
            );
            return Ok(accepted);
        }
        Ok(None) => {}
        Err(problem) => tracing::warn!(
            problem,
            "the rules that were accepted last mean nothing to this server: those of the configuration are in force"
        ),
    }
    let (store, now) = (parts.store.as_ref(), parts.clock.now());
    keep(store, AUTHOR, None, &first, 0, now).await?;
    Ok(first)
}

fn accepted(text: &str, first: &RuleSet) -> Result<Arc<RuleSet>, String> {
    let written: WrittenRules = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let compiled = RuleSet::compile_written(first.scope(), written);
    compiled.map(Arc::new).map_err(|errors| errors.to_string())
}
