//! The body of a watch stream's answer: messages that are encoded already, in pieces.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::Stream;
use http::HeaderMap;
use hyper::body::Frame;
use tonic::Status;

use super::message::{Sending, TooLate};
use super::status;
use crate::sockets::{Connection, Rooms};

/// Messages, and how they end. Never without an error.
pub(crate) type Messages = Pin<Box<dyn Stream<Item = Result<Sending, Status>> + Send>>;

/// See the [module](self).
pub(crate) struct Watch {
    messages: Messages,
    sending: Option<Sending>,
    connection: Arc<Connection>,
    /// Where the room of the message is that is being sent.
    rooms: Rooms,
    ended: bool,
}

impl Watch {
    pub(crate) fn new(messages: Messages, connection: Arc<Connection>, rooms: Rooms) -> Self {
        Self {
            messages,
            sending: None,
            connection,
            rooms,
            ended: false,
        }
    }

    fn piece(&mut self, mut sending: Sending) -> Result<Bytes, Status> {
        let piece = sending.chunk().map_err(|TooLate| {
            self.connection.fell_behind();
            status::unavailable("the revocation lists were replaced many times and this client has not taken them; call again")
        })?;
        if sending.is_over() {
            self.rooms.last_piece();
        } else {
            self.sending = Some(sending);
        }
        Ok(piece)
    }

    fn over(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        // Fails on malformed metadata only, and there is none.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl hyper::body::Body for Watch {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match self.sending.take() {
            Some(sending) => Ok(sending),
            None => ready!(self.messages.as_mut().poll_next(cx))
                .unwrap_or_else(|| Err(status::unavailable("internal fault of the agent"))),
        };
        let piece = next.and_then(|sending| self.piece(sending));
        Poll::Ready(Some(Ok(match piece {
            Ok(piece) => Frame::data(piece),
            Err(status) => self.over(&status),
        })))
    }
}
