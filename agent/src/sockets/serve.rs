//! The task of one accepted connection.

use std::pin::pin;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use signet_runtime::progress::Progress;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, Span};

use super::Settings;
use super::connection::Connection;
use super::filter::AuthorityFilter;
use super::filter::limits::MAX_HEADER_LIST;
use super::gate::Gate;

/// What the server buffers for a stream beyond the message it is sending.
const SEND_BUFFER: usize = 16 * 1024;

/// What a client may send ahead; requests are a few bytes.
const RECEIVE_WINDOW: u32 = 64 * 1024;

/// Most calls at once of one connection; who needs more opens another.
const MAX_STREAMS: usize = 64;

/// Streams beyond the caller's budget that HTTP/2 still lets through, so that they get a status and no bare reset.
const SPARE_STREAMS: usize = 16;

/// Serves a connection until the client leaves, breaks the rules, or the socket is closed.
pub(super) async fn serve(stream: UnixStream, connection: Arc<Connection>, gate: Gate, settings: Settings) {
    let stop = connection.stop().clone();
    // Below the filter, and so below all that would have to be written to end a connection in order.
    let stream = Progress::new(stream, settings.stuck_limit);
    let (stream, established) =
        AuthorityFilter::paced(stream, connection.budget().clone(), connection.counts().clone());
    let span = connection.story().span();
    let service = service_fn(move |request: Request<Incoming>| {
        let call = connection.story().call(request.uri().path());
        gate.clone().answer(connection.clone(), request).instrument(call)
    });
    let mut serving = pin!(http(&settings, span).serve_connection(TokioIo::new(stream), service));

    tokio::select! {
        ended = &mut serving => return report(ended),
        _ = established => {}
        () = sleep(settings.handshake_limit) => {
            tracing::debug!("closing a connection that never spoke HTTP/2");
            return;
        }
        () = stop.cancelled() => return,
    }
    tokio::select! {
        ended = &mut serving => return report(ended),
        () = stop.cancelled() => {}
    }
    // The watch streams see the same signal and end by themselves; without that this would wait for them for ever.
    serving.as_mut().graceful_shutdown();
    match timeout(settings.drain_limit, serving).await {
        Ok(ended) => report(ended),
        Err(_elapsed) => tracing::debug!("closing a connection that did not finish in time"),
    }
}

/// Runs what HTTP/2 does beside its connection within the connection's span.
#[derive(Clone, Debug)]
struct Within(Span);

impl<F> Executor<F> for Within
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        TokioExecutor::new().execute(task.instrument(self.0.clone()));
    }
}

fn http(settings: &Settings, span: Span) -> http2::Builder<Within> {
    let streams = settings.max_streams_per_caller.saturating_add(SPARE_STREAMS);
    let streams = u32::try_from(streams.min(MAX_STREAMS)).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(Within(span));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .keep_alive_interval(settings.keep_alive_interval)
        .keep_alive_timeout(settings.keep_alive_limit)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(RECEIVE_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST as u32);
    builder
}

/// Ordinary ends of connections are nobody's concern.
fn report(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a workload connection ended");
    }
}
