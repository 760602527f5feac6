//! The API server's endpoints.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Query as QueryOf, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
    routing::{get, post},
};
use serde_json::json;

use super::{
    cluster::Cluster,
    faults::{Endpoint, Fault},
    objects::Kind,
    review,
    status::{answer, failure, forbidden, gone, not_found, text_answer, too_many_requests, unauthorized},
    tokens::{token_request, token_review},
    watches::{Query, is_watch, list_or_watch},
};

/// The one type in which the API server gives its key set; whoever accepts only JSON gets 406.
const JWK_SET: &str = "application/jwk-set+json";

type Shared = State<Arc<Cluster>>;

/// Routes, behind faults and access control.
pub(crate) fn router(cluster: &Arc<Cluster>) -> Router {
    let guard = axum::middleware::from_fn_with_state(Arc::clone(cluster), guard);
    let dated = axum::middleware::map_response_with_state(Arc::clone(cluster), dated);
    Router::new()
        .route("/openid/v1/jwks", get(jwks))
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/version", get(version))
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(token_review))
        .route("/api/v1/{kind}", get(list_all))
        .route("/api/v1/{kind}/{name}", get(get_cluster_wide))
        .route("/api/v1/namespaces/{namespace}/{kind}", get(list_in))
        .route("/api/v1/namespaces/{namespace}/{kind}/{name}", get(get_one))
        .route(
            "/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            post(token_request),
        )
        .fallback(unknown)
        .layer(guard)
        .layer(dated)
        .with_state(Arc::clone(cluster))
}

/// What it says the time is, in each answer.
async fn dated(State(cluster): Shared, mut response: Response) -> Response {
    if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(cluster.now())) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

async fn unknown() -> Response {
    let message = "the server could not find the requested resource";
    failure(StatusCode::NOT_FOUND, "NotFound", message)
}

/// Which endpoint a path belongs to.
fn endpoint(path: &str, watch: bool) -> Option<Endpoint> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let kind = match parts.as_slice() {
        ["openid", "v1", "jwks"] => return Some(Endpoint::Jwks),
        [".well-known", ..] => return Some(Endpoint::Discovery),
        ["version"] => return Some(Endpoint::Version),
        [.., "tokenreviews"] => return Some(Endpoint::TokenReviews),
        [.., "serviceaccounts", _, "token"] => return Some(Endpoint::TokenRequests),
        ["api", "v1", "namespaces", _, kind, ..] | ["api", "v1", kind, ..] => *kind,
        _ => return None,
    };
    match kind {
        "pods" if watch => Some(Endpoint::PodWatches),
        "pods" => Some(Endpoint::Pods),
        "serviceaccounts" => Some(Endpoint::ServiceAccounts),
        "nodes" => Some(Endpoint::Nodes),
        "namespaces" => Some(Endpoint::Namespaces),
        _ => None,
    }
}

/// Counts the request, applies a fault, checks who asks.
async fn guard(
    State(cluster): Shared,
    QueryOf(query): QueryOf<Query>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let Some(endpoint) = endpoint(path, is_watch(&query)) else {
        return next.run(request).await;
    };
    let posted = request.method() == Method::POST;
    let mut changes = cluster.fault_changes.subscribe();
    let fault = cluster.faults.on_request(endpoint);
    let user = "system:serviceaccount:signet:signet-server";
    match fault {
        None => {}
        Some(Fault::Slow { delay_ms }) => {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        Some(Fault::Unauthorized) => return unauthorized(),
        Some(Fault::Forbidden) => return forbid(endpoint, user),
        Some(Fault::TooManyRequests { retry_after_seconds }) => {
            return too_many_requests(retry_after_seconds);
        }
        Some(Fault::InternalError) => {
            let code = StatusCode::INTERNAL_SERVER_ERROR;
            let message = "Internal error occurred: etcdserver: request timed out";
            return failure(code, "InternalError", message);
        }
        Some(Fault::Gone) => return answer(StatusCode::GONE, &gone(1, 2)),
        Some(Fault::Junk { body }) => {
            let code = if posted {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            return text_answer(code, body);
        }
        Some(Fault::Hang) => {
            let _ = changes.changed().await;
            let code = StatusCode::GATEWAY_TIMEOUT;
            return failure(code, "Timeout", "Timeout: request did not complete");
        }
    }
    if let Some(refusal) = refuse_caller(&cluster, endpoint, request.headers()) {
        return refusal;
    }
    next.run(request).await
}

/// Who asks: the kubeconfig's user may do everything, a service account nothing but read the issuer's keys.
fn refuse_caller(cluster: &Cluster, endpoint: Endpoint, headers: &HeaderMap) -> Option<Response> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return cluster.config.require_credentials.then(unauthorized);
    };
    let token = value.to_str().ok()?.strip_prefix("Bearer ").unwrap_or("");
    if token == cluster.admin_token {
        return None;
    }
    match review::authenticate(cluster, token, &[]) {
        Err(_) => Some(unauthorized()),
        Ok(_) if matches!(endpoint, Endpoint::Jwks | Endpoint::Discovery) => None,
        Ok(caller) => Some(forbid(endpoint, &caller.username)),
    }
}

