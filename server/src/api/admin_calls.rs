//! Every call on the admin socket is a line of the audit log: who, which, about what, and how it ended. Reads too: what
//! was looked at before a theft is part of its story.

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tonic::{Code, Extensions, Request, Status, body::Body};
use tower::{Layer, Service};

use super::{access::method, admin_listener::AdminPeer};
use crate::{
    audit::{AuditAction, AuditEvent, AuditLog},
    clock::TrustedClock,
};

/// Longest text of a caller in a line, in characters.
const LONGEST_TARGET: usize = 300;

/// The caller's user, as the kernel says it.
pub(crate) fn author(extensions: &Extensions) -> String {
    extensions
        .get::<AdminPeer>()
        .and_then(|peer| peer.user)
        .map_or_else(|| "unknown".to_owned(), |user| format!("uid:{user}"))
}

/// What a call is about: its handler tells, for only it can read the request.
#[derive(Clone, Debug, Default)]
struct Target(Arc<OnceLock<String>>);

/// Says what a call is about.
pub(super) fn is_about<T>(request: &Request<T>, target: &str) {
    if let Some(place) = request.extensions().get::<Target>() {
        // The first word stands.
        let _ = place.0.set(target.chars().take(LONGEST_TARGET).collect());
    }
}

/// Puts a line behind every call of the services below it.
#[derive(Clone, Debug)]
pub(crate) struct AdminCallLayer {
    /// Where the lines go.
    pub audit: AuditLog,
    /// The server's time.
    pub clock: Arc<TrustedClock>,
}

impl<S> Layer<S> for AdminCallLayer {
    type Service = AdminCallService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AdminCallService {
            inner,
            layer: self.clone(),
        }
    }
}

/// See [`AdminCallLayer`].
#[derive(Clone, Debug)]
pub(crate) struct AdminCallService<S> {
    inner: S,
    layer: AdminCallLayer,
}

impl<S> Service<http::Request<Body>> for AdminCallService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let mut call = Call {
            layer: self.layer.clone(),
            author: author(request.extensions()),
            method: method(request.uri().path()),
            target: Target::default(),
            outcome: "abandoned by its caller".to_owned(),
        };
        request.extensions_mut().insert(call.target.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            call.ended(match &answer {
                Ok(response) => outcome(response.headers()),
                Err(_) => "failed".to_owned(),
            });
            answer
        })
    }
}

/// A call under way; its line is written when it ends, however it ends.
struct Call {
    layer: AdminCallLayer,
    author: String,
    method: &'static str,
    target: Target,
    outcome: String,
}

impl Call {
    fn ended(&mut self, outcome: String) {
        self.outcome = outcome;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        tracing::debug!(
            author = self.author,
            outcome = self.outcome,
            "an admin's call ended"
        );
        let action = AuditAction::AdminCall {
            author: std::mem::take(&mut self.author),
            method: self.method.to_owned(),
            target: self.target.0.get().cloned(),
            outcome: std::mem::take(&mut self.outcome),
        };
        self.layer
            .audit
            .record(AuditEvent::new(self.layer.clock.now(), action));
    }
}

/// An answer without a status of its own ends well, or goes on as a stream.
fn outcome(headers: &http::HeaderMap) -> String {
    match Status::from_header_map(headers) {
        None => "ok".to_owned(),
        Some(status) if status.code() == Code::Ok => "ok".to_owned(),
        Some(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{
        api::access::{ACCESS, Access},
        fixtures::Running,
    };

    /// A service that ends every call as told, after its handler has said what it is about.
    async fn called(layer: &AdminCallLayer, path: &str, ends: Result<(), Status>) {
        let answer = move |request: http::Request<Body>| {
            let ends = ends.clone();
            async move {
                is_about(&Request::from_http(request), "what was asked about");
                let response = match ends {
                    Ok(()) => http::Response::new(Body::empty()),
                    Err(status) => status.into_http(),
                };
                Ok::<_, Infallible>(response)
            }
        };
        let mut service = layer.layer(tower::service_fn(answer));
        let request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
        service.call(request).await.unwrap();
    }

    async fn lines(running: &Running, layer: &AdminCallLayer) -> Vec<(String, Option<String>, String)> {
        layer.audit.flush().await;
        let events = running.store.audit_events();
        let line = |event: &AuditEvent| match event.action() {
            AuditAction::AdminCall {
                author,
                method,
                target,
                outcome,
            } => {
                assert_eq!(author, "unknown", "no socket, no user");
                Some((method.clone(), target.clone(), outcome.clone()))
            }
            _ => None,
        };
        events.iter().filter_map(line).collect()
    }

    fn admin_rpcs() -> impl Iterator<Item = &'static str> {
        let admins = ACCESS
            .iter()
            .filter(|(_, access, _)| *access == Access::AdminSocket);
        admins.map(|(path, ..)| *path)
    }

    #[tokio::test(start_paused = true)]
    async fn every_admin_call_is_a_line_with_its_target_however_it_ends() {
        let running = Running::new().await;
        let layer = AdminCallLayer {
            audit: AuditLog::start(running.store.clone()),
            clock: running.trusted.clone(),
        };
        let mut expected = Vec::new();
        for path in admin_rpcs().chain(["/signet.admin.v1.Admin/Shutdown"]) {
            let name = path.strip_prefix("/signet.admin.v1.Admin/").unwrap();
            let name = if name == "Shutdown" { "unknown" } else { name };
            let about = Some("what was asked about".to_owned());
            called(&layer, path, Ok(())).await;
            expected.push((name.to_owned(), about.clone(), "ok".to_owned()));
            called(&layer, path, Err(Status::not_found("no such denial"))).await;
            expected.push((name.to_owned(), about, "NotFound: no such denial".to_owned()));
        }
        assert_eq!(lines(&running, &layer).await, expected);
    }

    /// Who asks and hangs up has asked.
    #[tokio::test(start_paused = true)]
    async fn a_call_whose_caller_hangs_up_is_a_line_too() {
        let running = Running::new().await;
        let layer = AdminCallLayer {
            audit: AuditLog::start(running.store.clone()),
            clock: running.trusted.clone(),
        };
        let mut service = layer.layer(tower::service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, Infallible>>()
        }));
        let path = "/signet.admin.v1.Admin/Revoke";
        let request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
        drop(service.call(request));
        let expected = ("Revoke".to_owned(), None, "abandoned by its caller".to_owned());
        assert_eq!(lines(&running, &layer).await, [expected]);
    }
}
