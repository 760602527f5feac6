//! The rules of attestation, pure: from a review, the token's claims and the live pod to a proof or a reason.
//!
//! The review says what the token was bound to when it was made; the live pod says what is true now. Both must tell
//! the same story, and it must be a story about the calling agent's own node.

mod reason;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};

pub use self::reason::RefusedReason;
use super::{AgentIdentity, AttestedNode, AttestedPod};
use crate::kubernetes::claims::KubernetesClaims;
use crate::kubernetes::pods::{LivePod, PodPhase};

const EXTRA_PREFIX: &str = "authentication.kubernetes.io/";

/// A token that the API server has vouched for, with what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReviewedToken {
    /// Namespace of the service account and the pod.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
    /// UID of the service account.
    pub service_account_uid: String,
    /// Name of the pod.
    pub pod_name: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the pod's node.
    pub node_name: String,
    /// UID of the pod's node.
    pub node_uid: String,
    /// Id of the token.
    pub jti: String,
    /// When the token expires.
    pub expires: SystemTime,
}

impl ReviewedToken {
    /// What a positive review of a token would say, by the token's own claims: a review that says anything else is none. `None`
    /// for a token that is bound to no pod or no node.
    pub(crate) fn of_claims(claims: &KubernetesClaims) -> Option<Self> {
        let (pod, node) = (claims.pod.as_ref()?, claims.node.as_ref()?);
        Some(Self {
            namespace: claims.namespace.clone(),
            service_account: claims.service_account.name.clone(),
            service_account_uid: claims.service_account.uid.clone(),
            pod_name: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            node_name: node.name.clone(),
            node_uid: node.uid.clone(),
            jti: claims.token_id.clone(),
            expires: claims.expires,
        })
    }
}

/// A cluster as it appears in proofs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClusterRef<'a> {
    /// Its name in the server's configuration.
    pub name: &'a str,
    /// UID of its kube-system namespace.
    pub uid: &'a str,
}

/// A service account by namespace and name; written `namespace:name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccountName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for ServiceAccountName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.namespace, self.name)
    }
}

/// Reads the verdict of a TokenReview that asked for `audience`, and holds it against the token's verified claims.
pub(crate) fn read_review(
    status: &TokenReviewStatus,
    audience: &str,
    claims: &KubernetesClaims,
) -> Result<ReviewedToken, RefusedReason> {
    // Kubernetes leaves the field out of a refusal, so absent means false.
    if status.authenticated != Some(true) {
        let said = status.error.as_deref().unwrap_or("no reason given");
        return Err(RefusedReason::NotAuthenticated {
            error: reason::presentable(said),
        });
    }
    let confirmed = status
        .audiences
        .iter()
        .flatten()
        .any(|confirmed| confirmed == audience);
    if !confirmed {
        return Err(RefusedReason::AudienceNotConfirmed {
            audience: audience.to_owned(),
        });
    }
    let user = status.user.as_ref().ok_or(RefusedReason::NotServiceAccount)?;
    let (namespace, service_account) = service_account_of(user)?;
    let reviewed = ReviewedToken {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        service_account_uid: user.uid.clone().unwrap_or_default(),
        pod_name: extra(user, "pod-name")?,
        pod_uid: extra(user, "pod-uid")?,
        node_name: extra(user, "node-name")?,
        node_uid: extra(user, "node-uid")?,
        jti: claims.token_id.clone(),
        expires: claims.expires,
    };
    same_story(user, &reviewed, claims)?;
    Ok(reviewed)
}

/// Proves a pod: the token's pod is alive and everything about it fits, on the calling agent's node.
pub(crate) fn judge_pod(
    cluster: ClusterRef<'_>,
    token: &ReviewedToken,
    live: &LivePod,
    agent: &AgentIdentity,
) -> Result<AttestedPod, RefusedReason> {
    if agent.cluster != cluster.name {
        return Err(other_node(agent, &token.node_name));
    }
    on_node_of(agent, &token.node_name, &token.node_uid)?;
    match_live_pod(token, live)?;
    Ok(AttestedPod {
        cluster: cluster.name.to_owned(),
        cluster_uid: cluster.uid.to_owned(),
        namespace: token.namespace.clone(),
        service_account: token.service_account.clone(),
        pod_name: token.pod_name.clone(),
        pod_uid: token.pod_uid.clone(),
        node_name: token.node_name.clone(),
        node_uid: token.node_uid.clone(),
        labels: live.labels.clone(),
        namespace_labels: None,
        jti: token.jti.clone(),
        expires: token.expires,
        terminating: live.terminating,
        outage: false,
    })
}

/// Whether this is the calling agent's own node, by name and by UID.
pub(crate) fn on_node_of(
    agent: &AgentIdentity,
    node_name: &str,
    node_uid: &str,
) -> Result<(), RefusedReason> {
    if agent.node_uid == node_uid && agent.node_name == node_name {
        return Ok(());
    }
    Err(other_node(agent, node_name))
}

fn other_node(agent: &AgentIdentity, node_name: &str) -> RefusedReason {
    RefusedReason::OtherNode {
        pod_node: node_name.to_owned(),
        agent_node: agent.node_name.clone(),
    }
}

