//! A token that somebody brings: what can be said of it here, and what the API server says.

use std::future::Future;
use std::sync::Arc;

use signet_certs::jws::CompactJws;

use super::Cluster;
use crate::attest::policy::{ReviewedToken, may_be_agent, on_node_of};
use crate::attest::refused::Grounds;
use crate::attest::token_review::TokenKey;
use crate::attest::{AgentIdentity, AttestError, Bearer, RefusedReason};
use crate::kubernetes::api::Purpose;
use crate::kubernetes::budget::{Payer, UnderWay};
use crate::kubernetes::claims::{ClaimsError, ClaimsPolicy, KubernetesClaims};

/// What a token is brought for.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    Node(Bearer<'a>),
    PodOf(&'a AgentIdentity),
}

impl Role<'_> {
    /// Who pays for calls about a token of this node.
    const fn payer(self, node_uid: &str) -> Payer<'_> {
        match self {
            Self::Node(_) => Payer::Node(node_uid),
            Self::PodOf(_) => Payer::PodsOf(node_uid),
        }
    }
}

/// A token that needed no call so far: the caller may bring it, and nothing speaks against it.
pub(super) struct Brought<'a> {
    role: Role<'a>,
    audience: &'a str,
    token: &'a str,
    key: TokenKey,
    known: Known,
}

enum Known {
    Claims(Box<KubernetesClaims>),
    Reviewed(Arc<ReviewedToken>),
}

