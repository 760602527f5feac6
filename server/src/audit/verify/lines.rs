//! The lines of a file, one at a time, in bounded memory.

use std::io::{self, BufRead};

/// Longest line, in bytes: several times the longest that a server writes.
pub(super) const LONGEST: usize = 1 << 20;

/// Reads lines and counts them.
pub(super) struct Lines<R> {
    reader: R,
    bytes: Vec<u8>,
    /// Where the next line begins.
    offset: u64,
    /// Its number.
    number: u64,
}

/// One of them.
#[derive(Debug, PartialEq)]
pub(super) struct Piece<'l> {
    /// Without the newline; the beginning of one that is too long.
    pub bytes: &'l [u8],
    /// Where it begins in the file.
    pub offset: u64,
    /// Counted from 1.
    pub number: u64,
    /// Whether it has no more bytes than it may.
    pub fits: bool,
}

impl<R: BufRead> Lines<R> {
    /// Of a reader that stands at `offset`, where the line of this number begins.
    pub(super) fn from(reader: R, offset: u64, number: u64) -> Self {
        Self {
            reader,
            bytes: Vec::new(),
            offset,
            number,
        }
    }

    /// The next one; the last may have no newline.
    pub(super) fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.bytes.clear();
        let (mut length, mut ended) = (0, false);
        while !ended {
            let read = self.reader.fill_buf()?;
            if read.is_empty() {
                break;
            }
            let newline = read.iter().position(|byte| *byte == b'\n');
            let part = read.get(..newline.unwrap_or(read.len())).unwrap_or_default();
            let room = LONGEST.saturating_sub(self.bytes.len());
            self.bytes.extend(part.iter().take(room));
            let used = part.len() + usize::from(newline.is_some());
            (length, ended) = (length + used, newline.is_some());
            self.reader.consume(used);
        }
        if length == 0 {
            return Ok(None);
        }
        let (offset, number) = (self.offset, self.number);
        self.offset += length as u64;
        self.number += 1;
        Ok(Some(Piece {
            bytes: &self.bytes,
            offset,
            number,
            fits: length - usize::from(ended) <= LONGEST,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_one_that_is_too_long_is_passed_over() {
        let long = "x".repeat(LONGEST + 1);
        let text = format!("one\n\n{long}\nlast");
        // A buffer smaller than any line.
        let reader = io::BufReader::with_capacity(2, text.as_bytes());
        let mut lines = Lines::from(reader, 0, 1);
        let mut seen = Vec::new();
        while let Some(piece) = lines.next().unwrap() {
            seen.push((piece.bytes.len(), piece.offset, piece.number, piece.fits));
        }
        let after = 6 + long.len() as u64;
        let expected = [
            (3, 0, 1, true),
            (0, 4, 2, true),
            (LONGEST, 5, 3, false),
            (4, after, 4, true),
        ];
        assert_eq!(seen, expected);
    }
}
