//! Answers of gRPC whose messages are encoded already: a handler leaves a body beside its answer, which takes the place of the one that
//! would be encoded from that.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::TryFutureExt as _;
use futures_util::future::MapOk;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use crate::sync::Mutex;

/// A body, as a handler leaves it in the extensions of its answer.
#[derive(Clone)]
pub struct Encoded(Arc<Mutex<Option<Body>>>);

impl Encoded {
    /// Pieces of messages, each of which begins with gRPC's prefix, and trailers with the status.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = bytes::Bytes, Error = Status> + Send + 'static,
    {
        Self(Arc::new(Mutex::new(Some(Body::new(body)))))
    }
}

/// Puts in the bodies that the handlers of this service leave as [`Encoded`].
#[derive(Clone, Debug)]
pub struct WithEncoded<S>(pub S);

impl<S: NamedService> NamedService for WithEncoded<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = http::Response<Body>;

impl<S, R> Service<R> for WithEncoded<S>
where
    S: Service<R, Response = Answer>,
{
    type Response = Answer;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(Answer) -> Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.0.call(request).map_ok(put_in)
    }
}

fn put_in(mut answer: Answer) -> Answer {
    let left = answer.extensions_mut().remove::<Encoded>();
    match left.and_then(|encoded| encoded.0.lock().take()) {
        Some(body) => answer.map(|_| body),
        None => answer,
    }
}
