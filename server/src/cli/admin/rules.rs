//! What is asked and ordered of rules.

use signet_proto::admin as wire;
use signet_runtime::cli::Answer;

use super::{AdminClient, explain::pod_named, render, said};

/// What is tried of rules.
#[derive(Debug, Default)]
pub struct TestRule {
    /// A pod, `namespace/name`.
    pub pod: Option<String>,
    /// Its cluster.
    pub cluster: Option<String>,
    /// A rule, JSON.
    pub rule: Option<String>,
    /// The rule before which it would come.
    pub before: Option<String>,
}

impl AdminClient {
    /// Rules in force, and those that wait.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn rules(&mut self) -> anyhow::Result<Answer> {
        let response = self
            .inner
            .list_rules(wire::ListRulesRequest {})
            .await
            .map_err(said)?;
        Ok(render::rules(&response.into_inner()))
    }

    /// Puts in force the rules of this revision, which wait for it.
    ///
    /// # Errors
    /// What the server answered: then nothing has changed.
    pub async fn confirm_rules(&mut self, revision: String) -> anyhow::Result<Answer> {
        let request = wire::ConfirmRulesRequest { revision };
        let response = self.inner.confirm_rules(request).await.map_err(said)?;
        Ok(render::confirmed_rules(&response.into_inner()))
    }

    /// Sets a rule, JSON; the answer has a problem where it waits.
    ///
    /// # Errors
    /// What the server answered: then nothing has changed.
    pub async fn set_rule(&mut self, rule_json: String, before: Option<String>) -> anyhow::Result<Answer> {
        let request = wire::SetRuleRequest {
            rule_json,
            before: before.unwrap_or_default(),
        };
        let changed = self.inner.set_rule(request).await.map_err(said)?;
        Ok(render::rule_change(&changed.into_inner()))
    }

    /// Takes a rule of the admins away; the answer has a problem where that waits.
    ///
    /// # Errors
    /// What the server answered: then nothing has changed.
    pub async fn delete_rule(&mut self, name: String) -> anyhow::Result<Answer> {
        let request = wire::DeleteRuleRequest { name };
        let changed = self.inner.delete_rule(request).await.map_err(said)?;
        Ok(render::rule_change(&changed.into_inner()))
    }

    /// Tries; the answer has a problem where the pod gets nothing, and where that is not known, which is said beside it.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn test_rule(&mut self, test: TestRule) -> anyhow::Result<(Answer, bool)> {
        let (namespace, name) = match &test.pod {
            Some(pod) => pod_named(pod)?,
            None => Default::default(),
        };
        let request = wire::TestRuleRequest {
            namespace,
            name,
            cluster: test.cluster.unwrap_or_default(),
            rule_json: test.rule.unwrap_or_default(),
            before: test.before.unwrap_or_default(),
        };
        let tested = self.inner.test_rule(request).await.map_err(said)?;
        let tested = tested.into_inner();
        Ok((render::tested_rule(&tested), render::is_open(&tested)))
    }
}
