//! The table in front of every service of a listener, and what its callers are granted.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{Access, AccessLayer, GET_TRUST, access_of};
use crate::api::{
    allowance::{Caller, Granted, Line, STRANGERS_REQUEST, Shape},
    listener::Peer,
};

impl AccessLayer {
    /// Lets a call in with what it is granted. What its caller has under way is asked first: it costs nothing.
    async fn enter(&self, request: &mut http::Request<Body>) -> Result<(Granted, Shape), Status> {
        let path = request.uri().path().to_owned();
        let peer = request.extensions().get::<Peer>().cloned();
        let line = peer.as_ref().map(|peer| peer.line.clone());
        let granted = self
            .allowances
            .grant(line.unwrap_or_else(|| Line::new(Caller::Admin)))?;
        if let Some(guest) = self.check(&path, peer).await? {
            request.extensions_mut().insert(guest);
        }
        let shape = shape(&path);
        let granted = self.allowances.grant_stream(granted, shape)?;
        Ok((granted, shape))
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AccessService {
            inner,
            access: self.clone(),
        }
    }
}

/// See [`AccessLayer`].
#[derive(Clone, Debug)]
pub(crate) struct AccessService<S> {
    inner: S,
    access: AccessLayer,
}

impl<S> Service<http::Request<Body>> for AccessService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let access = self.access.clone();
        // The one that was polled ready does the work; its clone waits for the next call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            match access.enter(&mut request).await {
                Ok((granted, shape)) => {
                    let answer = inner.call(granted.request(shape, request)).await?;
                    Ok(access.allowances.answer(granted, shape, answer))
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// How its request comes, and what bounds that of somebody whom anyone could be.
pub(super) fn shape(path: &str) -> Shape {
    match access_of(path) {
        Some(Access::Anyone) if path == GET_TRUST => Shape::Public(STRANGERS_REQUEST),
        Some(Access::Anyone) => Shape::One(STRANGERS_REQUEST),
        Some(Access::AgentEvenExpired) => Shape::Trust,
        Some(Access::Agent | Access::AdminSocket) | None => Shape::One(usize::MAX),
    }
}
