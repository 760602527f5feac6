//! Rules that are replaced while certificates are asked for.

use tokio::task::yield_now;

use super::*;
use crate::agents::{Affected, AgentNode};

impl World {
    /// From now on these rules decide, without the built-in one.
    fn replace_rules(&self, rules: Vec<IdentityRuleConfig>) -> u64 {
        let scope = RuleScope {
            builtin_rule: false,
            ..self.scope.clone()
        };
        let set = RuleSet::compile(&scope, rules).unwrap();
        let revision = set.revision();
        self.rules.send_replace(Arc::new(set));
        revision
    }

    async fn asked(&self) -> (Outcome, u64) {
        let items = vec![item(csr(), "pod-token")];
        let answered = self.issuer.issue(&agent("node-a"), self.serial(), items).await;
        let mut answered = answered.unwrap();
        (answered.outcomes.pop().unwrap(), answered.policy_revision)
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_question_is_answered_by_the_new_rules_and_names_their_revision() {
    let world = World::new().await;
    let before = world.rules.borrow().revision();
    let (outcome, revision) = world.asked().await;
    assert_eq!(issued(outcome).spiffe_id.path(), "/ns/shop/sa/frontend");
    assert_eq!(revision, before);

    let with_rule = world.replace_rules(vec![IdentityRuleConfig {
        name: "shop".to_owned(),
        spiffe_id: Some("/shop/{service_account}".to_owned()),
        ..IdentityRuleConfig::default()
    }]);
    let (outcome, revision) = world.asked().await;
    assert_eq!(issued(outcome).spiffe_id.path(), "/shop/frontend");
    assert_eq!(revision, with_rule);

    let none = world.replace_rules(Vec::new());
    let (outcome, revision) = world.asked().await;
    assert_eq!(refused(outcome).0, RefusalReason::NoMatch);
    assert_eq!(revision, none);
    let rows = world.running.store.issued();
    let revisions: Vec<_> = rows
        .iter()
        .filter(|row| !row.workload.spiffe_id.is_agent())
        .map(|row| row.policy_revision)
        .filter(|revision| *revision > 0)
        .collect();
    assert_eq!(revisions, [before, with_rule]);
}

/// Whoever names the workloads that an edit concerns may have looked before this row was written.
#[tokio::test(start_paused = true)]
async fn what_was_decided_before_an_edit_and_recorded_after_it_is_asked_for_again() {
    let world = World::new().await;
    let asking = agent("node-a");
    let session = world.agents.connect(&AgentNode {
        spiffe_id: asking.spiffe_id.clone(),
        cluster: asking.cluster.clone(),
        node_name: asking.node_name.clone(),
        node_uid: asking.node_uid.clone(),
    });
    let before = world.rules.borrow().revision();
    let edit = async {
        // The question has been decided and waits for the check of its CSR, on another thread.
        yield_now().await;
        world.replace_rules(Vec::new())
    };
    let ((outcome, revision), _) = tokio::join!(world.asked(), edit);
    issued(outcome);
    assert_eq!(revision, before, "one call, one snapshot");
    assert_eq!(session.next_affected().await, Some(Affected::All));
}
