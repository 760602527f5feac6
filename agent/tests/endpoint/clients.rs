//! Clients made of random bytes that get through to requests: each byte decides what comes next, so that a fuzzer need not learn HTTP/2 and HPACK
//! first. Used by a test and by a fuzz target, so it stands alone.

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY_FRAME: u8 = 2;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

const AUTHORITIES: [&[u8]; 16] = [
    b"localhost",
    b"a.sock",
    b"host:80",
    b"",
    b"/run/spiffe/spiffe.sock",
    b"%2Frun%2Fspiffe.sock",
    b"unix:///run/x",
    b"user@host",
    b"[::1]:8",
    b"[",
    b"host:99999999",
    b"a b",
    b"\x01",
    "é".as_bytes(),
    b"a,b",
    &[b'x'; 1025],
];

const FIELDS: [(&[u8], &[u8]); 9] = [
    (b"workload.spiffe.io", b"true"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"grpc-timeout", b"1S"),
    (b"cookie", b"a=b"),
    (b"cookie", b"c=d"),
    (b"x-empty", b""),
    (b"x-bin", b"\x80\xff"),
    (b"x-long", &[b'v'; 300]),
];

/// Those that make a request malformed.
const REFUSED: [(&[u8], &[u8]); 6] = [
    (b"te", b"gzip"),
    (b"X-Upper", b"1"),
    (b"connection", b"close"),
    (b":late", b"1"),
    (b":authority", b"second"),
    (b"x-control", b"\x01"),
];

/// Strings with their Huffman codes (RFC 7541, Appendix C), and one code that is none.
const CODED: [(&[u8], &[u8]); 4] = [
    (
        b"www.example.com",
        &[
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ],
    ),
    (b"no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
    (b"custom-key", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f]),
    (b"", &[0xff, 0xff, 0xff, 0xff]),
];

/// What is left to decide by.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    /// 0 when there is nothing left.
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.next()) % all.len()]
    }

    fn one_in(&mut self, many: u8) -> bool {
        self.next() % many == many - 1
    }
}

/// A client's side of a connection.
pub(crate) fn client(choices: &[u8]) -> Vec<u8> {
    let mut choices = Choices(choices);
    let (flips, mut stream, mut open) = (choices.one_in(8), 1, None);
    let mut out = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0, 0, 0, 4, 0, 0, 0, 0, 0][..],
    ]
    .concat();
    let opening = out.len();
    while !choices.0.is_empty() {
        match (choices.next() % 16, open) {
            (10, Some(stream)) => open = data(&mut out, &mut choices, stream),
            (11, Some(stream)) => {
                frame(&mut out, RST_STREAM, 0, stream, &[0, 0, 0, 8]);
                open = None;
            }
            (12, Some(stream)) => {
                trailers(&mut out, &mut choices, stream);
                open = None;
            }
            (13, _) => other(&mut out, &mut choices, stream),
            (14, _) => stream += 2 * u32::from(choices.next() % 3),
            _ => {
                open = request(&mut out, &mut choices, stream);
                stream += 2;
            }
        }
    }
    if flips {
        let at = out
            .iter()
            .fold(0, |sum: usize, byte| sum * 31 % 65_521 + usize::from(*byte))
            % (out.len() - opening + 1);
        if let Some(byte) = out.get_mut(opening + at) {
            *byte ^= 1 << (at % 8);
        }
    }
    out
}

/// What concerns no request, and, seldom, what ends a connection.
fn other(out: &mut Vec<u8>, choices: &mut Choices<'_>, stream: u32) {
    match choices.next() % 32 {
        0..=7 => frame(out, PING, 0, 0, &[7; 8]),
        8..=15 => frame(out, WINDOW_UPDATE, 0, 0, &[0, 0, 0, choices.next() | 1]),
        16..=22 => frame(out, PRIORITY_FRAME, 0, stream, &[0, 0, 0, 0, 1]),
        23..=29 => frame(out, 0x20 | choices.next(), choices.next(), stream, &[1, 2, 3]),
        30 => frame(out, PUSH_PROMISE, END_HEADERS, stream, &[0, 0, 0, 2, 0x82]),
        _ => frame(out, CONTINUATION, END_HEADERS, stream, &[0x82]),
    }
}

