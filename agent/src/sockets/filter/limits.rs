//! What a client may send. A request of the Workload API needs about 200 bytes of headers.

/// Longest payload of any frame: the HTTP/2 default, and the server announces no other.
pub const MAX_FRAME_PAYLOAD: usize = 16 * 1024;

/// Longest header block, over all its fragments, as sent.
pub(crate) const MAX_HEADER_BLOCK: usize = 16 * 1024;

/// Most CONTINUATION frames of one header block.
pub(crate) const MAX_CONTINUATIONS: usize = 8;

/// Largest header list after decoding, counted as HTTP/2 does: name, value and 32 bytes for each field. One header block
/// can name a long field of the dynamic table thousands of times, so its own length does not bound this.
pub const MAX_HEADER_LIST: usize = 16 * 1024;

/// Largest dynamic table of the client's encoder. The server sends no `SETTINGS_HEADER_TABLE_SIZE`, so the default holds.
pub(crate) const MAX_DYNAMIC_TABLE: usize = 4096;

/// Longest `:authority`. A socket path has at most 107 bytes, three times as many when percent-encoded.
pub const MAX_AUTHORITY: usize = 1024;
