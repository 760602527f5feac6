//! Health and metrics.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use super::{Limits, serve};
use crate::drain::Drain;
use crate::ready::{Level, Readiness};
use crate::refusals::Refusals;
use crate::telemetry::Metrics;

#[derive(Clone)]
struct Telemetry {
    readiness: Readiness,
    metrics: Metrics,
    drain: Drain,
}

/// What callers of the telemetry endpoint may use up: few have reason to call.
const TELEMETRY: Limits = Limits {
    connections: 32,
    per_source: 16,
    header_timeout: Duration::from_secs(10),
    stall: Duration::from_secs(20),
    connection_lifetime: Duration::from_secs(300),
};

/// Serves `/live`, `/ready` and `/ready/issue` (503 with what stands in the way) and `/metrics` over so many connections until the drain has started.
/// It is not ready while draining, so it should be the last listener to go: give it a drain of its own if so.
pub async fn serve_telemetry(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    connections: usize,
    refusals: Refusals,
    drain: Drain,
) {
    let router = telemetry_router(readiness, metrics, drain.clone());
    let limits = Limits {
        connections,
        per_source: connections.div_ceil(2),
        ..TELEMETRY
    };
    serve(listener, router, limits, refusals, drain).await;
}

/// The routes of [`serve_telemetry`], for those who serve them beside others.
pub fn telemetry_router(readiness: Readiness, metrics: Metrics, drain: Drain) -> Router {
    Router::new()
        .route("/live", get(async || "ok\n"))
        .route(
            Level::Serve.path(),
            get(async |state: State<Telemetry>| ready(Level::Serve, state)),
        )
        .route(
            Level::Issue.path(),
            get(async |state: State<Telemetry>| ready(Level::Issue, state)),
        )
        .route("/metrics", get(metrics_text))
        .with_state(Telemetry {
            readiness,
            metrics,
            drain,
        })
}

fn ready(level: Level, State(telemetry): State<Telemetry>) -> Response {
    let standing = telemetry.readiness.standing(level);
    let mut reasons: Vec<_> = standing
        .iter()
        .map(|standing| json!({ "reason": standing.reason.name, "detail": standing.detail }))
        .collect();
    if telemetry.drain.is_draining() {
        reasons.push(json!({ "reason": "stopping", "detail": "" }));
    }
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({ "ready": reasons.is_empty(), "not_ready": reasons });
    (status, axum::Json(body)).into_response()
}

async fn metrics_text(State(telemetry): State<Telemetry>) -> Result<impl IntoResponse, Infallible> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], telemetry.metrics.encode()))
}