/// Whether a service account may act as a node agent.
pub(crate) fn may_be_agent(
    namespace: &str,
    service_account: &str,
    allowed: &[ServiceAccountName],
) -> Result<(), RefusedReason> {
    if allowed
        .iter()
        .any(|entry| entry.namespace == namespace && entry.name == service_account)
    {
        return Ok(());
    }
    Err(RefusedReason::AgentNotAllowed {
        service_account: format!("{namespace}:{service_account}"),
    })
}

/// Proves a node: an allowed agent's pod is alive on it, and `live_node_uid` is the UID the node has now, if it exists.
pub(crate) fn judge_node(
    cluster: ClusterRef<'_>,
    token: &ReviewedToken,
    live: &LivePod,
    live_node_uid: Option<&str>,
    allowed: &[ServiceAccountName],
) -> Result<AttestedNode, RefusedReason> {
    may_be_agent(&token.namespace, &token.service_account, allowed)?;
    match_live_pod(token, live)?;
    same_node(token, live_node_uid)?;
    Ok(AttestedNode {
        cluster: cluster.name.to_owned(),
        cluster_uid: cluster.uid.to_owned(),
        node_name: token.node_name.clone(),
        node_uid: token.node_uid.clone(),
        namespace: token.namespace.clone(),
        service_account: token.service_account.clone(),
        pod_name: token.pod_name.clone(),
        pod_uid: token.pod_uid.clone(),
        jti: token.jti.clone(),
        expires: token.expires,
    })
}

/// Whether the token's node is the one that has its name now; `live_node_uid` is that one's UID, if it exists.
pub(crate) fn same_node(token: &ReviewedToken, live_node_uid: Option<&str>) -> Result<(), RefusedReason> {
    let node = token.node_name.clone();
    match live_node_uid {
        None => Err(RefusedReason::NodeGone { node }),
        Some(uid) if uid != token.node_uid => Err(RefusedReason::NodeReplaced { node }),
        Some(_) => Ok(()),
    }
}

/// Whether the live pod is the one the token is bound to, and neither over nor elsewhere.
///
/// A pod being deleted is still there and passes.
pub(crate) fn match_live_pod(token: &ReviewedToken, live: &LivePod) -> Result<(), RefusedReason> {
    let pod = || format!("{}/{}", token.namespace, token.pod_name);
    if *live.uid != *token.pod_uid {
        return Err(RefusedReason::PodReplaced { pod: pod() });
    }
    if *live.namespace != *token.namespace || *live.name != *token.pod_name {
        return Err(RefusedReason::Contradiction("the live pod has another name"));
    }
    if *live.service_account != *token.service_account {
        return Err(RefusedReason::OtherServiceAccount { pod: pod() });
    }
    if *live.node_name != *token.node_name {
        return Err(RefusedReason::PodElsewhere {
            pod: pod(),
            node: token.node_name.clone(),
        });
    }
    match live.phase {
        PodPhase::Failed | PodPhase::Succeeded => Err(RefusedReason::PodFinished { pod: pod() }),
        PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => Ok(()),
    }
}

fn service_account_of(user: &UserInfo) -> Result<(&str, &str), RefusedReason> {
    let username = user.username.as_deref().unwrap_or_default();
    let parts = username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    match parts {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains(':') => {
            Ok((namespace, name))
        }
        _ => Err(RefusedReason::NotServiceAccount),
    }
}

/// Exactly one value of one extra; a second one would leave open which the token is bound to.
fn extra(user: &UserInfo, name: &'static str) -> Result<String, RefusedReason> {
    let key = format!("{EXTRA_PREFIX}{name}");
    let values = user
        .extra
        .as_ref()
        .and_then(|extras| extras.get(&key))
        .map(Vec::as_slice);
    match values {
        Some([value]) if !value.is_empty() => Ok(value.clone()),
        Some([_, _, ..]) => Err(RefusedReason::AmbiguousBinding { extra: name }),
        _ => Err(RefusedReason::NotBound { extra: name }),
    }
}

/// The API server and the token itself must agree on everything both speak of.
fn same_story(
    user: &UserInfo,
    reviewed: &ReviewedToken,
    claims: &KubernetesClaims,
) -> Result<(), RefusedReason> {
    let pod = claims
        .pod
        .as_ref()
        .map(|pod| (pod.name.as_str(), pod.uid.as_str()));
    let node = claims
        .node
        .as_ref()
        .map(|node| (node.name.as_str(), node.uid.as_str()));
    let account = (
        claims.service_account.name.as_str(),
        claims.service_account.uid.as_str(),
    );
    if claims.namespace != reviewed.namespace
        || account
            != (
                reviewed.service_account.as_str(),
                reviewed.service_account_uid.as_str(),
            )
    {
        return Err(RefusedReason::Contradiction(
            "token and review name different service accounts",
        ));
    }
    if pod != Some((reviewed.pod_name.as_str(), reviewed.pod_uid.as_str())) {
        return Err(RefusedReason::Contradiction(
            "token and review name different pods",
        ));
    }
    if node != Some((reviewed.node_name.as_str(), reviewed.node_uid.as_str())) {
        return Err(RefusedReason::Contradiction(
            "token and review name different nodes",
        ));
    }
    let credential = user
        .extra
        .as_ref()
        .and_then(|extras| extras.get(&format!("{EXTRA_PREFIX}credential-id")));
    let expected = format!("JTI={}", claims.token_id);
    if credential.is_some_and(|ids| ids.iter().any(|id| *id != expected)) {
        return Err(RefusedReason::Contradiction(
            "token and review name different token ids",
        ));
    }
    Ok(())
}
