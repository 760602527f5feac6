//! A scripted API server behind kube's client, for tests of the loops on paused time: no sockets, no waiting.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use signet_runtime::clock::FakeClock;
use signet_runtime::refusals::Refusals;
use signet_runtime::sync::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::api::KubeApi;
use super::budget::Budget;
use crate::clock::TrustedClock;
use crate::fixtures::START;

/// What the script answers to one request.
pub(crate) enum Answer {
    Json(u16, String),
    /// 429 with this many seconds of `Retry-After`.
    Busy(u32),
    /// Goes on until the sender is dropped.
    Stream(mpsc::UnboundedReceiver<String>),
    /// The connection breaks.
    Broken,
    /// No answer ever.
    Silence,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self::Json(200, body.into())
    }
}

/// Asks the test how to answer each request; remembers what was asked.
pub(crate) struct Script {
    pub(crate) api: Arc<KubeApi>,
    pub(crate) client: kube::Client,
    /// The machine's clock of `api`.
    pub(crate) machine: FakeClock,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// `answer` gets method and path of each request, as `GET /api/v1/pods?limit=500`.
    pub(crate) fn new(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_budget(Budget::new(1000, 1000, 1000), answer)
    }

    pub(crate) fn with_budget(
        budget: Budget,
        answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        let service = tower::service_fn(move |request: Request<Body>| {
            let line = format!("{} {}", request.method(), request.uri());
            log.lock().push(line.clone());
            let answer = if accepts_its_type(&request) {
                answer(&line)
            } else {
                Answer::Json(406, "406: Not Acceptable".into())
            };
            async move { respond(answer).await }
        });
        let client = kube::Client::new(service, "default");
        let machine = FakeClock::new(UNIX_EPOCH + START);
        Self {
            api: Arc::new(KubeApi::new(
                client.clone(),
                "prod".into(),
                budget,
                Arc::new(TrustedClock::agreed(Arc::new(machine.clone()))),
                Refusals::untold("attestation"),
            )),
            client,
            machine,
            asked,
        }
    }

    /// Requests so far whose line contains `part`.
    pub(crate) fn asked(&self, part: &str) -> Vec<String> {
        self.asked
            .lock()
            .iter()
            .filter(|line| line.contains(part))
            .cloned()
            .collect()
    }
}

/// An API server gives its key set as `application/jwk-set+json` and refuses whoever asks for JSON alone.
fn accepts_its_type(request: &Request<Body>) -> bool {
    let accepted = request.headers().get(http::header::ACCEPT);
    let accepted = accepted.and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    request.uri().path() != "/openid/v1/jwks" || accepted.contains("application/jwk-set+json")
}

type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

async fn respond(answer: Answer) -> Result<Response<AnyBody>, std::io::Error> {
    let mut response = Response::builder();
    let (status, body): (u16, AnyBody) = match answer {
        Answer::Busy(seconds) => {
            response = response.header("retry-after", seconds);
            (429, Full::new(Bytes::from_static(b"{}")).boxed_unsync())
        }
        Answer::Json(status, text) => (status, Full::new(Bytes::from(text)).boxed_unsync()),
        Answer::Stream(receiver) => {
            let frames =
                UnboundedReceiverStream::new(receiver).map(|text| Ok(Frame::data(Bytes::from(text))));
            (200, StreamBody::new(frames).boxed_unsync())
        }
        Answer::Broken => return Err(std::io::Error::other("connection reset")),
        Answer::Silence => std::future::pending().await,
    };
    Ok(response.status(status).body(body).unwrap())
}
