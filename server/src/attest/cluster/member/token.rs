//! A token that somebody brings: what can be said of it here, and what the API server says.

use std::sync::Arc;

use signet_certs::jws::{ClaimsError, ClaimsPolicy, CompactJws, KubernetesClaims};

use super::Cluster;
use crate::attest::budget::Payer;
use crate::attest::policy::{ReviewedToken, may_be_agent, on_node_of};
use crate::attest::token_review::TokenKey;
use crate::attest::{AgentIdentity, AttestError, RefusedReason};

/// What a token is brought for.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    Node,
    PodOf(&'a AgentIdentity),
}

impl Role<'_> {
    /// Who pays for calls about a token of this node.
    pub(super) const fn payer(self, node_uid: &str) -> Payer<'_> {
        match self {
            Self::Node => Payer::Node(node_uid),
            Self::PodOf(_) => Payer::PodsOf(node_uid),
        }
    }
}

impl Cluster {
    /// The API server's word on a token: one given before, or a new one after the local checks.
    pub(super) async fn review(
        &self,
        role: Role<'_>,
        token: &str,
    ) -> Result<Arc<ReviewedToken>, AttestError> {
        let audience = match role {
            Role::Node => &self.settings.node_audience,
            Role::PodOf(_) => &self.settings.pod_audience,
        };
        let key = TokenKey::new(audience, token);
        if let Some(review) = self.kept_review(&key, token) {
            return Ok(review);
        }
        let claims = self.check_locally(role, audience, token).await?;
        let node_uid = claims.node.as_ref().map_or("", |node| node.uid.as_str());
        let payer = role.payer(node_uid);
        let review = match self.vouched_for(role, &claims) {
            Some(review) => review,
            None => self.reviewer.review(key, payer, token, audience, &claims).await?,
        };
        self.reviewer
            .keep(key, Arc::clone(&review), self.watch.pod_count());
        Ok(review)
    }

    /// Everything that needs no call about this token: form, claims, signature, and whether the caller may bring it.
    pub(super) async fn check_locally(
        &self,
        role: Role<'_>,
        audience: &str,
        token: &str,
    ) -> Result<KubernetesClaims, AttestError> {
        let jws = CompactJws::parse(token).map_err(RefusedReason::from)?;
        let claims = KubernetesClaims::parse(jws.payload()).map_err(RefusedReason::from)?;
        let known = self.keys.known().await?;
        let policy = ClaimsPolicy {
            issuers: &known.issuers,
            audience,
            clock_skew: self.settings.clock_skew,
            max_lifetime: self.settings.max_token_lifetime,
        };
        let outlived = self.check_age(&claims, &policy)?;
        self.keys.verify(&jws).await?;
        if outlived && self.reach.in_grace().is_none() {
            return Err(self.away_for_too_long());
        }
        match (role, &claims.node) {
            (Role::Node, _) => {
                may_be_agent(
                    &claims.namespace,
                    &claims.service_account.name,
                    &self.settings.agents,
                )?;
            }
            (Role::PodOf(agent), Some(node)) => on_node_of(agent, &node.name, &node.uid)?,
            // The claims were checked to name a node.
            (Role::PodOf(_), None) => return Err(RefusedReason::from(ClaimsError::NoNode).into()),
        }
        Ok(claims)
    }
}
