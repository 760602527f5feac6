//! What the API server thinks of a token: TokenReview, with the texts recorded from a real one.

use std::time::SystemTime;

use serde_json::{Value, json};
use signet_certs::time::unix_seconds;

use super::{
    cluster::Cluster,
    keys::Opened,
    objects::{Kind, seconds_of, text},
    reviewed::Authenticated,
};

/// A deleted pod's token lives on this long after its deletion timestamp.
const LEEWAY_SECONDS: i64 = 60;

/// The answer of a TokenReview: `status`.
pub(crate) fn status(cluster: &Cluster, token: &str, asked: &[String]) -> Value {
    match authenticate(cluster, token, asked) {
        Ok(answer) => json!({
            "authenticated": true, "user": answer.user, "audiences": answer.audiences,
        }),
        // Recorded: "authenticated" is absent, not false.
        Err(error) => json!({ "user": {}, "error": error }),
    }
}

/// Checks a bearer token for the asked audiences (none means the API server's own).
///
/// # Errors
/// The text of `status.error`.
pub(crate) fn authenticate(
    cluster: &Cluster,
    token: &str,
    asked: &[String],
) -> Result<Authenticated, String> {
    let own = [cluster.config.issuer.clone()];
    let asked = if asked.is_empty() { &own[..] } else { asked };
    let key = (token.to_owned(), asked.to_vec());
    let now = cluster.now();
    if let Some(answer) = cluster.reviewed.get(&key, now) {
        return Ok(answer);
    }
    let answer = examine(cluster, token, asked, now)?;
    cluster.reviewed.put(key, now, answer.clone());
    Ok(answer)
}

fn examine(
    cluster: &Cluster,
    token: &str,
    asked: &[String],
    now: SystemTime,
) -> Result<Authenticated, String> {
    let claims = match cluster.keys.lock().open(token, &cluster.config.issuer) {
        Opened::Signed(claims) => claims,
        Opened::Foreign => return Err("invalid bearer token".to_owned()),
        Opened::BadSignature => {
            return Err(refused("go-jose/go-jose: error in cryptographic primitive"));
        }
    };
    let audiences = audiences(cluster, &claims, asked)?;
    check_times(&claims, unix_seconds(now)).map_err(refused)?;
    let account = Account::of(&claims).ok_or_else(|| refused("Could not find claims"))?;
    account.check(cluster, unix_seconds(now))?;
    Ok(Authenticated {
        username: account.username(),
        user: account.user(&claims),
        audiences,
    })
}

fn refused(why: impl AsRef<str>) -> String {
    format!("[invalid bearer token, {}]", why.as_ref())
}

fn audiences(cluster: &Cluster, claims: &Value, asked: &[String]) -> Result<Vec<String>, String> {
    let mut has: Vec<String> = match &claims["aud"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many
            .iter()
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    if has.is_empty() {
        // A legacy token speaks for the API server's own audience.
        has.push(cluster.config.issuer.clone());
    }
    let both: Vec<String> = asked.iter().filter(|a| has.contains(a)).cloned().collect();
    if both.is_empty() {
        return Err(refused(format!(
            "token audiences {} is invalid for the target audiences {}",
            quoted(&has),
            quoted(asked)
        )));
    }
    Ok(both)
}

/// Go's `%q` of a list of strings.
fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(" "))
}

fn check_times(claims: &Value, now: i64) -> Result<(), &'static str> {
    if claims["exp"].as_i64().is_some_and(|exp| now > exp) {
        return Err("service account token has expired");
    }
    if claims["nbf"].as_i64().is_some_and(|nbf| now < nbf) {
        return Err("service account token is not valid yet");
    }
    Ok(())
}

/// The service account, and the pod, that a token claims.
struct Account<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    /// Name and UID.
    pod: Option<(&'a str, &'a str)>,
}

impl<'a> Account<'a> {
    fn of(claims: &'a Value) -> Option<Self> {
        if claims.get("kubernetes.io").is_none() {
            return Self::of_legacy(claims);
        }
        let bound = &claims["kubernetes.io"];
        let pod = bound
            .get("pod")
            .map(|pod| (text(pod, "/name"), text(pod, "/uid")));
        Some(Self {
            namespace: text(bound, "/namespace"),
            name: text(bound, "/serviceaccount/name"),
            uid: text(bound, "/serviceaccount/uid"),
            pod,
        })
    }

    /// Tokens kept in secrets have flat claims and no binding to a pod.
    fn of_legacy(claims: &'a Value) -> Option<Self> {
        let claim = |name: &str| claims.get(name)?.as_str();
        Some(Self {
            namespace: claim("kubernetes.io/serviceaccount/namespace")?,
            name: claim("kubernetes.io/serviceaccount/service-account.name")?,
            uid: claim("kubernetes.io/serviceaccount/service-account.uid")?,
            pod: None,
        })
    }

    fn check(&self, cluster: &Cluster, now: i64) -> Result<(), String> {
        let account = cluster
            .get(Kind::ServiceAccount, self.namespace, self.name)
            .ok_or_else(|| refused(format!("serviceaccounts \"{}\" not found", self.name)))?;
        let uid = text(&account, "/metadata/uid");
        if uid != self.uid {
            let claimed = self.uid;
            return Err(refused(format!(
                "service account UID ({uid}) does not match claim ({claimed})"
            )));
        }
        let Some((pod_name, pod_uid)) = self.pod else {
            return Ok(());
        };
        let invalidated = || refused("service account token has been invalidated");
        let pod = cluster
            .get(Kind::Pod, self.namespace, pod_name)
            .ok_or_else(invalidated)?;
        let uid = text(&pod, "/metadata/uid");
        if uid != pod_uid {
            return Err(refused(format!(
                "pod UID ({uid}) does not match service account pod ref claim ({pod_uid})"
            )));
        }
        let deleted = text(&pod, "/metadata/deletionTimestamp");
        if seconds_of(deleted).is_some_and(|at| at + LEEWAY_SECONDS < now) {
            return Err(invalidated());
        }
        Ok(())
    }

    fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    fn user(&self, claims: &Value) -> Value {
        let mut user = json!({
            "username": self.username(),
            "uid": self.uid,
            "groups": [
                "system:serviceaccounts",
                format!("system:serviceaccounts:{}", self.namespace),
                "system:authenticated",
            ],
        });
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                user["extra"][format!("authentication.kubernetes.io/{key}")] = json!([value]);
            }
        };
        let bound = &claims["kubernetes.io"];
        let jti = text(claims, "/jti");
        if !jti.is_empty() {
            extra("credential-id", &format!("JTI={jti}"));
        }
        extra("node-name", text(bound, "/node/name"));
        extra("node-uid", text(bound, "/node/uid"));
        extra("pod-name", text(bound, "/pod/name"));
        extra("pod-uid", text(bound, "/pod/uid"));
        user
    }
}
