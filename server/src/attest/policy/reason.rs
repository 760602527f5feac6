//! Why a token is refused, in words that may be shown to whoever brought it.

use signet_certs::jws::JwsError;
use signet_runtime::error::one_line;

use crate::kubernetes::claims::ClaimsError;

/// Longest text of an API server that is passed on, in characters.
const MAX_FOREIGN_TEXT: usize = 300;
/// Longer runs of token characters are cut out of foreign text: they could be a token.
const MAX_RUN: usize = 63;

/// Why a token proves nothing. A verdict: the same token meets the same answer until the world changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReason {
    /// The agent or its request names a cluster that is not configured.
    #[error("no cluster `{cluster}` is configured on this server")]
    UnknownCluster {
        /// The name, shortened.
        cluster: String,
    },
    /// Not a token, or not signed by the cluster.
    #[error("the token is refused: {0}")]
    Token(#[from] JwsError),
    /// Issuer, audience, times or binding are wrong.
    #[error("{0}")]
    Claims(#[from] ClaimsError),
    /// The API server does not vouch for it.
    #[error("the API server does not accept the token: {error}")]
    NotAuthenticated {
        /// What it said, bounded and without anything that looks like a token.
        error: String,
    },
    /// Authenticated, but not for us.
    #[error("the API server did not confirm that the token is for the audience `{audience}`")]
    AudienceNotConfirmed {
        /// The audience asked for.
        audience: String,
    },
    /// A user, a node, or something unreadable.
    #[error("the token is not one of a service account")]
    NotServiceAccount,
    /// An extra of the review is absent.
    #[error("the token is not bound to a pod on a node: the review has no {extra}")]
    NotBound {
        /// Which one.
        extra: &'static str,
    },
    /// An extra of the review occurs more than once.
    #[error("the review of the token has more than one {extra}")]
    AmbiguousBinding {
        /// Which one.
        extra: &'static str,
    },
    /// Two sources tell different stories.
    #[error("the token is refused: {0}")]
    Contradiction(&'static str),
    /// The pod does not exist any more.
    #[error("the pod {pod} is gone")]
    PodGone {
        /// `namespace/name`.
        pod: String,
    },
    /// Another pod of that name lives now.
    #[error("the pod {pod} that the token is bound to is gone; another one has its name now")]
    PodReplaced {
        /// `namespace/name`.
        pod: String,
    },
    /// The live pod runs under another service account.
    #[error("the pod {pod} does not run as the token's service account")]
    OtherServiceAccount {
        /// `namespace/name`.
        pod: String,
    },
    /// The live pod is bound to another node than the token, or to none yet.
    #[error("the pod {pod} is not bound to the node {node} that its token names")]
    PodElsewhere {
        /// `namespace/name`.
        pod: String,
        /// The token's node.
        node: String,
    },
    /// Failed or Succeeded.
    #[error("the pod {pod} has ended")]
    PodFinished {
        /// `namespace/name`.
        pod: String,
    },
    /// The pod runs on a node that is not the calling agent's.
    #[error("the token's pod is on the node {pod_node}, the calling agent on {agent_node}")]
    OtherNode {
        /// The token's node.
        pod_node: String,
        /// The agent's node.
        agent_node: String,
    },
    /// The service account is on no allow list for agents.
    #[error(
        "the service account {service_account} may not act as a node agent; \
         list it under `agent_service_accounts` of the cluster if it should"
    )]
    AgentNotAllowed {
        /// `namespace:name`.
        service_account: String,
    },
    /// The node does not exist any more.
    #[error("the node {node} does not exist any more")]
    NodeGone {
        /// Its name.
        node: String,
    },
    /// A node of that name was made anew.
    #[error("the node {node} that the token names was replaced by another one of that name")]
    NodeReplaced {
        /// Its name.
        node: String,
    },
}

impl RefusedReason {
    /// A short stable word for metrics and audit lines.
    pub fn label(&self) -> &'static str {
        match self {
            Self::UnknownCluster { .. } => "unknown_cluster",
            Self::Token(_) => "bad_token",
            Self::Claims(ClaimsError::Expired(_)) => "expired",
            Self::Claims(ClaimsError::Audience(_) | ClaimsError::SeveralAudiences(_))
            | Self::AudienceNotConfirmed { .. } => "wrong_audience",
            Self::Claims(ClaimsError::NotPodBound | ClaimsError::Legacy | ClaimsError::NoNode)
            | Self::NotBound { .. } => "not_pod_bound",
            Self::Claims(_) => "bad_claims",
            Self::NotAuthenticated { .. } => "not_authenticated",
            Self::NotServiceAccount => "not_service_account",
            Self::AmbiguousBinding { .. } | Self::Contradiction(_) => "contradiction",
            Self::PodGone { .. } => "pod_gone",
            Self::PodReplaced { .. } => "pod_replaced",
            Self::OtherServiceAccount { .. } => "other_service_account",
            Self::PodElsewhere { .. } => "pod_elsewhere",
            Self::PodFinished { .. } => "pod_finished",
            Self::OtherNode { .. } => "other_node",
            Self::AgentNotAllowed { .. } => "agent_not_allowed",
            Self::NodeGone { .. } => "node_gone",
            Self::NodeReplaced { .. } => "node_replaced",
        }
    }

    /// Whether a fresher look at the pod could lead to another verdict.
    pub(in crate::attest) fn rests_on_live_pod(&self) -> bool {
        matches!(
            self,
            Self::PodReplaced { .. }
                | Self::OtherServiceAccount { .. }
                | Self::PodElsewhere { .. }
                | Self::PodFinished { .. }
                | Self::Contradiction(_)
        )
    }
}

/// Makes text of an API server fit to be shown: one bounded line in which nothing is long enough to be a token.
pub(super) fn presentable(text: &str) -> String {
    let mut shown = String::new();
    for word in text.split_inclusive(|character: char| !is_token_character(character)) {
        let (run, rest) = word.split_at(word.trim_end_matches(|c| !is_token_character(c)).len());
        shown.push_str(if run.len() > MAX_RUN { "…" } else { run });
        shown.push_str(&one_line(rest));
    }
    match shown.char_indices().nth(MAX_FOREIGN_TEXT) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

fn is_token_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '+' | '/' | '=')
}
