//! Decodes a header block, mends its `:authority`, and encodes it so that no dynamic table is needed to read it.

use std::fmt;

use http::uri::Authority;
use loona_hpack::Decoder;

use super::limits::{MAX_AUTHORITY, MAX_DYNAMIC_TABLE, MAX_HEADER_LIST};
use super::strings::{put_string, without_huffman};
use super::violation::Violation;

/// What HTTP/2 adds to each field when it counts the size of a header list.
const FIELD_OVERHEAD: usize = 32;

/// "Literal without indexing, new name": the receiver's table stays empty.
const LITERAL: u8 = 0;

/// Follows the dynamic table of one client's encoder.
pub(super) struct HeaderRewriter {
    decoder: Decoder<'static>,
}

impl HeaderRewriter {
    pub(super) fn new() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(MAX_DYNAMIC_TABLE);
        Self { decoder }
    }

    /// The mended block, at most [`MAX_HEADER_LIST`] bytes and so never longer than one frame.
    ///
    /// Each block must be given once, in the order of arrival, since it may change the table. After an error the table
    /// is out of step and the connection has to end (RFC 9113 §4.3).
    pub(super) fn rewrite(&mut self, block: &[u8]) -> Result<Vec<u8>, Violation> {
        let plain = without_huffman(block)?;
        let mut encoded = Vec::with_capacity(plain.len().min(MAX_HEADER_LIST));
        let mut list_size = 0_usize;
        let decoded = self.decoder.decode_with_cb(&plain, |name, value| {
            let value = mended(&name, &value);
            // Counted as the server will: `localhost` is longer than nothing.
            list_size = list_size.saturating_add(name.len() + value.len() + FIELD_OVERHEAD);
            if list_size <= MAX_HEADER_LIST {
                put_field(&mut encoded, &name, value);
            }
        });
        decoded.map_err(|_| Violation::Compression)?;
        if list_size > MAX_HEADER_LIST {
            return Err(Violation::HeaderListTooLarge);
        }
        Ok(encoded)
    }
}

impl fmt::Debug for HeaderRewriter {
    /// The table holds what a client sent and is nobody's business.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HeaderRewriter")
    }
}

fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(LITERAL);
    put_string(out, name);
    put_string(out, value);
}

/// The value to pass on for a field.
fn mended<'a>(name: &[u8], value: &'a [u8]) -> &'a [u8] {
    if name != b":authority" {
        return value;
    }
    if value.len() > MAX_AUTHORITY {
        // No URI authority contains a slash: the server resets this stream and no other.
        return b"/";
    }
    let acceptable = Authority::try_from(value).is_ok();
    if !acceptable && value.iter().all(u8::is_ascii_graphic) {
        return b"localhost";
    }
    value
}