impl Cluster {
    /// Whatever can be said of a token without a call about it.
    pub(super) async fn bring<'a>(
        &'a self,
        role: Role<'a>,
        token: &'a str,
    ) -> Result<Brought<'a>, AttestError> {
        let audience = match role {
            Role::Node(_) => &self.settings.node_audience,
            Role::PodOf(_) => &self.settings.pod_audience,
        };
        let key = TokenKey::new(audience, token);
        let known = if let Some(review) = self.kept_review(&key, token) {
            if let Role::PodOf(agent) = role {
                on_node_of(agent, &review.node_name, &review.node_uid)?;
            }
            Known::Reviewed(review)
        } else {
            let claims = self.check_locally(role, audience, token).await?;
            match self.vouched_for(role, &claims) {
                Some(review) => {
                    self.keep(key, &review);
                    Known::Reviewed(review)
                }
                None => Known::Claims(Box::new(claims)),
            }
        };
        Ok(Brought {
            role,
            audience,
            token,
            key,
            known,
        })
    }

    fn keep(&self, key: TokenKey, review: &Arc<ReviewedToken>) {
        self.reviewer
            .keep(key, Arc::clone(review), self.watch.pod_count());
    }

    /// The verdict of `judge`, which makes calls, or its last one if that was a refusal moments ago and nothing has changed since:
    /// whoever brings it may bring it, so the refusal is one of the token itself.
    pub(super) async fn unless_refused<T>(
        &self,
        brought: &Brought<'_>,
        judge: impl Future<Output = Result<T, AttestError>>,
    ) -> Result<T, AttestError> {
        let grounds = self.grounds(&brought.known);
        if let Some(reason) = self.refused.get(&brought.key, &grounds) {
            return Err(reason.into());
        }
        let verdict = judge.await;
        if let Err(AttestError::Refused(reason)) = &verdict {
            self.refused.put(brought.key, grounds, reason.clone());
        }
        verdict
    }

    /// Returns when it is the turn of a call about this token. It may have been refused while it waited: then it costs no call.
    pub(super) async fn admit(
        &self,
        brought: &Brought<'_>,
        node_uid: &str,
        purpose: Purpose,
    ) -> Result<UnderWay, AttestError> {
        let admitted = self.api.admit(brought.role.payer(node_uid)).await;
        let under_way = admitted.map_err(|error| self.api.unavailable(purpose, &error))?;
        match self.refused.get(&brought.key, &self.grounds(&brought.known)) {
            Some(reason) => Err(reason.into()),
            None => Ok(under_way),
        }
    }

    fn grounds(&self, known: &Known) -> Grounds {
        let (pod_uid, namespace, account, account_uid) = match known {
            Known::Claims(claims) => {
                let pod = claims.pod.as_ref().map_or("", |pod| pod.uid.as_str());
                let account = &claims.service_account;
                (pod, &claims.namespace, &account.name, &account.uid)
            }
            Known::Reviewed(review) => (
                review.pod_uid.as_str(),
                &review.namespace,
                &review.service_account,
                &review.service_account_uid,
            ),
        };
        Grounds {
            pod: self.watch.pod(pod_uid),
            has_account: self.watch.has_account(namespace, account, account_uid),
            keys: self.keys.revision(),
        }
    }

    /// The API server's word on a token: one given before, or a new one.
    pub(super) async fn review(&self, brought: &Brought<'_>) -> Result<Arc<ReviewedToken>, AttestError> {
        let claims = match &brought.known {
            Known::Reviewed(review) => return Ok(Arc::clone(review)),
            Known::Claims(claims) => claims,
        };
        let node_uid = claims.node.as_ref().map_or("", |node| node.uid.as_str());
        let payer = brought.role.payer(node_uid);
        let review = self
            .reviewer
            .review(brought.key, payer, brought.token, brought.audience, claims)
            .await?;
        self.keep(brought.key, &review);
        Ok(review)
    }

    /// Everything that needs no call about this token: form, claims, signature, and whether the caller may bring it.
    async fn check_locally(
        &self,
        role: Role<'_>,
        audience: &str,
        token: &str,
    ) -> Result<KubernetesClaims, AttestError> {
        let (jws, claims) = parse(token)?;
        let known = self.keys.known().await?;
        let outlived = self.check_claims(&claims, &known.issuers, audience)?;
        let bearer = match role {
            Role::Node(bearer) => bearer,
            Role::PodOf(agent) => Bearer::Agent(&agent.spiffe_id),
        };
        self.keys.verify(&jws, bearer).await?;
        self.check_grace(outlived)?;
        match (role, &claims.node) {
            (Role::Node(_), _) => self.check_agent(&claims)?,
            (Role::PodOf(agent), Some(node)) => on_node_of(agent, &node.name, &node.uid)?,
            // The claims were checked to name a node.
            (Role::PodOf(_), None) => return Err(RefusedReason::from(ClaimsError::NoNode).into()),
        }
        Ok(claims)
    }

    /// The same of a node's token while nobody can be asked, not even for the keys.
    pub(super) fn check_in_outage(&self, token: &str) -> Result<KubernetesClaims, AttestError> {
        let (jws, claims) = parse(token)?;
        let known = self.keys.known_now()?;
        let outlived = self.check_claims(&claims, &known.issuers, &self.settings.node_audience)?;
        self.keys.verify_by_known(&jws)?;
        self.check_grace(outlived)?;
        self.check_agent(&claims)?;
        Ok(claims)
    }

    /// True where the token has expired in an outage.
    fn check_claims(
        &self,
        claims: &KubernetesClaims,
        issuers: &[String],
        audience: &str,
    ) -> Result<bool, RefusedReason> {
        let policy = ClaimsPolicy {
            issuers,
            audience,
            clock_skew: self.settings.clock_skew,
            max_lifetime: self.settings.max_token_lifetime,
        };
        self.check_age(claims, &policy)
    }

    fn check_grace(&self, outlived: bool) -> Result<(), AttestError> {
        if outlived && self.reach.in_grace().is_none() {
            return Err(self.away_for_too_long());
        }
        Ok(())
    }

    fn check_agent(&self, claims: &KubernetesClaims) -> Result<(), RefusedReason> {
        may_be_agent(
            &claims.namespace,
            &claims.service_account.name,
            &self.settings.agents,
        )
    }
}

fn parse(token: &str) -> Result<(CompactJws<'_>, KubernetesClaims), RefusedReason> {
    let jws = CompactJws::parse(token)?;
    let claims = KubernetesClaims::parse(jws.payload())?;
    Ok((jws, claims))
}
