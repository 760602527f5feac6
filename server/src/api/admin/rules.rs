//! What admins are told of rules, and what they confirm.

use std::collections::HashMap;

use signet_certs::time::unix_millis;
use signet_proto::admin as wire;
use tonic::Status;

use super::AdminService;
use crate::{
    live_rules::{AdminRule, Loss, NotConfirmed, OfSource, Revision, Waiting},
    rules::{IdentityRuleConfig, Origin, RuleSet},
};

impl AdminService {
    pub(super) fn rules_standing(&self) -> wire::RulesStanding {
        let standing = self.rules.standing();
        let in_force = self.rules.current().borrow().clone();
        let (problem, waiting) = match standing.source {
            OfSource::InForce => (String::new(), None),
            OfSource::NotWeighed => {
                let why = "they are weighed as soon as the pods of the clusters are known";
                (why.to_owned(), None)
            }
            OfSource::Unusable(problem) => (problem, None),
            OfSource::Waiting(waits) => (String::new(), Some(waiting(&waits))),
        };
        wire::RulesStanding {
            revision: Revision(in_force.revision()).to_string(),
            count: u32::try_from(in_force.rules().count()).unwrap_or(u32::MAX),
            problem,
            waiting,
            restart_for: standing.restart_for,
            put_off: standing.is_put_off,
        }
    }

    pub(super) fn listed_rules(&self) -> wire::ListRulesResponse {
        let standing = self.rules.standing();
        let waiting = match standing.source {
            OfSource::Waiting(waiting) => records(&waiting.rules, &standing.set),
            OfSource::InForce | OfSource::NotWeighed | OfSource::Unusable(_) => Vec::new(),
        };
        wire::ListRulesResponse {
            standing: Some(self.rules_standing()),
            rules: records(&self.rules.current().borrow(), &standing.set),
            waiting,
        }
    }

    pub(super) async fn confirmed_rules(
        &self,
        revision: &str,
        author: String,
    ) -> Result<wire::ConfirmRulesResponse, Status> {
        let Some(Revision(revision)) = Revision::parse(revision) else {
            return Err(Status::invalid_argument(
                "a revision of rules is 16 hexadecimal digits: `rule list` shows the one that waits",
            ));
        };
        let changed = self
            .rules
            .confirm(revision, author)
            .await
            .map_err(not_confirmed)?;
        Ok(wire::ConfirmRulesResponse {
            revision: Revision(changed.revision).to_string(),
            withdrawn: changed.withdrawn,
        })
    }
}

pub(super) fn loss(loss: &Loss) -> wire::WithdrawnIdentity {
    wire::WithdrawnIdentity {
        spiffe_id: loss.spiffe_id.to_string(),
        holder: loss.holder.clone(),
    }
}

pub(super) fn waiting(waiting: &Waiting) -> wire::WaitingRules {
    wire::WaitingRules {
        revision: Revision(waiting.rules.revision()).to_string(),
        since_unix_ms: unix_millis(waiting.since),
        withdrawn: waiting.withdrawn.count,
        examples: waiting.withdrawn.examples.iter().map(loss).collect(),
    }
}

fn records(rules: &RuleSet, set: &[AdminRule]) -> Vec<wire::RuleRecord> {
    // Ten thousand are looked up in ten thousand.
    let set: HashMap<&str, &AdminRule> = set.iter().map(|set| (set.rule.name.as_str(), set)).collect();
    let record = |(rule, origin): (&IdentityRuleConfig, Origin)| {
        let set = set.get(rule.name.as_str());
        let set = set.filter(|set| origin == Origin::Admin && set.rule == *rule);
        wire::RuleRecord {
            name: rule.name.clone(),
            // Plain structs: this cannot fail.
            rule: serde_json::to_string(rule).unwrap_or_default(),
            source: origin.as_str().to_owned(),
            set_by: set.map(|set| set.author.clone()).unwrap_or_default(),
            set_unix_ms: set.map(|set| unix_millis(set.set_at())).unwrap_or_default(),
        }
    };
    rules.origins().map(record).collect()
}

fn not_confirmed(error: NotConfirmed) -> Status {
    match error {
        NotConfirmed::NothingWaits | NotConfirmed::Others { .. } => {
            Status::failed_precondition(error.to_string())
        }
        NotConfirmed::Store(_) | NotConfirmed::Stopping => Status::unavailable(error.to_string()),
    }
}
