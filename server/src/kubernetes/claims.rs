//! The claims of a Kubernetes service account token, and what is asked of them.
//!
//! ```text
//! CompactJws::parse ─▶ KubernetesClaims::parse ─▶ check(policy, now) ─▶ CompactJws::verify(key set)
//! ```
//! Claims may be looked at before the signature, to throw junk away without asking anyone; they count only after it.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;
use signet_certs::dates::{OutsideDates, WhoseClock};
use signet_certs::json;

/// Longest text of a claim, in bytes; names and UIDs of Kubernetes have at most 253.
const MAX_TEXT_BYTES: usize = 1024;
/// End of the year 9999, in Unix seconds.
const MAX_TIME: u64 = 253_402_300_799;
const SUBJECT_PREFIX: &str = "system:serviceaccount:";

/// What a service account token says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KubernetesClaims {
    /// `iss`.
    pub issuer: String,
    /// `sub`: `system:serviceaccount:<namespace>:<service account>`.
    pub subject: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `exp`.
    pub expires: SystemTime,
    /// `nbf`, where given.
    pub not_before: Option<SystemTime>,
    /// `iat`.
    pub issued_at: SystemTime,
    /// `jti`: id of this token.
    pub token_id: String,
    /// Namespace of the service account and of the pod.
    pub namespace: String,
    /// The service account.
    pub service_account: NamedObject,
    /// The pod the token is bound to.
    pub pod: Option<NamedObject>,
    /// The node of that pod, or the node the token is bound to.
    pub node: Option<NamedObject>,
    /// The Secret the token is bound to.
    pub secret: Option<NamedObject>,
}

/// An object of Kubernetes by name and UID.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct NamedObject {
    /// Its name.
    pub name: String,
    /// Its UID, which no second object ever gets.
    pub uid: String,
}

/// What is asked of a token's claims.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimsPolicy<'a> {
    /// Issuers that the cluster is known by.
    pub issuers: &'a [String],
    /// The one audience the token must be for. A token for further ones is refused: whoever else received it could
    /// bring it here, and one token could serve two roles.
    pub audience: &'a str,
    /// How far `nbf` and `iat` may lie in the future.
    pub clock_skew: Duration,
    /// Longest time from `iat` to `exp`.
    pub max_lifetime: Duration,
}

/// Why claims are refused; the text may be shown to whoever brought the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// Not a JSON object of distinct members with the claims of Kubernetes.
    #[error("the token's claims are not those of a Kubernetes service account token: {0}")]
    Malformed(&'static str),
    /// Kept in a Secret, without expiry: the form before bound tokens.
    #[error("the token is a legacy one from a Secret; only tokens bound to a pod are accepted")]
    Legacy,
    /// `iss` is another one.
    #[error("the token was issued by `{0}`, not by this cluster")]
    Issuer(String),
    /// `aud` does not hold ours.
    #[error("the token is not for the audience `{0}`")]
    Audience(String),
    /// `aud` holds ours and more.
    #[error("the token is for several audiences; it must be for `{0}` alone")]
    SeveralAudiences(String),
    /// `exp` has passed.
    #[error("the token {0}")]
    Expired(OutsideDates),
    /// `nbf` or `iat` lies in the future.
    #[error("the token {0}; compare the clocks of this server and the API server")]
    NotYetValid(OutsideDates),
    /// `exp` is too far from `iat`.
    #[error("the token lives longer than the {0} s that are allowed")]
    LivesTooLong(u64),
    /// No pod, or a Secret.
    #[error("the token is not bound to a pod")]
    NotPodBound,
    /// Bound to a pod without saying on which node: a cluster before 1.30.
    #[error("the token does not name the pod's node (Kubernetes 1.30 or later does)")]
    NoNode,
}