/// The stream, if the client may go on with it.
fn request(out: &mut Vec<u8>, choices: &mut Choices<'_>, stream: u32) -> Option<u32> {
    let mut block = Vec::new();
    if choices.one_in(6) {
        // Table sizes of 0, 32 and 4096.
        block.extend_from_slice(choices.of(&[&[0x20][..], &[0x3f, 0x01], &[0x3f, 0xe1, 0x1f]]));
    }
    if choices.one_in(48) {
        // Larger than is allowed.
        block.extend_from_slice(&[0x3f, 0xe2, 0x1f]);
    }
    // POST over http, in one order or the other.
    block.extend_from_slice(choices.of(&[&[0x83, 0x86], &[0x86, 0x83], &[0x83, 0x87]]));
    field(
        &mut block,
        choices,
        4,
        b":path",
        b"/SpiffeWorkloadAPI/FetchX509SVID",
    );
    if !choices.one_in(4) {
        let authority = choices.of(&AUTHORITIES);
        field(&mut block, choices, 1, b":authority", authority);
    }
    // What the references below find, whatever else the table holds.
    if choices.one_in(2) {
        block.extend_from_slice(&[0x40, 3, b'x', b'-', b't', 1, b'1', 0xbe]);
    }
    for _ in 0..choices.next() % 5 {
        match choices.next() % 64 {
            0 => block.push(0xbe + choices.next() % 3),
            1 => block.push(choices.next()),
            2..=12 => {
                let (_, code) = choices.of(&CODED[..3]);
                coded(&mut block, choices, code);
            }
            13 => coded(&mut block, choices, CODED[3].1),
            14..=18 => {
                let (name, value) = choices.of(&REFUSED);
                field(&mut block, choices, 0, name, value);
            }
            _ => {
                let (name, value) = choices.of(&FIELDS);
                field(&mut block, choices, 0, name, value);
            }
        }
    }
    let is_open = choices.one_in(4);
    headers(out, choices, stream, &block, if is_open { 0 } else { END_STREAM });
    is_open.then_some(stream)
}

fn coded(block: &mut Vec<u8>, choices: &mut Choices<'_>, code: &[u8]) {
    let kind = choices.of(&[0x40, 0x00, 0x10]);
    block.extend_from_slice(&[kind, 3, b'x', b'-', b'h', 0x80 | code.len() as u8]);
    block.extend_from_slice(code);
}

fn trailers(out: &mut Vec<u8>, choices: &mut Choices<'_>, stream: u32) {
    let mut block = Vec::new();
    field(&mut block, choices, 0, b"x-trailer", b"1");
    headers(out, choices, stream, &block, END_STREAM);
}

fn headers(out: &mut Vec<u8>, choices: &mut Choices<'_>, stream: u32, block: &[u8], end: u8) {
    let (mut flags, mut head, mut tail) = (end, Vec::new(), Vec::new());
    if choices.one_in(4) {
        flags |= PADDED;
        let padding = choices.next() % 9;
        head.push(padding);
        tail = vec![0; usize::from(padding)];
    }
    if choices.one_in(4) {
        flags |= PRIORITY;
        head.extend_from_slice(&[0, 0, 0, choices.next() & 0xfe, 15]);
    }
    let pieces = if choices.one_in(4) {
        1 + usize::from(choices.next() % 4)
    } else {
        1
    };
    let size = block.len().div_ceil(pieces).max(1);
    let mut fragments = block.chunks(size).peekable();
    let first = fragments.next().unwrap_or_default();
    let last = |more: bool| if more { 0 } else { END_HEADERS };
    let payload = [&head, first, &tail].concat();
    frame(
        out,
        HEADERS,
        flags | last(fragments.peek().is_some()),
        stream,
        &payload,
    );
    while let Some(fragment) = fragments.next() {
        frame(
            out,
            CONTINUATION,
            last(fragments.peek().is_some()),
            stream,
            fragment,
        );
    }
}

/// The stream, if the client may go on with it.
fn data(out: &mut Vec<u8>, choices: &mut Choices<'_>, stream: u32) -> Option<u32> {
    let (flags, length) = (
        choices.of(&[0, END_STREAM, PADDED]),
        1 + usize::from(choices.next() % 32),
    );
    frame(out, DATA, flags, stream, &vec![0; length]);
    (flags != END_STREAM).then_some(stream)
}

/// One field in one of the ways of HPACK; by the index of its name in the static table, where it has one.
fn field(block: &mut Vec<u8>, choices: &mut Choices<'_>, index: u8, name: &[u8], value: &[u8]) {
    let kind = choices.of(&[0x40, 0x00, 0x10]);
    let by_index = index > 0 && !choices.one_in(3);
    block.push(kind | if by_index { index } else { 0 });
    if !by_index {
        string(block, name);
    }
    string(block, value);
}

fn string(block: &mut Vec<u8>, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(short) if short < 127 => block.push(short),
        _ => {
            let left = value.len() - 127;
            block.extend_from_slice(&[127, (left % 128) as u8 | 0x80, (left / 128) as u8]);
        }
    }
    block.extend_from_slice(value);
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}
