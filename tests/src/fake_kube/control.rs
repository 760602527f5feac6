//! `/fake/…`: what another process needs to steer the fake. [`crate::fake_kube`] documents it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequestParts, Path, Query},
    http::StatusCode,
    http::request::Parts,
    response::Response,
    routing::{delete, get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Doors, FakeKube, PodSpec,
    cluster::Cluster,
    faults::FaultRule,
    status::{answer, bad_request, failure},
};

/// A handle that does not keep the fake alive: the listeners it would keep are what serves it.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) doors: Weak<Doors>,
}

impl FromRequestParts<Remote> for FakeKube {
    type Rejection = Response;

    async fn from_request_parts(_: &mut Parts, remote: &Remote) -> Result<Self, Response> {
        let doors = remote.doors.upgrade().ok_or_else(|| {
            let code = StatusCode::SERVICE_UNAVAILABLE;
            failure(code, "ServiceUnavailable", "the fake is about to end")
        })?;
        Ok(Self {
            cluster: Arc::clone(&remote.cluster),
            doors,
        })
    }
}

/// The routes; also served on a port of their own, which stays open while the API server's is refused.
pub(crate) fn router(remote: Remote) -> Router {
    Router::new()
        .route("/fake/state", get(state))
        .route("/fake/nodes/{name}", post(add_node))
        .route("/fake/serviceaccounts/{ns}/{name}", post(add_account))
        .route("/fake/serviceaccounts/{ns}/{name}", delete(delete_account))
        .route("/fake/pods", post(add_pod))
        .route("/fake/pods/{ns}/{name}", delete(delete_pod))
        .route("/fake/pods/{ns}/{name}/phase/{phase}", post(set_phase))
        .route("/fake/tokens", post(token))
        .route("/fake/faults", post(add_fault).delete(clear_faults))
        .route("/fake/connections/{what}", post(connections))
        .route("/fake/watches/{how}", post(watches))
        .route("/fake/history/compact", post(compact))
        .route("/fake/lists/expire", post(expire_lists))
        .route("/fake/reviews/expire", post(expire_reviews))
        .with_state(remote)
}

fn done(body: &Value) -> Response {
    answer(StatusCode::OK, body)
}

fn outcome(result: anyhow::Result<Value>) -> Response {
    match result {
        Ok(body) => done(&body),
        Err(error) => bad_request(&format!("{error:#}")),
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> anyhow::Result<T> {
    Ok(serde_json::from_slice(body)?)
}

async fn state(fake: FakeKube) -> Response {
    done(&fake.state())
}

async fn add_node(fake: FakeKube, Path(name): Path<String>) -> Response {
    done(&json!({ "uid": fake.add_node(&name) }))
}

async fn add_account(fake: FakeKube, Path((namespace, name)): Path<(String, String)>) -> Response {
    done(&json!({ "uid": fake.add_service_account(&namespace, &name) }))
}

async fn delete_account(fake: FakeKube, Path((namespace, name)): Path<(String, String)>) -> Response {
    let deleted = fake.delete_service_account(&namespace, &name);
    outcome(deleted.map(|()| json!({})))
}

async fn add_pod(fake: FakeKube, body: Bytes) -> Response {
    let uid = parse::<PodSpec>(&body).and_then(|spec| fake.add_pod(&spec));
    outcome(uid.map(|uid| json!({ "uid": uid })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeletePod {
    /// Absent or 0 deletes at once.
    #[serde(default)]
    grace_ms: u64,
}

async fn delete_pod(
    fake: FakeKube,
    Path((namespace, name)): Path<(String, String)>,
    Query(how): Query<DeletePod>,
) -> Response {
    let deleted = match how.grace_ms {
        0 => fake.delete_pod(&namespace, &name),
        grace => fake.terminate_pod(&namespace, &name, Duration::from_millis(grace)),
    };
    outcome(deleted.map(|()| json!({})))
}

async fn set_phase(
    fake: FakeKube,
    Path((namespace, name, phase)): Path<(String, String, String)>,
) -> Response {
    let set = fake.set_phase(&namespace, &name, &phase);
    outcome(set.map(|()| json!({})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokenOrder {
    namespace: String,
    /// The pod it is bound to; or else `serviceAccount`.
    #[serde(default)]
    pod: Option<String>,
    #[serde(default)]
    service_account: Option<String>,
    audience: String,
    #[serde(default = "an_hour")]
    ttl_seconds: u64,
}

fn an_hour() -> u64 {
    3600
}

async fn token(fake: FakeKube, body: Bytes) -> Response {
    outcome(order_token(&fake, &body))
}

fn order_token(fake: &FakeKube, body: &Bytes) -> anyhow::Result<Value> {
    let order: TokenOrder = parse(body)?;
    let ttl = Duration::from_secs(order.ttl_seconds);
    let token = match (&order.pod, &order.service_account) {
        (Some(pod), None) => fake.token(&order.namespace, pod, &order.audience, ttl),
        (None, Some(account)) => fake.token_unbound(&order.namespace, account, &order.audience, ttl),
        _ => anyhow::bail!("name either \"pod\" or \"serviceAccount\""),
    }?;
    Ok(json!({ "token": token }))
}

async fn add_fault(fake: FakeKube, body: Bytes) -> Response {
    let rule = parse::<FaultRule>(&body);
    outcome(rule.map(|rule| {
        fake.fault(rule);
        json!({})
    }))
}

async fn clear_faults(fake: FakeKube) -> Response {
    fake.clear_faults();
    done(&json!({}))
}

async fn connections(fake: FakeKube, Path(what): Path<String>) -> Response {
    match what.as_str() {
        // In a task of its own: this very answer may be on a connection that is about to be closed.
        "refuse" => {
            let refused = tokio::spawn(async move { fake.refuse_connections().await });
            outcome(refused.await.map(|()| json!({})).map_err(Into::into))
        }
        "accept" => outcome(fake.accept_connections().await.map(|()| json!({}))),
        _ => bad_request("say \"refuse\" or \"accept\""),
    }
}

async fn watches(fake: FakeKube, Path(how): Path<String>) -> Response {
    match how.as_str() {
        "end" => fake.end_watches(),
        "cut" => fake.cut_watches(),
        _ => return bad_request("say \"end\" or \"cut\""),
    }
    done(&json!({}))
}

async fn compact(fake: FakeKube) -> Response {
    fake.compact_history();
    done(&json!({}))
}

async fn expire_lists(fake: FakeKube) -> Response {
    fake.expire_lists();
    done(&json!({}))
}

async fn expire_reviews(fake: FakeKube) -> Response {
    fake.expire_reviews();
    done(&json!({}))
}
