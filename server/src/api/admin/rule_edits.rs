//! Rules that admins set, delete and try.

use std::sync::Arc;

use signet_proto::admin as wire;
use tonic::{Request, Status};

use super::{
    super::admin_calls::{author, is_about},
    AdminService,
    rules::{loss, waiting},
};
use crate::{
    attest::{AttestedPod, Found},
    live_rules::{Candidate, Edit, Edited, Effect, Loss, NotEdited, Revision},
    rules::{Facts, GrantedIdentity, IdentityRuleConfig, RuleSet, Verdict},
};

impl AdminService {
    pub(super) async fn rule_set(
        &self,
        request: Request<wire::SetRuleRequest>,
    ) -> Result<wire::RuleChange, Status> {
        let author = author(request.extensions());
        let asked = request.get_ref();
        let (edit, name) = set(&asked.rule_json, &asked.before)?;
        is_about(&request, &format!("rule {name}"));
        let edited = self.rules.edit(edit, author).await.map_err(not_edited)?;
        Ok(change(&edited, edited.rules.warnings_of(&name)))
    }

    pub(super) async fn rule_deleted(
        &self,
        request: Request<wire::DeleteRuleRequest>,
    ) -> Result<wire::RuleChange, Status> {
        let author = author(request.extensions());
        is_about(&request, &format!("rule {}", request.get_ref().name));
        let name = request.into_inner().name;
        let edited = self.rules.edit(Edit::Delete { name }, author).await;
        Ok(change(&edited.map_err(not_edited)?, Vec::new()))
    }

    /// Reads only.
    pub(super) async fn rule_tested(
        &self,
        request: Request<wire::TestRuleRequest>,
    ) -> Result<wire::TestRuleResponse, Status> {
        is_about(&request, &about(request.get_ref()));
        let asked = request.into_inner();
        let pod = match (asked.namespace.as_str(), asked.name.as_str()) {
            ("", "") => None,
            _ => Some(self.pod_of_test(&asked).await?),
        };
        let tried = match asked.rule_json.as_str() {
            "" => None,
            rule => {
                let (edit, name) = set(rule, &asked.before)?;
                Some((self.rules.tried(edit).await.map_err(not_edited)?, name))
            }
        };
        let in_force = match &tried {
            Some((candidate, _)) => candidate.in_force.clone(),
            None => self.rules.current().borrow().clone(),
        };
        let with_rule = tried.as_ref().map(|(candidate, _)| candidate.rules.clone());
        let effect = match &tried {
            Some((candidate, name)) => Some(self.effect(candidate, name).await?),
            None => None,
        };
        Ok(wire::TestRuleResponse {
            pod: pod.map(|pod| tested(&pod, &in_force, with_rule)),
            effect,
        })
    }

    async fn pod_of_test(&self, asked: &wire::TestRuleRequest) -> Result<AttestedPod, Status> {
        let (namespace, name) = (&asked.namespace, &asked.name);
        if namespace.is_empty() || name.is_empty() {
            return Err(Status::invalid_argument("name a pod as NAMESPACE/NAME"));
        }
        let cluster = self.cluster_named(&asked.cluster)?.name;
        match self.attestor.find_pod(&cluster, namespace, name).await {
            Found::There(found) if found.is_over => Err(Status::not_found(format!(
                "the pod {namespace}/{name} has ended: nobody is attested by it any more"
            ))),
            Found::There(found) => Ok(found.pod),
            Found::Nowhere => Err(Status::not_found(format!(
                "the cluster {cluster} has no pod {namespace}/{name}"
            ))),
            Found::Unknown(why) => Err(Status::unavailable(format!(
                "whether there is a pod {namespace}/{name} is not known: {why}"
            ))),
        }
    }

