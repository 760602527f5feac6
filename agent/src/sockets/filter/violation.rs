//! How a client can break the rules.

/// Why a connection is ended. Nothing of what the client sent is in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first bytes are not the HTTP/2 preface: HTTP/1.1, TLS, or noise.
    #[error("the client does not speak HTTP/2 in the clear")]
    NotHttp2,
    /// The first frame is not SETTINGS (RFC 9113 §3.4).
    #[error("the first frame is not SETTINGS")]
    NoSettings,
    /// A frame exceeds [`MAX_FRAME_PAYLOAD`](super::limits::MAX_FRAME_PAYLOAD).
    #[error("frame too large")]
    FrameTooLarge,
    /// A header block exceeds `MAX_HEADER_BLOCK` or
    /// `MAX_CONTINUATIONS`.
    #[error("header block too large")]
    HeaderBlockTooLarge,
    /// The decoded headers exceed [`MAX_HEADER_LIST`](super::limits::MAX_HEADER_LIST).
    #[error("header list too large")]
    HeaderListTooLarge,
    /// A frame where HTTP/2 allows none of its kind: between the parts of a header block, PUSH_PROMISE, stream 0.
    #[error("unexpected frame")]
    UnexpectedFrame,
    /// More padding than payload.
    #[error("padding exceeds the frame")]
    Padding,
    /// The header block cannot be decoded.
    #[error("header block cannot be decoded")]
    Compression,
}
