//! The requests of one call (gRPC over HTTP/2, Length-Prefixed-Message). What has come of a message is kept until it is whole, and no
//! longer: proxies send tens of kilobytes about themselves once, and then stay for days.

use bytes::BytesMut;
use http_body_util::BodyExt;
use prost::Message;
use signet_runtime::prefix::Prefix;
use tonic::Status;
use tonic::body::Body;

use crate::streams::status;

/// Longest request: Envoy names all its extensions in it, about 50 KiB.
pub(super) const MAX_REQUEST: usize = 256 * 1024;

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
        let Some((prefix, rest)) = self.begun.split_first_chunk() else {
            return Ok(None);
        };
        let Prefix { compressed, length } = Prefix::read(*prefix);
        if compressed {
            return Err(Status::unimplemented("requests must not be compressed"));
        }
        if length > MAX_REQUEST {
            return Err(Status::resource_exhausted(format!(
                "a request has {length} bytes, it may have {MAX_REQUEST}"
            )));
        }
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        let decoded = M::decode(message)
            .map_err(|error| status::invalid(&format!("the request is malformed: {error}")))?;
        // In memory of its own: what was behind the message would hold all of it, and that counts against nobody.
        self.begun = BytesMut::from(rest.get(length..).unwrap_or_default());
        Ok(Some(decoded))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use signet_proto::envoy::config::core::v3::Node;
    use signet_proto::envoy::service::discovery::v3::DiscoveryRequest;

    use super::*;

    #[tokio::test]
    async fn a_message_that_was_read_leaves_no_memory_behind() {
        let request = DiscoveryRequest {
            node: Some(Node {
                id: "x".repeat(200_000),
                ..Node::default()
            }),
            ..DiscoveryRequest::default()
        };
        let mut bytes = Prefix::of(request.encoded_len()).to_vec();
        bytes.extend_from_slice(&request.encode_to_vec());
        // And one byte of the next.
        bytes.push(0);
        let mut requests = Requests::new(Body::new(Full::new(Bytes::from(bytes))));
        let read: DiscoveryRequest = requests.next().await.unwrap().unwrap();
        assert_eq!(read, request);
        assert!(requests.begun.len() == 1 && requests.begun.capacity() < 1024);
        assert!(requests.next::<DiscoveryRequest>().await.is_err());
    }
}
