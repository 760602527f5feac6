//! Rules that match a workload and give it nothing, and why a workload gets nothing at all: for admins, who wrote the rules.

use std::collections::HashMap;
use std::time::Duration;

use signet_runtime::{sync::Mutex, tally::Tally};

use crate::rules::{Facts, RuleSet, Unusable};

/// How often each rule is told of: it may be met with each renewal of each pod.
const EVERY: Duration = Duration::from_secs(60);
/// Most rules of one explanation.
const EXPLAINED: usize = 8;

/// What is told, by the names of the rules of one revision: as many as it has.
#[derive(Debug, Default)]
pub(super) struct UnusableRules(Mutex<(u64, HashMap<String, Tally>)>);

impl UnusableRules {
    /// Writes it where an admin finds it, once an interval for each rule and with an example: nobody misses what he never had.
    pub(super) fn tell(&self, rules: &RuleSet, unusable: Vec<Unusable>, facts: &Facts<'_>) {
        for Unusable { rule, problem } in unusable {
            let mut told = self.0.lock();
            let (revision, tallies) = &mut *told;
            // Other rules, other names: those of the past would pile up.
            if std::mem::replace(revision, rules.revision()) != rules.revision() {
                tallies.clear();
            }
            let tally = tallies.entry(rule.clone()).or_insert_with(|| Tally::new(EVERY));
            if let Some(times) = tally.count() {
                let workload = facts.to_string();
                tracing::warn!(
                    rule,
                    problem,
                    workload,
                    times,
                    "a rule matches a workload and gives it no identity"
                );
            }
        }
    }
}

/// What the rules make of the facts, those that match first and then the nearest.
pub(super) fn explained(rules: &RuleSet, facts: &Facts<'_>) -> String {
    let account = rules.account(facts, EXPLAINED);
    let mut texts: Vec<_> = account.rules.iter().map(ToString::to_string).collect();
    match account.left_out {
        0 if texts.is_empty() => texts.push("there are no rules".to_owned()),
        0 => {}
        more => texts.push(format!("and {more} more")),
    }
    texts.join("; ")
}
