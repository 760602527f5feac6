//! What is answered on a workload socket, counted against its caller until the kernel has it.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use signet_runtime::body::Meter;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use super::budget::{Room, Rooms, Sharer};

/// What a call holds of its caller's: one of its open calls, and bytes.
#[derive(Debug)]
pub(super) struct Charge {
    #[expect(dead_code, reason = "held, not asked")]
    pub stream: OwnedSemaphorePermit,
    pub meter: Meter<Sharer>,
    pub rooms: Rooms,
}

/// The body of an answer.
pub(super) struct Answer {
    body: Body,
    charge: Option<Charge>,
    /// When it ends whatever is missing.
    end: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Answer {
    /// An answer that holds nothing.
    pub(super) const fn free(body: Body) -> Self {
        Self {
            body,
            charge: None,
            end: None,
            ended: false,
        }
    }

    /// The answer of a call, which ends at that time at the latest.
    pub(super) fn charged(body: Body, charge: Charge, end: Option<Instant>) -> Self {
        Self {
            body,
            charge: Some(charge),
            end: end.map(|end| Box::pin(sleep_until(end))),
            ended: false,
        }
    }

    fn counted(&self, bytes: Bytes) -> Counted {
        let charge = self.charge.as_ref();
        Counted {
            bytes,
            _room: charge.and_then(|charge| charge.rooms.of_piece()),
            _meter: charge.map(|charge| charge.meter.clone()),
        }
    }

    /// The end in place of what never came.
    fn cut_short(&mut self) -> Frame<Counted> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        let status = Status::unavailable("this call has been open for as long as it may be; call again");
        // Fails on malformed metadata only, and there is none.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl HttpBody for Answer {
    type Data = Counted;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Ok(self.cut_short())));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|bytes| self.counted(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer, with what they hold of their caller's. The HTTP/2 library drops them once they are written to the socket, long
/// after the body has ended when the client takes nothing.
#[derive(Debug)]
pub(super) struct Counted {
    bytes: Bytes,
    _room: Option<Arc<Room>>,
    _meter: Option<Meter<Sharer>>,
}

impl Buf for Counted {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}
