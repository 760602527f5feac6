//! Why a pod gets what it gets, and who could have an identity: what the parts of the server know, gathered. Nothing is changed, no
//! token is reviewed, and of an API server one pod is asked at most, which the watch does not show.

mod agent;
mod convert;
mod id;
mod pod;
mod rules;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use signet_certs::{id::SpiffeId, time::unix_millis};
use signet_proto::admin as wire;
use signet_runtime::ready::{Level, Standing as NotReady};
use tonic::Status;

use super::{AdminService, convert as rows, store_status};
use crate::{
    agents::AgentStatus,
    attest::{ClusterHealth, Found},
    issuer::RefusedOnce,
    rules::{Account, Facts},
    store::{AgentRow, Denial, LedgerRow, Spent, Subject, SvidFilter},
};

/// Rules of one answer.
const MOST_RULES: usize = 10;
/// Certificates of one answer.
const MOST_SVIDS: u32 = 5;
/// Longest name that anything in Kubernetes has.
const LONGEST_NAME: usize = 253;

/// All that is known of a pod and of what it needs.
struct Seen {
    now: SystemTime,
    namespace: String,
    name: String,
    cluster: ClusterHealth,
    found: Found,
    account: Option<Account>,
    /// How many rules there are.
    rules: usize,
    /// What of the rules file is not in force; empty when all is.
    rules_apart: String,
    agent: Option<(AgentRow, Option<AgentStatus>)>,
    /// In force, against an identity of the pod or the agent of its node.
    denials: Vec<Denial>,
    /// Newest first.
    svids: Vec<LedgerRow>,
    /// Its unexpired and unrevoked certificates, and how many displace no other.
    live: (usize, u32),
    spent: Option<Spent>,
    refusals: Vec<RefusedOnce>,
    not_ready: Vec<NotReady>,
}

impl Seen {
    /// The pod, or the agent of its node, as denials hit it by this identity.
    fn subject<'a>(&'a self, id: &'a SpiffeId) -> Subject<'a> {
        let pod = match &self.found {
            Found::There(there) => Some(&there.pod),
            Found::Nowhere | Found::Unknown(_) => None,
        };
        let agent = self.agent.as_ref().map(|(row, _)| row);
        Subject {
            spiffe_id: id,
            cluster_uid: self.cluster.uid.as_deref().unwrap_or_default(),
            pod_uid: pod.filter(|_| !id.is_agent()).map_or("", |pod| &pod.pod_uid),
            node_uid: agent.map_or("", |row| &row.node_uid),
            node_name: pod.map_or("", |pod| &pod.node_name),
        }
    }

    /// The identity that the pod would get first.
    fn default_id(&self) -> Option<&SpiffeId> {
        let given = self.account.as_ref()?.verdict.identities().first();
        given.map(|identity| &identity.spiffe_id)
    }

