//! The endpoints that review tokens and make them.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde_json::{Value, json};
use signet_certs::time::rfc3339;

use super::{
    cluster::Cluster,
    objects::{Kind, text},
    review,
    status::{answer, bad_request, failure, not_found},
};

/// TokenRequest refuses to make shorter ones.
const SHORTEST_TOKEN_SECONDS: u64 = 600;

/// TokenReview.
pub(crate) async fn token_review(State(cluster): State<Arc<Cluster>>, body: Bytes) -> Response {
    let Ok(review) = serde_json::from_slice::<Value>(&body) else {
        return bad_request("the body of the request is not valid JSON");
    };
    let spec = &review["spec"];
    let token = text(spec, "/token");
    if token.is_empty() {
        return bad_request("token is required for TokenReview in authentication");
    }
    let answered = json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
        "spec": spec,
        "status": review::status(&cluster, token, &strings(&spec["audiences"])),
    });
    answer(StatusCode::CREATED, &answered)
}

/// TokenRequest.
pub(crate) async fn token_request(
    State(cluster): State<Arc<Cluster>>,
    Path((namespace, name)): Path<(String, String)>,
    Json(request): Json<Value>,
) -> Response {
    let Some(account) = cluster.get(Kind::ServiceAccount, &namespace, &name) else {
        return not_found("serviceaccounts", &name);
    };
    let spec = &request["spec"];
    let pod = match bound_pod(&cluster, &namespace, &name, spec) {
        Ok(pod) => pod,
        Err(refusal) => return *refusal,
    };
    let mut audiences = strings(&spec["audiences"]);
    if audiences.is_empty() {
        audiences.push(cluster.config.issuer.clone());
    }
    let seconds = spec["expirationSeconds"].as_u64().unwrap_or(3600);
    if seconds < SHORTEST_TOKEN_SECONDS {
        let message = format!(
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: {seconds}: may not specify a duration less than 10 minutes"
        );
        return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &message);
    }
    let life = Duration::from_secs(seconds);
    let claims = cluster.claims(&namespace, &name, pod.as_ref(), &audiences, life);
    let Ok(token) = cluster.sign(&Default::default(), &claims) else {
        let code = StatusCode::INTERNAL_SERVER_ERROR;
        return failure(code, "InternalError", "failed to generate token");
    };
    let mut spec = spec.clone();
    spec["audiences"] = json!(audiences);
    spec["expirationSeconds"] = json!(seconds);
    let now = cluster.now();
    let answered = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": name, "namespace": namespace, "uid": account["metadata"]["uid"],
            "creationTimestamp": rfc3339(now),
        },
        "spec": spec,
        "status": { "token": token, "expirationTimestamp": rfc3339(now + life) },
    });
    answer(StatusCode::CREATED, &answered)
}

/// The pod a token shall be bound to: it must exist, with that UID, under that service account.
fn bound_pod(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    spec: &Value,
) -> Result<Option<Value>, Box<Response>> {
    let Some(reference) = spec.get("boundObjectRef").filter(|r| !r.is_null()) else {
        return Ok(None);
    };
    if text(reference, "/kind") != "Pod" {
        return Err(Box::new(bad_request("cannot bind token to that kind of object")));
    }
    let name = text(reference, "/name");
    let pod = cluster
        .get(Kind::Pod, namespace, name)
        .ok_or_else(|| Box::new(not_found("pods", name)))?;
    if text(&pod, "/spec/serviceAccountName") != account {
        let message =
            "cannot bind token for serviceaccount to pod running with different serviceaccount name";
        return Err(Box::new(bad_request(message)));
    }
    let (uid, asked) = (text(&pod, "/metadata/uid"), text(reference, "/uid"));
    if !asked.is_empty() && asked != uid {
        let message = format!(
            "Operation cannot be fulfilled on Pod \"{name}\": the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Box::new(failure(StatusCode::CONFLICT, "Conflict", &message)));
    }
    Ok(Some(pod))
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}
