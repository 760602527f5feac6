//! Answers on their way: counted until they are taken, handed to HTTP/2 in small pieces so that little of them waits there, and known to be
//! stuck when their reader takes no piece for a while although it answers pings. A trust stream's answer gives everything back at once
//! when its agent opens another, also where nobody reads it.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use signet_runtime::{places::Place, sync::Mutex};
use tokio::{sync::oneshot, time::Instant};
use tonic::{Status, body::Body};

use super::{Caller, Granted};

/// What HTTP/2 is handed at once: a frame of its usual size.
const PIECE: usize = 16 << 10;
/// How long a piece may wait for its reader.
pub(super) const STALL: Duration = Duration::from_secs(20);

/// Pieces of one connection that have not been taken, and since when.
#[derive(Debug, Default)]
pub(super) struct Untaken(Mutex<Pieces>);

#[derive(Debug, Default)]
struct Pieces {
    last: u64,
    since: BTreeMap<u64, Instant>,
}

impl Untaken {
    fn number(&self) -> u64 {
        let mut pieces = self.0.lock();
        pieces.last += 1;
        pieces.last
    }

    fn handed_on(&self, answer: u64) {
        self.0.lock().since.insert(answer, Instant::now());
    }

    fn taken(&self, answer: u64) {
        self.0.lock().since.remove(&answer);
    }

    /// Whether one of them has waited for longer than it may.
    pub(super) fn is_stuck(&self) -> bool {
        let now = Instant::now();
        self.0.lock().since.values().any(|since| now >= *since + STALL)
    }
}

/// The trust streams of all agents, the newest of each.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<Caller, Weak<Mutex<State>>>>);

impl Streams {
    fn open(&self, caller: &Caller, state: &Arc<Mutex<State>>) {
        let older = self.0.lock().insert(caller.clone(), Arc::downgrade(state));
        if let Some(older) = older.and_then(|older| older.upgrade()) {
            end(
                &older,
                Status::unavailable("another stream of this agent took over"),
            );
        }
    }

    fn close(&self, caller: &Caller, state: &Arc<Mutex<State>>) {
        let mut streams = self.0.lock();
        let newest = streams.get(caller);
        if newest.is_some_and(|newest| newest.as_ptr() == Arc::as_ptr(state)) {
            streams.remove(caller);
        }
    }
}

/// See the [module](self).
pub(super) struct Answer {
    state: Arc<Mutex<State>>,
    granted: Granted,
    /// Its number among the answers of the connection.
    number: u64,
    kind: Kind,
    /// Tells whoever waits for the loss of its place that it is over.
    _over: Option<oneshot::Sender<()>>,
}

/// How an answer counts.
pub(super) enum Kind {
    /// By its bytes.
    Counted,
    /// As the one trust stream of its agent: what it carries is shared by the streams of all agents.
    Stream(Arc<Streams>),
    /// As one of few readers of that same state.
    Shared,
}

#[derive(Debug)]
struct State {
    body: Option<Body>,
    /// What is left of the frame that the body gave last.
    rest: Bytes,
    /// Of that frame, as it was drawn.
    drawn: usize,
    last: Option<Status>,
    waker: Option<Waker>,
}

/// Gives back all that it holds; its reader is told `status`, should it ever read on.
fn end(state: &Mutex<State>, status: Status) {
    let mut locked = state.lock();
    let freed = (locked.body.take(), mem::take(&mut locked.rest));
    locked.last = Some(status);
    let waker = locked.waker.take();
    drop(locked);
    drop(freed);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Ends an answer that has lost its place to somebody who reads less, also where its reader is stuck.
fn end_when_lost(mut place: Place<Caller>, state: Weak<Mutex<State>>) -> oneshot::Sender<()> {
    let (over, ended) = oneshot::channel();
    signet_runtime::spans::spawn(async move {
        tokio::select! {
            () = place.lost() => {
                if let Some(state) = state.upgrade() {
                    end(&state, Status::unavailable("others read as well: ask again"));
                }
            }
            _ = ended => {}
        }
    });
    over
}

impl Answer {
    pub(super) fn new(body: Body, mut granted: Granted, kind: Kind) -> Self {
        let state = Arc::new(Mutex::new(State {
            body: Some(body),
            rest: Bytes::new(),
            drawn: 0,
            last: None,
            waker: None,
        }));
        if let Kind::Stream(streams) = &kind {
            streams.open(granted.caller(), &state);
        }
        let place = granted.take_reading();
        let over = place.map(|place| end_when_lost(place, Arc::downgrade(&state)));
        let number = granted.untaken().number();
        Self {
            state,
            granted,
            number,
            kind,
            _over: over,
        }
    }

    fn poll_state(
        &self,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Being asked for more means that what was handed on before is on its way.
        self.granted.untaken().taken(self.number);
        loop {
            if !state.rest.is_empty() {
                let piece = state.rest.split_to(PIECE.min(state.rest.len()));
                self.granted.untaken().handed_on(self.number);
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            self.granted.meter().give_back(mem::take(&mut state.drawn));
            let Some(body) = &mut state.body else {
                return Poll::Ready(state.last.take().map(trailers));
            };
            match ready!(Pin::new(body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take(state, data),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
            }
        }
    }

    fn take(&self, state: &mut State, data: Bytes) {
        if !matches!(self.kind, Kind::Counted) {
            state.rest = data;
        } else if self.granted.meter().draw(data.len()) {
            state.drawn = data.len();
            state.rest = data;
        } else {
            state.body = None;
            state.last = Some(Status::resource_exhausted(
                "too many bytes under way to this caller; retry later",
            ));
        }
    }
}

fn trailers(status: Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = http::HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = self.state.lock();
        let polled = self.poll_state(&mut state, cx);
        if polled.is_pending() {
            state.waker = Some(cx.waker().clone());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.lock();
        let body_ended = state.body.as_ref().is_none_or(HttpBody::is_end_stream);
        state.rest.is_empty() && state.last.is_none() && body_ended
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.granted.untaken().taken(self.number);
        if let Kind::Stream(streams) = &self.kind {
            streams.close(self.granted.caller(), &self.state);
        }
    }
}

#[cfg(test)]
mod tests;