fn forbid(endpoint: Endpoint, user: &str) -> Response {
    let (verb, resource, group) = match endpoint {
        Endpoint::TokenReviews => ("create", "tokenreviews", "authentication.k8s.io"),
        Endpoint::TokenRequests => ("create", "serviceaccounts/token", ""),
        Endpoint::Pods => ("list", "pods", ""),
        Endpoint::PodWatches => ("watch", "pods", ""),
        Endpoint::ServiceAccounts => ("list", "serviceaccounts", ""),
        Endpoint::Nodes => ("list", "nodes", ""),
        Endpoint::Namespaces => ("get", "namespaces", ""),
        Endpoint::Jwks | Endpoint::Discovery | Endpoint::Version => ("get", "nonresource", ""),
    };
    forbidden(user, verb, resource, group)
}

async fn jwks(State(cluster): Shared, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|types| !types.contains(JWK_SET) && !types.contains("*/*")) {
        let message = "406: Not Acceptable\n\nAvailable representations: application/jwk-set+json";
        return text_answer(StatusCode::NOT_ACCEPTABLE, message.to_owned());
    }
    let mut response = answer(StatusCode::OK, &cluster.keys.lock().jwks());
    let own_type = HeaderValue::from_static(JWK_SET);
    response.headers_mut().insert(header::CONTENT_TYPE, own_type);
    response
}

async fn discovery(State(cluster): Shared) -> Response {
    let issuer = &cluster.config.issuer;
    let body = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256"],
    });
    answer(StatusCode::OK, &body)
}

async fn version() -> Response {
    let body = json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-06-09T00:00:00Z", "goVersion": "go1.26", "compiler": "gc", "platform": "linux/amd64",
    });
    answer(StatusCode::OK, &body)
}

fn kind_of(plural: &str) -> Option<Kind> {
    [Kind::Pod, Kind::ServiceAccount, Kind::Node, Kind::Namespace]
        .into_iter()
        .find(|kind| kind.plural() == plural)
}

fn is_namespaced(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::ServiceAccount)
}

async fn list_all(
    State(cluster): Shared,
    Path(kind): Path<String>,
    QueryOf(query): QueryOf<Query>,
) -> Response {
    match kind_of(&kind) {
        Some(kind) => list_or_watch(&cluster, kind, "", &query),
        None => unknown().await,
    }
}

async fn list_in(
    State(cluster): Shared,
    Path((namespace, kind)): Path<(String, String)>,
    QueryOf(query): QueryOf<Query>,
) -> Response {
    match kind_of(&kind).filter(|kind| is_namespaced(*kind)) {
        Some(kind) => list_or_watch(&cluster, kind, &namespace, &query),
        None => unknown().await,
    }
}

async fn get_cluster_wide(State(cluster): Shared, Path((kind, name)): Path<(String, String)>) -> Response {
    match kind_of(&kind).filter(|kind| !is_namespaced(*kind)) {
        Some(kind) => one(&cluster, kind, "", &name),
        None => unknown().await,
    }
}

async fn get_one(
    State(cluster): Shared,
    Path((namespace, kind, name)): Path<(String, String, String)>,
) -> Response {
    match kind_of(&kind).filter(|kind| is_namespaced(*kind)) {
        Some(kind) => one(&cluster, kind, &namespace, &name),
        None => unknown().await,
    }
}

fn one(cluster: &Cluster, kind: Kind, namespace: &str, name: &str) -> Response {
    match cluster.get(kind, namespace, name) {
        Some(object) => answer(StatusCode::OK, &object),
        None => not_found(kind.plural(), name),
    }
}
