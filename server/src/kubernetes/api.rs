//! Calls to one cluster's API server, each bounded in time and in size of the answer.
//!
//! kube's client contributes transport, TLS and credentials; answers are read here, because its own helpers read
//! without bound and log an unreadable answer in full, and an answer to a TokenReview contains the token.

mod failure;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
pub(crate) use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use signet_runtime::error::chain;
use signet_runtime::refusals::Refusals;
use signet_runtime::sync::Mutex;
use tokio::time::{Instant, timeout};

pub(crate) use self::failure::Unavailable;
use super::budget::{Budget, LONGEST_CALL, Payer, UnderWay};
use super::words;
use crate::clock::TrustedClock;

/// How long one call may take. A watch only has to begin within it.
pub(crate) const CALL_TIMEOUT: Duration = LONGEST_CALL;
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// 500 pods of 128 KiB each; they have about 10 KiB.
const LIST_BYTES: usize = 64 * 1024 * 1024;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
const ERROR_BODY_BYTES: usize = 64 * 1024;
/// The key set comes in a type of its own, and an API server answers 406 to whoever accepts JSON alone.
const ACCEPTED: &str = "application/json, application/jwk-set+json";
/// Why callers are told to come back, as [`Refusals`] counts it.
pub(crate) const CALLS: &str = "calls";

/// What a call is for; gives errors their words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose {
    /// "reviewing a token"
    pub(crate) doing: &'static str,
    /// The permission a 403 shows to be missing.
    pub(crate) permission: &'static str,
}

/// Why a call gave no answer to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    #[error("not reachable: {0}")]
    Transport(String),
    /// Kubernetes itself says that the object is not there; a bare 404 of a proxy is [`CallError::Status`].
    #[error("not found")]
    NotFound,
    /// The moment that a list or a watch was to go on from is forgotten.
    #[error("too old to go on from")]
    Expired {
        /// With what a list goes on, from another moment than its pages so far.
        more: Option<String>,
    },
    #[error("status {code}: {message}")]
    Status {
        code: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    #[error("unreadable answer: {0}")]
    Junk(String),
    #[error("no room for the call")]
    OverBudget(Duration),
}

impl CallError {
    /// Whether the same call may well be answered a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Timeout | Self::Transport(_) => true,
            Self::Status { code, .. } => *code == 429 || *code >= 500,
            Self::NotFound | Self::Expired { .. } | Self::Junk(_) | Self::OverBudget(_) => false,
        }
    }

    /// The wait that the API server asks for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The API server of one cluster.
pub(crate) struct KubeApi {
    client: Client,
    cluster: Arc<str>,
    /// Of calls that callers cause. The server's own are few, and take nothing of it.
    budget: Budget,
    /// Whoever had no turn.
    refusals: Refusals,
    logged_at: Mutex<Option<Instant>>,
    clock: Arc<TrustedClock>,
}

impl KubeApi {
    /// Nothing has been asked yet.
    pub(crate) fn new(
        client: Client,
        cluster: Arc<str>,
        budget: Budget,
        clock: Arc<TrustedClock>,
        refusals: Refusals,
    ) -> Self {
        Self {
            client,
            cluster,
            budget,
            refusals,
            logged_at: Mutex::new(None),
            clock,
        }
    }

    pub(crate) fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    pub(crate) fn clock(&self) -> &Arc<TrustedClock> {
        &self.clock
    }

    /// Returns when it is this one's turn to make one of the calls that agents can cause. Held until the call is over.
    pub(crate) async fn admit(&self, payer: Payer<'_>) -> Result<UnderWay, CallError> {
        self.budget.take(payer).await.map_err(|wait| {
            self.refuse(CALLS, payer);
            CallError::OverBudget(wait)
        })
    }

    /// Counts one whom others, or he himself, have left nothing of what there is.
    pub(crate) fn refuse(&self, reason: &'static str, who: impl Display) {
        let cluster = &self.cluster;
        self.refusals.count(reason, format_args!("{who} in {cluster}"));
    }

    /// GET of a JSON object of at most `limit` bytes.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, limit: usize) -> Result<T, CallError> {
        parse(&self.get_bytes(path, limit).await?)
    }

    /// GET of one page of a list; a large one takes its time.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let exchange = async { read(self.send(Method::GET, path, Body::empty()).await?, LIST_BYTES).await };
        parse(
            &timeout(LIST_TIMEOUT, exchange)
                .await
                .map_err(|_| CallError::Timeout)??,
        )
    }

    /// GET of at most `limit` bytes.
    pub(crate) async fn get_bytes(&self, path: &str, limit: usize) -> Result<Bytes, CallError> {
        self.call(Method::GET, path, Body::empty(), limit).await
    }

    /// POST of a JSON object; reads a JSON object of at most `limit` bytes.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<T, CallError> {
        parse(&self.call(Method::POST, path, Body::from(body), limit).await?)
    }

    /// Begins a GET whose answer goes on for a while; it has to begin within `limit`.
    pub(crate) async fn open(&self, path: &str, limit: Duration) -> Result<Body, CallError> {
        timeout(limit, self.send(Method::GET, path, Body::empty()))
            .await
            .map_err(|_| CallError::Timeout)?
    }

    async fn call(&self, method: Method, path: &str, body: Body, limit: usize) -> Result<Bytes, CallError> {
        let exchange = async {
            let answer = self.send(method, path, body).await?;
            read(answer, limit).await
        };
        timeout(CALL_TIMEOUT, exchange)
            .await
            .map_err(|_| CallError::Timeout)?
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Result<Body, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, ACCEPTED)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| CallError::Junk(error.to_string()))?;
        let asked = Instant::now();
        let answer = self
            .client
            .send(request)
            .await
            .map_err(|error| CallError::Transport(words::of_client(&error)))?;
        let (head, body) = answer.into_parts();
        self.hear_the_time(&head.headers, asked.elapsed());
        if head.status.is_success() {
            return Ok(body);
        }
        let retry_after = head
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        let said = read(body, ERROR_BODY_BYTES).await.unwrap_or_default();
        Err(refusal(head.status, &said, retry_after))
    }

    /// Any answer of the API server tells its time, a refusal too.
    fn hear_the_time(&self, headers: &http::HeaderMap, took: Duration) {
        let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            self.clock.heard(&self.cluster, date, took);
        }
    }
}

/// Whether a name can stand in a path as it is; what Kubernetes calls a name always can.
pub(crate) fn is_path_segment(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        && !name.starts_with('.')
}

async fn read(body: Body, limit: usize) -> Result<Bytes, CallError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(CallError::Junk(format!("more than {limit} bytes")))
        }
        Err(error) => Err(CallError::Transport(chain(error.as_ref()))),
    }
}

/// Parse errors tell place and kind of the mistake, never the text around it.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        CallError::Junk(format!("{:?} error at {line}:{column}", error.classify()))
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    kind: String,
    reason: String,
    message: String,
    metadata: StatusMeta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusMeta {
    #[serde(rename = "continue")]
    more: Option<String>,
}

fn refusal(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> CallError {
    let said: Status = serde_json::from_slice(body).unwrap_or_default();
    if status == StatusCode::NOT_FOUND && said.kind == "Status" && said.reason == "NotFound" {
        return CallError::NotFound;
    }
    if status == StatusCode::GONE {
        let more = said.metadata.more.filter(|more| !more.is_empty());
        return CallError::Expired { more };
    }
    CallError::Status {
        code: status.as_u16(),
        message: spoken(&said.message),
        retry_after,
    }
}

/// What a server says, fit for a line of ours.
pub(crate) fn spoken(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(300).collect()
}