    async fn effect(&self, candidate: &Candidate, name: &str) -> Result<wire::RuleEffect, Status> {
        let earliest = self.clock.time().earliest;
        let effect = candidate.effect(self.store.as_ref(), self.attestor.clone(), earliest);
        let Effect { withdrawn, given } = effect.await.map_err(Status::unavailable)?;
        let mut warnings = candidate.rules.warnings_of(name);
        if given.undecided > 0 {
            warnings.push(format!(
                "what {} pods would get hangs on labels of their namespaces, which are read once a rule in force asks for them",
                given.undecided
            ));
        }
        if let Some(Loss { spiffe_id, holder }) = &given.default_example {
            warnings.push(format!(
                "{} pods that have an identity would get another one first, as their default: {holder} would get {spiffe_id}",
                given.defaults
            ));
        }
        Ok(wire::RuleEffect {
            revision: Revision(candidate.rules.revision()).to_string(),
            given: given.count,
            given_examples: given.examples.iter().map(loss).collect(),
            waits: self.rules.would_wait(&withdrawn),
            withdrawn: withdrawn.count,
            withdrawn_examples: withdrawn.examples.iter().map(loss).collect(),
            truncated: given.truncated,
            warnings,
        })
    }
}

/// The words of whoever calls, for the audit log.
fn about(asked: &wire::TestRuleRequest) -> String {
    match (asked.name.as_str(), asked.rule_json.as_str()) {
        ("", _) => "a rule".to_owned(),
        (name, "") => format!("pod {}/{name}", asked.namespace),
        (name, _) => format!("a rule and pod {}/{name}", asked.namespace),
    }
}

/// The edit, and the name of its rule.
fn set(rule: &str, before: &str) -> Result<(Edit, String), Status> {
    let rule: IdentityRuleConfig =
        serde_json::from_str(rule).map_err(|error| Status::invalid_argument(format!("no rule: {error}")))?;
    let name = rule.name.clone();
    let edit = Edit::Set {
        rule: Box::new(rule),
        before: Some(before.to_owned()).filter(|before| !before.is_empty()),
    };
    Ok((edit, name))
}

fn change(edited: &Edited, warnings: Vec<String>) -> wire::RuleChange {
    wire::RuleChange {
        revision: Revision(edited.changed.revision).to_string(),
        withdrawn: edited.changed.withdrawn,
        waits: edited.waits.as_deref().map(waiting),
        warnings,
    }
}

fn tested(pod: &AttestedPod, in_force: &RuleSet, with_rule: Option<Arc<RuleSet>>) -> wire::TestedPod {
    let verdict = |rules: &RuleSet| verdict(&rules.judge(&Facts::Pod(pod)).verdict);
    wire::TestedPod {
        cluster: pod.cluster.clone(),
        namespace: pod.namespace.clone(),
        name: pod.pod_name.clone(),
        now: Some(verdict(in_force)),
        with_rule: with_rule.as_deref().map(verdict),
    }
}

fn verdict(verdict: &Verdict) -> wire::TestedVerdict {
    let identity = |given: &GrantedIdentity| wire::TestedIdentity {
        spiffe_id: given.spiffe_id.to_string(),
        rule: given.rule.clone(),
    };
    let (word, denied_by) = match verdict {
        Verdict::Identities(_) => ("identities", String::new()),
        Verdict::Denied { rule } => ("denied", rule.clone()),
        Verdict::NoMatch => ("no_match", String::new()),
        Verdict::Undecided => ("undecided", String::new()),
    };
    wire::TestedVerdict {
        verdict: word.to_owned(),
        identities: verdict.identities().iter().map(identity).collect(),
        denied_by,
    }
}

fn not_edited(error: NotEdited) -> Status {
    let text = error.to_string();
    match error {
        NotEdited::SetInFile(_)
        | NotEdited::DeletedInFile(_)
        | NotEdited::Builtin
        | NotEdited::FileFirst { .. } => Status::failed_precondition(text),
        NotEdited::NotSet(_) => Status::not_found(text),
        NotEdited::BeforeItself(_) | NotEdited::Unfit(_) => Status::invalid_argument(text),
        NotEdited::TooMuch | NotEdited::TooOften { .. } => Status::resource_exhausted(text),
        NotEdited::NotYet | NotEdited::NotWeighed(_) | NotEdited::Store(_) | NotEdited::Stopping => {
            Status::unavailable(text)
        }
    }
}
