//! Rules that are replaced while certificates are asked for.

use futures_util::future::BoxFuture;

use super::*;
use crate::agents::{Affected, AgentNode};
use crate::attest::{AttestError, Attestor};
use crate::issuer::requester::{Proven, Requester};
use crate::store::AgentShare;

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
        let answered = self.issuer.issue(&self.calling("node-a"), items).await;
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

/// An agent that edits the rules while it is asked for its proof.
struct Editing<'a> {
    world: &'a World,
    agent: CallingAgent,
}

impl Requester for Editing<'_> {
    fn name(&self) -> &str {
        self.agent.name()
    }

    fn certificate(&self) -> Option<SerialNumber> {
        self.agent.certificate()
    }

    fn agent(&self) -> Option<&SpiffeId> {
        self.agent.agent()
    }

    fn prove<'a>(
        &'a self,
        attestor: &'a dyn Attestor,
        evidence: &'a Evidence,
    ) -> BoxFuture<'a, Result<Proven, AttestError>> {
        self.world.replace_rules(Vec::new());
        self.agent.prove(attestor, evidence)
    }

    fn share(&self, attestor: &dyn Attestor, proven: &Proven, identities: u32) -> AgentShare {
        self.agent.share(attestor, proven, identities)
    }
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
    let editing = Editing {
        world: &world,
        agent: world.calling("node-a"),
    };
    let answered = world.issuer.issue(&editing, vec![item(csr(), "pod-token")]).await;
    let mut answered = answered.unwrap();
    issued(answered.outcomes.pop().unwrap());
    assert_eq!(answered.policy_revision, before, "one call, one snapshot");
    assert_eq!(session.next_affected().await, Some(Affected::All));
}