impl KubernetesClaims {
    /// Reads the payload of a token.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, ClaimsError> {
        let value = json::parse(payload)
            .map_err(|_| ClaimsError::Malformed("not a JSON object of distinct members"))?;
        let members = value
            .as_object()
            .ok_or(ClaimsError::Malformed("not a JSON object"))?;
        if members
            .keys()
            .any(|name| name.starts_with("kubernetes.io/serviceaccount/"))
        {
            return Err(ClaimsError::Legacy);
        }
        let claims = Wire::deserialize(&value)
            .map_err(|_| ClaimsError::Malformed("a claim is missing or has the wrong type"))?
            .into_claims()?;
        claims.check_texts()?;
        Ok(claims)
    }

    /// Checks issuer, audience, times and binding; says nothing about the signature.
    pub(crate) fn check(&self, policy: &ClaimsPolicy<'_>, now: SystemTime) -> Result<(), ClaimsError> {
        if !policy.issuers.contains(&self.issuer) {
            return Err(ClaimsError::Issuer(self.issuer.clone()));
        }
        if !self.audiences.iter().any(|audience| audience == policy.audience) {
            return Err(ClaimsError::Audience(policy.audience.to_owned()));
        }
        if self.audiences.len() != 1 {
            return Err(ClaimsError::SeveralAudiences(policy.audience.to_owned()));
        }
        self.check_times(policy, now)?;
        if self.secret.is_some() || self.pod.is_none() {
            return Err(ClaimsError::NotPodBound);
        }
        self.node.as_ref().map(|_| ()).ok_or(ClaimsError::NoNode)
    }

    fn check_times(&self, policy: &ClaimsPolicy<'_>, now: SystemTime) -> Result<(), ClaimsError> {
        let dates = OutsideDates {
            not_before: self.not_before.unwrap_or(self.issued_at).max(self.issued_at),
            not_after: self.expires,
            now,
            clock: WhoseClock::Server,
        };
        if self.expires <= now {
            return Err(ClaimsError::Expired(dates));
        }
        if dates.not_before > now + policy.clock_skew {
            return Err(ClaimsError::NotYetValid(dates));
        }
        match self.expires.duration_since(self.issued_at) {
            Ok(lifetime) if lifetime <= policy.max_lifetime => Ok(()),
            _ => Err(ClaimsError::LivesTooLong(policy.max_lifetime.as_secs())),
        }
    }

    fn check_texts(&self) -> Result<(), ClaimsError> {
        let objects = [
            Some(&self.service_account),
            self.pod.as_ref(),
            self.node.as_ref(),
            self.secret.as_ref(),
        ];
        let of_objects = objects
            .into_iter()
            .flatten()
            .flat_map(|object| [&object.name, &object.uid]);
        let texts = [&self.issuer, &self.subject, &self.token_id, &self.namespace];
        for text in texts.into_iter().chain(&self.audiences).chain(of_objects) {
            if text.is_empty() || text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
                return Err(ClaimsError::Malformed(
                    "a text is empty, too long, or has control characters",
                ));
            }
        }
        let expected = format!("{SUBJECT_PREFIX}{}:{}", self.namespace, self.service_account.name);
        if self.subject != expected {
            return Err(ClaimsError::Malformed(
                "its subject is not the service account it names",
            ));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Wire {
    iss: String,
    sub: String,
    #[serde(default)]
    aud: Value,
    exp: u64,
    nbf: Option<u64>,
    iat: u64,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: WireBinding,
}

#[derive(Deserialize)]
struct WireBinding {
    namespace: String,
    serviceaccount: NamedObject,
    pod: Option<NamedObject>,
    node: Option<NamedObject>,
    secret: Option<NamedObject>,
}

impl Wire {
    fn into_claims(self) -> Result<KubernetesClaims, ClaimsError> {
        Ok(KubernetesClaims {
            issuer: self.iss,
            subject: self.sub,
            audiences: audiences(self.aud)?,
            expires: time(self.exp)?,
            not_before: self.nbf.map(time).transpose()?,
            issued_at: time(self.iat)?,
            token_id: self.jti,
            namespace: self.kubernetes.namespace,
            service_account: self.kubernetes.serviceaccount,
            pod: self.kubernetes.pod,
            node: self.kubernetes.node,
            secret: self.kubernetes.secret,
        })
    }
}

/// RFC 7519 §4.1.3: one text or a list of them. An absent one is an empty list and fails later, by name.
fn audiences(value: Value) -> Result<Vec<String>, ClaimsError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(audience) => Ok(vec![audience]),
        list @ Value::Array(_) => {
            serde_json::from_value(list).map_err(|_| ClaimsError::Malformed("aud is not a list of texts"))
        }
        _ => Err(ClaimsError::Malformed(
            "aud is neither a text nor a list of texts",
        )),
    }
}

fn time(seconds: u64) -> Result<SystemTime, ClaimsError> {
    if seconds > MAX_TIME {
        return Err(ClaimsError::Malformed("a time lies beyond the year 9999"));
    }
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}