    fn pod(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A finding with what to do about it.
fn finding(about: &str, state: &str, says: impl Into<String>, remedy: impl Into<String>) -> wire::Finding {
    wire::Finding {
        about: about.to_owned(),
        state: state.to_owned(),
        says: says.into(),
        remedy: remedy.into(),
    }
}

/// All is as it should be.
fn ok(about: &str, says: impl Into<String>) -> wire::Finding {
    finding(about, "ok", says, "")
}

/// Worth knowing, and nothing has to be done about it.
fn remark(about: &str, says: impl Into<String>) -> wire::Finding {
    finding(about, "note", says, "")
}

impl AdminService {
    pub(super) async fn explained_pod(
        &self,
        request: wire::ExplainPodRequest,
    ) -> Result<wire::ExplainPodResponse, Status> {
        let is_name = |name: &str| !name.is_empty() && name.len() <= LONGEST_NAME;
        if !is_name(&request.namespace) || !is_name(&request.name) {
            return Err(Status::invalid_argument("name a pod as NAMESPACE/NAME"));
        }
        let cluster = self.cluster_named(&request.cluster)?;
        let seen = self.seen(cluster, request.namespace, request.name).await?;
        let findings = pod::findings(&seen);
        let (verdict, granted) = pod::verdict(&seen, &findings);
        Ok(convert::pod(&seen, findings, verdict, granted))
    }

    /// The cluster of this name, or the only one.
    pub(super) fn cluster_named(&self, name: &str) -> Result<ClusterHealth, Status> {
        let mut clusters = self.attestor.clusters();
        let names: Vec<_> = clusters.iter().map(|cluster| cluster.name.clone()).collect();
        let names = names.join(", ");
        if name.is_empty() {
            return match clusters.len() {
                1 => Ok(clusters.remove(0)),
                0 => Err(Status::failed_precondition(
                    "this server has no clusters, so it knows no pods",
                )),
                _ => Err(Status::invalid_argument(format!(
                    "say in which cluster, by --cluster: {names}"
                ))),
            };
        }
        let mut clusters = clusters.into_iter();
        let found = clusters.find(|cluster| cluster.name == name);
        found.ok_or_else(|| {
            Status::not_found(format!(
                "there is no cluster of the name {name:?}; there are: {names}"
            ))
        })
    }

    async fn seen(&self, cluster: ClusterHealth, namespace: String, name: String) -> Result<Seen, Status> {
        let found = self.attestor.find_pod(&cluster.name, &namespace, &name).await;
        let rules = self.rules.current().borrow().clone();
        let there = match &found {
            Found::There(there) => Some(&there.pod),
            Found::Nowhere | Found::Unknown(_) => None,
        };
        let account = there.map(|pod| rules.account(&Facts::Pod(pod), MOST_RULES));
        let agent = match there {
            Some(pod) => self.agent_of(&cluster.name, &pod.node_name).await?,
            None => None,
        };
        let (pod_uid, filter) = match there {
            Some(pod) => (pod.pod_uid.clone(), pod.pod_uid.clone()),
            None => (String::new(), format!("{namespace}/{name}")),
        };
        let time = self.clock.time();
        let mut seen = Seen {
            now: time.now,
            namespace,
            name,
            cluster,
            account,
            rules: rules.rules().count(),
            rules_apart: self.rules_apart(),
            agent,
            denials: Vec::new(),
            svids: self.last_of(&filter, None).await?,
            live: (0, self.issuer.max_live()),
            spent: None,
            refusals: Vec::new(),
            not_ready: self.readiness.standing(Level::Issue),
            found,
        };
        let live = self.last_of(&filter, Some(time.earliest)).await?;
        let id = seen.default_id().cloned();
        let of_id = |row: &&LedgerRow| Some(&row.workload.spiffe_id) == id.as_ref();
        seen.live.0 = live.iter().filter(of_id).count();
        if let Some((agent, _)) = &seen.agent {
            seen.refusals = self.issuer.refused_lately(&pod_uid, &agent.spiffe_id);
            seen.spent = id.and_then(|id| self.issuer.spent_by(&id, &pod_uid, &agent.spiffe_id));
        }
        let given = seen
            .account
            .iter()
            .flat_map(|account| account.verdict.identities());
        let ids = given.map(|identity| identity.spiffe_id.clone());
        let ids: Vec<_> = ids
            .chain(seen.agent.iter().map(|(row, _)| row.spiffe_id.clone()))
            .collect();
        let subjects: Vec<_> = ids.iter().map(|id| seen.subject(id)).collect();
        let denials = self.denials_of(&subjects).await?;
        seen.denials = denials;
        Ok(seen)
    }

    /// The agent of a node: the one with the newest certificate, where the node was made anew.
    async fn agent_of(
        &self,
        cluster: &str,
        node_name: &str,
    ) -> Result<Option<(AgentRow, Option<AgentStatus>)>, Status> {
        let rows = self.store.agents().await.map_err(store_status)?;
        let of_node = rows
            .into_iter()
            .filter(|row| row.cluster == cluster && row.node_name == node_name && !node_name.is_empty());
        let newest = of_node.max_by_key(|row| (row.attested_at, row.expires_at));
        Ok(newest.map(|row| {
            let status = self.agents.status(&row.spiffe_id);
            (row, status)
        }))
    }

    async fn last_of(&self, pod: &str, live_at: Option<SystemTime>) -> Result<Vec<LedgerRow>, Status> {
        let filter = SvidFilter {
            pod: Some(pod.to_owned()),
            live_at,
            limit: if live_at.is_some() { 1_000 } else { MOST_SVIDS },
            ..SvidFilter::default()
        };
        Ok(self.store.list(filter).await.map_err(store_status)?.rows)
    }

    /// Denials in force against one of these.
    async fn denials_of(&self, subjects: &[Subject<'_>]) -> Result<Vec<Denial>, Status> {
        let earliest = self.clock.time().earliest;
        let denials = self.store.denials(false, earliest).await.map_err(store_status)?;
        let hits = |denial: &Denial| {
            let hit = subjects.iter().any(|subject| denial.target.hits(subject));
            denial.is_active(earliest) && hit
        };
        Ok(denials.into_iter().filter(hits).collect())
    }

    /// What of the rules file is not in force.
    fn rules_apart(&self) -> String {
        let standing = self.rules_standing();
        match standing.waiting {
            Some(waiting) => format!(
                "others wait for `signet-server rule confirm {}`",
                waiting.revision
            ),
            None if standing.problem.is_empty() => String::new(),
            None => format!("those of the file are not in force: {}", standing.problem),
        }
    }

    pub(super) async fn explained_id(&self, text: &str) -> Result<wire::ExplainIdResponse, Status> {
        let id = self.id_or_path(text)?;
        if id.is_trust_domain() {
            return Err(Status::invalid_argument(
                "that is the whole trust domain; name one identity",
            ));
        }
        let rules = self.rules.current().borrow().clone();
        let mut could = rules.could_give(&id);
        // Those that give it first.
        could.sort_by_key(|could| could.never.is_some());
        let (pods, pods_truncated) = id::holders(self.attestor.clone(), rules, &could, &id).await;
        let filter = SvidFilter {
            spiffe_id: Some(id.clone()),
            limit: MOST_SVIDS,
            ..SvidFilter::default()
        };
        let page = self.store.list(filter).await.map_err(store_status)?;
        let svids: Vec<_> = page.rows.iter().map(rows::svid).collect();
        let denials = self.denials_of(&[Subject::of(&id)]).await?;
        let looked_at = id::LookedAt {
            id: &id,
            could: &could,
            pods: &pods,
            truncated: pods_truncated,
            denials: &denials,
            svids: &svids,
            rules_apart: &self.rules_apart(),
        };
        Ok(wire::ExplainIdResponse {
            findings: id::findings(&looked_at),
            verdict: id::verdict(&looked_at),
            rules: could.iter().take(MOST_RULES).map(convert::could).collect(),
            pods,
            pods_truncated,
            denials: denials.iter().map(rows::denial).collect(),
            svids,
            now_unix_ms: unix_millis(self.clock.now()),
            spiffe_id: id.to_string(),
        })
    }
}
