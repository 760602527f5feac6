//! Turns a header block into one with plain strings only, before the table logic of the HPACK crate sees it.
//!
//! The crate builds its Huffman table anew for every string it decodes, which would let 16 KiB of empty strings cost a
//! hundred milliseconds. Here one table per thread serves all strings. It is also the place to be strict about what
//! the crate lets pass: table size updates must come first (RFC 7541 §4.2), integers end within five bytes.

use std::cell::RefCell;

use loona_hpack::huffman::HuffmanDecoder;

use super::limits::MAX_DYNAMIC_TABLE;
use super::violation::Violation;

thread_local! {
    static HUFFMAN: RefCell<HuffmanDecoder> = RefCell::new(HuffmanDecoder::new());
}

/// At most two size updates at the start of a block make sense: the lowest size since the last block, and the last one.
const MAX_SIZE_UPDATES: usize = 2;

/// The same header block with every string sent as plain octets. At most 8/5 of the length of the original, as the
/// shortest Huffman code has five bits.
pub(super) fn without_huffman(block: &[u8]) -> Result<Vec<u8>, Violation> {
    let mut reader = Reader { rest: block };
    let mut plain = Vec::with_capacity(block.len() * 8 / 5 + 8);
    let mut fields = 0_usize;
    let mut size_updates = 0_usize;
    while let Some(&first) = reader.rest.first() {
        match first {
            // Indexed field: the whole field is in a table.
            0x80.. => {
                reader.copy_integer(7, &mut plain)?;
                fields += 1;
            }
            // Size update.
            0x20..=0x3f => {
                size_updates += 1;
                let size = reader.copy_integer(5, &mut plain)?;
                if fields > 0 || size_updates > MAX_SIZE_UPDATES || size > MAX_DYNAMIC_TABLE {
                    return Err(Violation::Compression);
                }
            }
            // Literals: with indexing (0x40..), never indexed (0x10..) and without indexing (0x00..).
            _ => {
                let prefix = if first & 0x40 != 0 { 6 } else { 4 };
                if reader.copy_integer(prefix, &mut plain)? == 0 {
                    reader.copy_string(&mut plain)?;
                }
                reader.copy_string(&mut plain)?;
                fields += 1;
            }
        }
    }
    Ok(plain)
}

/// Appends a string literal without Huffman coding (RFC 7541 §5.2).
pub(super) fn put_string(out: &mut Vec<u8>, value: &[u8]) {
    put_integer(out, 0, 7, value.len());
    out.extend_from_slice(value);
}

/// Appends an integer whose first byte shares its upper bits with `pattern` (RFC 7541 §5.1).
fn put_integer(out: &mut Vec<u8>, pattern: u8, prefix: u32, value: usize) {
    let limit = (1_usize << prefix) - 1;
    if value < limit {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | limit as u8);
    let mut left = value - limit;
    while left >= 128 {
        out.push((left % 128) as u8 | 0x80);
        left /= 128;
    }
    out.push(left as u8);
}

/// What is left of a header block.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads an integer and appends the bytes it was made of. Values stay below 2^28.
    fn copy_integer(&mut self, prefix: u32, plain: &mut Vec<u8>) -> Result<usize, Violation> {
        let (value, length) = self.integer(prefix)?;
        plain.extend_from_slice(&self.rest[..length]);
        self.rest = &self.rest[length..];
        Ok(value)
    }

    /// Reads a string and appends it in plain form.
    fn copy_string(&mut self, plain: &mut Vec<u8>) -> Result<(), Violation> {
        let huffman = self.rest.first().is_some_and(|first| first & 0x80 != 0);
        let (size, length) = self.integer(7)?;
        let bytes = self
            .rest
            .get(length..length + size)
            .ok_or(Violation::Compression)?;
        self.rest = &self.rest[length + size..];
        if huffman {
            let decoded = HUFFMAN.with_borrow_mut(|decoder| decoder.decode(bytes));
            put_string(plain, &decoded.map_err(|_| Violation::Compression)?);
        } else {
            put_string(plain, bytes);
        }
        Ok(())
    }

    /// The integer at the start and how many bytes it takes.
    fn integer(&self, prefix: u32) -> Result<(usize, usize), Violation> {
        let limit = (1_usize << prefix) - 1;
        let first = *self.rest.first().ok_or(Violation::Compression)?;
        let mut value = usize::from(first) & limit;
        if value < limit {
            return Ok((value, 1));
        }
        for (index, &byte) in self.rest.iter().skip(1).take(4).enumerate() {
            value += usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok((value, index + 2));
            }
        }
        Err(Violation::Compression)
    }
}
