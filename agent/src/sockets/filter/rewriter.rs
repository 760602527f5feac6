//! The frame layer of the filter, without I/O: bytes of the client in, bytes for the server out.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::HeaderRewriter;
use super::limits::{MAX_CONTINUATIONS, MAX_FRAME_PAYLOAD, MAX_HEADER_BLOCK};
use super::violation::Violation;

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of headers that cost as much as a frame.
const WORK_BYTES: usize = 64;

/// Length of a frame header.
const FRAME_HEADER: usize = 9;

const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const PUSH_PROMISE: u8 = 0x5;
const CONTINUATION: u8 = 0x9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Length of the priority fields of a HEADERS frame.
const PRIORITY_FIELDS: usize = 5;

/// Rewrites one client's side of one HTTP/2 connection.
#[derive(Debug)]
pub struct Rewriter {
    state: State,
    headers: HeaderRewriter,
    /// Done since it was last asked for.
    work: u32,
}

#[derive(Debug)]
enum State {
    Preface,
    /// Before the client's SETTINGS.
    FirstFrame,
    /// Between two frames.
    Frame,
    /// Inside a frame that passes unchanged; so many bytes of it are to come.
    Forward(usize),
    /// Between the fragments of a header block.
    Block(Block),
}

#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    fragments: Vec<u8>,
    continuations: usize,
}

#[derive(Clone, Copy)]
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHeader {
    fn peek(input: &[u8]) -> Option<Self> {
        let mut bytes = input.get(..FRAME_HEADER)?;
        let length = bytes.get_uint(3) as usize;
        Some(Self {
            length,
            kind: bytes.get_u8(),
            flags: bytes.get_u8(),
            // The upper bit is reserved and ignored on receipt.
            stream: bytes.get_u32() & 0x7fff_ffff,
        })
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Default for Rewriter {
    fn default() -> Self {
        Self::new()
    }
}

impl Rewriter {
    /// At the start of a connection.
    pub fn new() -> Self {
        Self {
            state: State::Preface,
            headers: HeaderRewriter::new(),
            work: 0,
        }
    }

    /// What was done since this was last asked: one for each frame, and one for each [`WORK_BYTES`] of headers, as sent and as decoded.
    pub(super) const fn take_work(&mut self) -> u32 {
        std::mem::replace(&mut self.work, 0)
    }

    fn worked(&mut self, header_bytes: usize) {
        let work = u32::try_from(header_bytes / WORK_BYTES).unwrap_or(u32::MAX);
        self.work = self.work.saturating_add(work);
    }

    /// Whether the client has shown that it speaks HTTP/2.
    pub fn is_established(&self) -> bool {
        !matches!(self.state, State::Preface | State::FirstFrame)
    }

    /// Takes what it can from the front of `input` and returns the next piece for the server, without copying where the
    /// bytes do not change. `None` means that more input is needed; at most one frame waits in `input` then.
    ///
    /// # Errors
    /// A [`Violation`]. The connection must be closed; the rewriter is of no use any more.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Violation> {
        match self.state {
            State::Preface => self.preface(input),
            State::Forward(left) => Ok(self.forward(left, input)),
            State::FirstFrame | State::Frame | State::Block(_) => {
                let Some(header) = FrameHeader::peek(input) else {
                    return Ok(None);
                };
                self.frame(header, input)
            }
        }
    }

    fn preface(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Violation> {
        let seen = input.len().min(PREFACE.len());
        if input[..seen] != PREFACE[..seen] {
            return Err(Violation::NotHttp2);
        }
        if seen < PREFACE.len() {
            return Ok(None);
        }
        self.state = State::FirstFrame;
        Ok(Some(input.split_to(seen).freeze()))
    }

    fn forward(&mut self, left: usize, input: &mut BytesMut) -> Option<Bytes> {
        if input.is_empty() {
            return None;
        }
        let count = left.min(input.len());
        self.state = if count == left {
            State::Frame
        } else {
            State::Forward(left - count)
        };
        Some(input.split_to(count).freeze())
    }

    fn frame(&mut self, header: FrameHeader, input: &mut BytesMut) -> Result<Option<Bytes>, Violation> {
        if header.length > MAX_FRAME_PAYLOAD {
            return Err(Violation::FrameTooLarge);
        }
        match (&self.state, header.kind) {
            (State::FirstFrame, SETTINGS) => {}
            (State::FirstFrame, _) => return Err(Violation::NoSettings),
            (State::Block(block), CONTINUATION) if block.stream == header.stream => {
                return self.fragment(header, input);
            }
            (State::Block(_), _) | (_, CONTINUATION | PUSH_PROMISE) => {
                return Err(Violation::UnexpectedFrame);
            }
            (_, HEADERS) if header.stream == 0 => return Err(Violation::UnexpectedFrame),
            (_, HEADERS) => return self.fragment(header, input),
            _ => {}
        }
        self.work = self.work.saturating_add(1);
        Ok(self.forward(FRAME_HEADER + header.length, input))
    }

    /// A HEADERS or CONTINUATION frame. Gives something out when it completes the block.
    fn fragment(&mut self, header: FrameHeader, input: &mut BytesMut) -> Result<Option<Bytes>, Violation> {
        if input.len() < FRAME_HEADER + header.length {
            return Ok(None);
        }
        input.advance(FRAME_HEADER);
        let payload = input.split_to(header.length);
        self.work = self.work.saturating_add(1);
        self.worked(payload.len());
        let mut block = match std::mem::replace(&mut self.state, State::Frame) {
            State::Block(block) => block.continued(&payload)?,
            _ => Block::started(header, &payload)?,
        };
        if header.has(END_HEADERS) {
            let fragments = std::mem::take(&mut block.fragments);
            let rewritten = self.headers.rewrite(&fragments)?;
            self.worked(rewritten.len());
            return Ok(Some(block.frame(&rewritten)));
        }
        self.state = State::Block(block);
        // Nothing to give out yet; the next frame may already be here.
        self.next(input)
    }
}

impl Block {
    fn started(header: FrameHeader, payload: &[u8]) -> Result<Self, Violation> {
        let mut fragment = payload;
        let mut padding = 0;
        if header.has(PADDED) {
            padding = usize::from(fragment.try_get_u8().map_err(|_| Violation::Padding)?);
        }
        if header.has(PRIORITY) {
            fragment = fragment.get(PRIORITY_FIELDS..).ok_or(Violation::Padding)?;
        }
        let length = fragment.len().checked_sub(padding).ok_or(Violation::Padding)?;
        Ok(Self {
            stream: header.stream,
            end_stream: header.has(END_STREAM),
            fragments: fragment[..length].to_vec(),
            continuations: 0,
        })
    }

    fn continued(mut self, payload: &[u8]) -> Result<Self, Violation> {
        self.continuations += 1;
        if self.continuations > MAX_CONTINUATIONS || self.fragments.len() + payload.len() > MAX_HEADER_BLOCK {
            return Err(Violation::HeaderBlockTooLarge);
        }
        self.fragments.extend_from_slice(payload);
        Ok(self)
    }

    /// The whole block as one HEADERS frame; the header list bound keeps it within a frame.
    fn frame(&self, block: &[u8]) -> Bytes {
        let mut frame = BytesMut::with_capacity(FRAME_HEADER + block.len());
        frame.put_uint(block.len() as u64, 3);
        frame.put_u8(HEADERS);
        frame.put_u8(END_HEADERS | if self.end_stream { END_STREAM } else { 0 });
        frame.put_u32(self.stream);
        frame.extend_from_slice(block);
        frame.freeze()
    }
}
