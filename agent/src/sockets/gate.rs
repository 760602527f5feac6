//! What every call on a workload socket passes before any of it is decoded: is it gRPC, does it carry the security
//! header, is there room for it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use signet_runtime::body::{Messages, Meter, Metered, Refused};
use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use super::Connection;
use super::answer::{Answer, Charge};
use super::budget::Rooms;
use super::counts::{Bound, Counts};

/// The security header of the Workload Endpoint (EP-03): present once, with exactly this value.
const SECURITY_HEADER: &str = "workload.spiffe.io";
const SECURITY_VALUE: &[u8] = b"true";

/// How long a request message may take to arrive and be answered or turned into a stream.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How long a call of tools and probes may be open, which ask and leave.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// What a call holds beside its headers and messages (bytes).
const CALL: usize = 2 * 1024;

/// As [`CALL`], where the answers are not counted one by one: a stream of reflection has two in its queues, and as many in
/// those of HTTP/2 as pass for the [send buffer](super::serve).
const UNCOUNTED_CALL: usize = 128 * 1024;

/// gRPC's number for OutOfRange, the library's answer to a message that is too long, and for ResourceExhausted, which is
/// what the gRPC specification says for it.
const OUT_OF_RANGE: &str = "11";
const RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");

/// The client's own deadline, from `grpc-timeout`; in the extensions of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(pub Instant);

/// How a call is let in. Calls that nobody names are those of tools and probes, which ask and leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// With the security header of the Workload Endpoint only; one request message.
    Guarded,
    /// One request message.
    Single,
    /// As many request messages as the client likes, for as long as it likes.
    Stream,
}

/// The services behind the gate, and how their calls are let in.
#[derive(Clone)]
pub(super) struct Gate {
    routes: Routes,
    /// By path.
    calls: Arc<HashMap<&'static str, Call>>,
    counts: Counts,
}

impl Gate {
    pub(super) fn new(
        routes: Routes,
        calls: impl IntoIterator<Item = (&'static str, Call)>,
        counts: Counts,
    ) -> Self {
        Self {
            routes,
            counts,
            calls: Arc::new(calls.into_iter().collect()),
        }
    }

    /// Answers one HTTP request on a workload socket. Never fails and never panics.
    pub(super) async fn answer(
        self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let kind = self.calls.get(request.uri().path()).copied();
        let admitted = admit(&connection, &self.counts, kind, &request);
        Ok(match admitted {
            Ok(admitted) => self.serve(connection, request, kind, admitted).await,
            Err(refusal) => refusal.map(Answer::free),
        })
    }

    async fn serve(
        self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
        kind: Option<Call>,
        admitted: Admitted,
    ) -> Response<Answer> {
        let Admitted {
            charge,
            deadline,
            end,
        } = admitted;
        let meter = charge.meter.clone();
        let mut request = request.map(|body| match kind {
            Some(Call::Stream) => Body::new(Messages::new(body, meter, refuse)),
            _ => Body::new(Metered::new(body, meter, refuse)),
        });
        let extensions = request.extensions_mut();
        extensions.insert(connection);
        extensions.insert(charge.rooms.clone());
        if let Some(deadline) = deadline {
            extensions.insert(Deadline(deadline));
        }
        let mut response = call(self.routes, request).await;
        if let Some(code) = response.headers_mut().get_mut("grpc-status")
            && *code == OUT_OF_RANGE
        {
            *code = RESOURCE_EXHAUSTED;
        }
        response.map(|body| Answer::charged(body, charge, end))
    }
}

/// A call that may begin.
struct Admitted {
    charge: Charge,
    /// The client's.
    deadline: Option<Instant>,
    /// Ours.
    end: Option<Instant>,
}

/// Whether this call may begin, and what it holds then.
fn admit(
    connection: &Connection,
    counts: &Counts,
    kind: Option<Call>,
    request: &Request<Incoming>,
) -> Result<Admitted, Response<Body>> {
    if let Some(refusal) = not_grpc(request) {
        return Err(refusal);
    }
    if kind == Some(Call::Guarded) && !has_security_header(request.headers()) {
        return Err(missing_header().into_http());
    }
    let deadline = client_deadline(request.headers()).map_err(Status::into_http)?;
    let stream = connection.try_stream();
    let stream = stream.ok_or_else(|| {
        counts.met(Bound::Calls);
        too_many_streams().into_http()
    })?;
    let call = if kind.is_some() { CALL } else { UNCOUNTED_CALL };
    let held = connection.try_bytes(call + header_bytes(request));
    let held = held.ok_or_else(|| {
        counts.met(Bound::Bytes);
        refused(Refused::TooMany).into_http()
    })?;
    Ok(Admitted {
        charge: Charge {
            stream,
            meter: Meter::new(held),
            rooms: Rooms::default(),
        },
        deadline,
        end: kind.is_none().then(|| Instant::now() + OPEN_LIMIT),
    })
}

/// The header list, counted as HTTP/2 does.
fn header_bytes(request: &Request<Incoming>) -> usize {
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + 32);
    fields.sum::<usize>() + request.uri().path().len()
}

/// Why the rest of a request is not read, as the library of the services understands it.
fn refuse(why: Refused) -> Box<dyn Error + Send + Sync> {
    Box::new(refused(why))
}

fn refused(why: Refused) -> Status {
    Status::unavailable(why.to_string())
}

/// The service's answer, or the reason why there is none.
async fn call(mut routes: Routes, request: Request<Body>) -> Response<Body> {
    let call = AssertUnwindSafe(routes.call(request)).catch_unwind();
    match timeout(REQUEST_LIMIT, call).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(_panic)) => {
            tracing::error!("a call panicked; the client was told to retry");
            Status::unavailable("internal fault of the agent").into_http()
        }
        Err(_elapsed) => Status::unavailable("the request did not arrive in time").into_http(),
    }
}

fn missing_header() -> Status {
    Status::invalid_argument("security header missing from request: set workload.spiffe.io to true, once")
}

fn too_many_streams() -> Status {
    Status::unavailable("too many open calls from this workload; retry later")
}

/// A plain HTTP answer for what is not a gRPC request.
fn not_grpc(request: &Request<Incoming>) -> Option<Response<Body>> {
    let mut response = Response::new(Body::empty());
    if request.method() != Method::POST {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return Some(response);
    }
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let is_grpc = kind
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')));
    if !is_grpc {
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Some(response);
    }
    None
}

fn has_security_header(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(SECURITY_HEADER).iter();
    values
        .next()
        .is_some_and(|value| value.as_bytes() == SECURITY_VALUE)
        && values.next().is_none()
}

/// When the client stops waiting: `grpc-timeout` is at most eight digits and a unit.
fn client_deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let malformed =
        || Status::invalid_argument("malformed grpc-timeout: at most eight digits and one of H M S m u n");
    let text = value.to_str().map_err(|_| malformed())?;
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(malformed());
    }
    let amount: u64 = digits.parse().map_err(|_| malformed())?;
    let limit = match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return Err(malformed()),
    };
    // Too far away to be represented is as good as none.
    Ok(Instant::now().checked_add(limit))
}
