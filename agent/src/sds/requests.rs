//! The requests of one call (gRPC over HTTP/2, Length-Prefixed-Message). What has come of a message is kept until it is whole, and no
//! longer: proxies send tens of kilobytes about themselves once, and then stay for days.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use prost::Message;
use tonic::Status;
use tonic::body::Body;

/// Longest request: Envoy names all its extensions in it, about 50 KiB.
pub(super) const MAX_REQUEST: usize = 256 * 1024;

/// A flag and the length.
const HEAD: usize = 5;

/// See the [module](self).
pub(super) struct Requests {
    body: Body,
    begun: BytesMut,
    ended: bool,
}

impl Requests {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            begun: BytesMut::new(),
            ended: false,
        }
    }

    /// Whether more may come.
    pub(super) const fn is_open(&self) -> bool {
        !self.ended
    }

    /// The next one; None when the client sends no more. Nothing is lost where this is not waited for.
    ///
    /// # Errors
    /// How the call ends.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.begun.extend_from_slice(&data);
                    }
                }
                Some(Err(status)) => return Err(status),
                None if self.begun.is_empty() => {
                    self.ended = true;
                    return Ok(None);
                }
                None => return Err(Status::invalid_argument("the request ended within a message")),
            }
        }
    }

    fn whole<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some(([flag, length @ ..], rest)) = self.begun.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        if *flag != 0 {
            return Err(Status::unimplemented("requests must not be compressed"));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_REQUEST {
            return Err(Status::resource_exhausted(format!(
                "a request has {length} bytes, it may have {MAX_REQUEST}"
            )));
        }
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        let decoded = M::decode(message)
            .map_err(|error| Status::invalid_argument(format!("the request is malformed: {error}")))?;
        self.begun.advance(HEAD + length);
        if self.begun.is_empty() {
            self.begun = BytesMut::new();
        }
        Ok(Some(decoded))
    }
}
