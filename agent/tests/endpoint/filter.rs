//! Properties of the frame rewriter: however the bytes are cut, what comes out is the same, complete and legal.

use bytes::BytesMut;
use loona_hpack::{Decoder, Encoder};
use proptest::collection::vec;
use proptest::prelude::*;
use signet_agent::testing::{MAX_FRAME_PAYLOAD, MAX_HEADER_LIST, Rewriter, Violation};

use crate::support::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PREFACE, PRIORITY, SETTINGS, frame,
};

type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// Runs the rewriter over input that arrives in pieces of these sizes.
fn run(input: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Violation>) {
    let mut rewriter = Rewriter::new();
    let mut waiting = BytesMut::new();
    let mut output = Vec::new();
    let mut rest = input;
    let mut cuts = cuts.iter().copied().cycle();
    loop {
        loop {
            match rewriter.next(&mut waiting) {
                Ok(Some(piece)) => output.extend_from_slice(&piece),
                Ok(None) => break,
                Err(violation) => return (output, Some(violation)),
            }
        }
        assert!(
            waiting.len() <= MAX_FRAME_PAYLOAD + 9,
            "more than one frame is held back"
        );
        if rest.is_empty() {
            return (output, None);
        }
        let (piece, later) = rest.split_at(cuts.next().unwrap_or(1).clamp(1, rest.len()));
        waiting.extend_from_slice(piece);
        rest = later;
    }
}

/// Splits legal output into frames: kind, flags, stream, payload.
fn frames(mut output: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    output = output.strip_prefix(PREFACE).unwrap_or(output);
    while output.len() >= 9 {
        let length = u32::from_be_bytes([0, output[0], output[1], output[2]]) as usize;
        assert!(length <= MAX_FRAME_PAYLOAD);
        let stream = u32::from_be_bytes([output[5], output[6], output[7], output[8]]);
        if output.len() < 9 + length {
            break;
        }
        frames.push((output[3], output[4], stream, output[9..9 + length].to_vec()));
        output = &output[9 + length..];
    }
    frames
}

/// Decodes a block that must not need a dynamic table.
fn decode(block: &[u8]) -> Headers {
    let mut decoder = Decoder::new();
    decoder.set_max_table_size(0);
    decoder.set_max_allowed_table_size(0);
    decoder
        .decode(block)
        .expect("the output can be decoded without a table")
}

fn header() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let name = prop_oneof![
        Just(b"te".to_vec()),
        Just(b":path".to_vec()),
        Just(b"workload.spiffe.io".to_vec()),
        "[a-z-]{1,20}".prop_map(String::into_bytes),
    ];
    (name, vec(any::<u8>(), 0..40))
}

/// Cuts a block into HEADERS and CONTINUATION frames, perhaps with padding and priority fields.
fn block_frames(stream: u32, block: &[u8], pieces: usize, padding: Option<u8>, priority: bool) -> Vec<u8> {
    let size = block.len().div_ceil(pieces).max(1);
    let mut chunks: Vec<&[u8]> = block.chunks(size).collect();
    if chunks.is_empty() {
        chunks.push(b"");
    }
    let last = chunks.len() - 1;
    let mut bytes = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let end = if index == last { END_HEADERS } else { 0 };
        if index > 0 {
            bytes.extend(frame(CONTINUATION, end, stream, chunk));
            continue;
        }
        let mut payload = Vec::new();
        payload.extend(padding);
        payload.extend(priority.then_some([0, 0, 0, 0, 9]).iter().flatten());
        payload.extend_from_slice(chunk);
        payload.extend(std::iter::repeat_n(0, padding.map_or(0, usize::from)));
        let flags = end
            | END_STREAM
            | if padding.is_some() { PADDED } else { 0 }
            | if priority { PRIORITY } else { 0 };
        bytes.extend(frame(HEADERS, flags, stream, &payload));
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Covers EP-23.
    #[test]
    fn headers_survive_in_order_whatever_the_client_indexed(
        lists in vec(vec(header(), 0..12), 1..6),
        pieces in 1_usize..8,
        padding in proptest::option::of(0_u8..20),
        priority in any::<bool>(),
        cuts in vec(1_usize..200, 1..20),
    ) {
        let mut encoder = Encoder::new();
        let mut input = PREFACE.to_vec();
        input.extend(frame(SETTINGS, 0, 0, &[]));
        for (index, list) in lists.iter().enumerate() {
            let block = encoder.encode(list.iter().map(|(name, value)| (&name[..], &value[..])));
            input.extend(block_frames(1 + 2 * index as u32, &block, pieces, padding, priority));
        }
        let (output, violation) = run(&input, &cuts);
        prop_assert_eq!(violation, None);
        let frames = frames(&output);
        prop_assert_eq!(frames.len(), 1 + lists.len());
        for (index, (list, (kind, flags, stream, payload))) in lists.iter().zip(&frames[1..]).enumerate() {
            prop_assert_eq!((*kind, *flags, *stream), (HEADERS, END_HEADERS | END_STREAM, 1 + 2 * index as u32));
            prop_assert_eq!(&decode(payload), list);
        }
    }

    /// Covers EP-23.
    #[test]
    fn an_authority_is_kept_or_becomes_localhost(authority in "[!-~]{0,80}") {
        let mut encoder = Encoder::new();
        let block = encoder.encode([(&b":authority"[..], authority.as_bytes())]);
        let input = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, &block)].concat();
        let (output, violation) = run(&input, &[4096]);
        prop_assert_eq!(violation, None);
        let mended = decode(&frames(&output)[1].3).remove(0).1;
        prop_assert!(mended == authority.as_bytes() || mended == b"localhost");
        let parsed = http::uri::Authority::try_from(&mended[..]);
        prop_assert!(parsed.is_ok());
    }

    /// Covers BG-06.
    #[test]
    fn cutting_the_input_differently_changes_nothing(
        noise in vec((0_u8..12, any::<u8>(), 0_u32..4, vec(any::<u8>(), 0..60)), 0..20),
        cuts in vec(1_usize..50, 1..10),
    ) {
        let mut input = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
        for (kind, flags, stream, payload) in noise {
            input.extend(frame(kind, flags, stream, &payload));
        }
        let whole = run(&input, &[usize::MAX]);
        let cut = run(&input, &cuts);
        prop_assert_eq!(&whole, &cut);
        for (kind, flags, stream, payload) in frames(&whole.0) {
            prop_assert!(kind != CONTINUATION);
            if kind == HEADERS {
                prop_assert!(stream != 0);
                prop_assert_eq!(flags & !(END_STREAM | END_HEADERS), 0);
                prop_assert!(payload.len() <= MAX_HEADER_LIST);
                decode(&payload);
            }
        }
    }

    /// Covers BG-06.
    #[test]
    fn random_bytes_after_the_preface_never_panic(bytes in vec(any::<u8>(), 0..2000), cuts in vec(1_usize..300, 1..10)) {
        run(&bytes, &cuts);
        let mut input = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
        input.extend_from_slice(&bytes);
        run(&input, &cuts);
    }

    /// Covers EP-23.
    #[test]
    fn other_frames_pass_unchanged(payloads in vec(vec(any::<u8>(), 0..3000), 0..5), cuts in vec(1_usize..4000, 1..10)) {
        let mut input = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])].concat();
        for payload in &payloads {
            input.extend(frame(DATA, END_STREAM, 1, payload));
        }
        let (output, violation) = run(&input, &cuts);
        prop_assert_eq!(violation, None);
        prop_assert_eq!(output, input);
    }
}

/// 16 KiB of empty Huffman strings and a fully indexed block take no noticeable time.
/// Covers EP-27.
#[test]
fn the_dearest_blocks_are_cheap() {
    let started = tokio::time::Instant::now();
    let mut empties: Vec<u8> = [0x00, 0x80, 0x80].repeat(5400);
    empties.truncate(MAX_FRAME_PAYLOAD);
    let huffman = [&[0x00, 0xff, 0xb1, 0x7e][..], &[0x55; 16240][..], &[0x00]].concat();
    for block in [empties, huffman, vec![0x82; MAX_FRAME_PAYLOAD]] {
        let input = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, &block),
        ]
        .concat();
        assert!(run(&input, &[4096]).1.is_some());
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(2));
}

/// An empty authority, the first entry of the static table, costs one byte and grows by nine when it is mended.
/// Covers EP-23.
#[test]
fn mending_counts_against_the_bound_of_the_header_list() {
    let fits = MAX_HEADER_LIST / (b":authority".len() + b"localhost".len() + 32);
    for (fields, accepted) in [(fits, true), (fits + 1, false)] {
        let block = vec![0x81; fields];
        let input = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, &block),
        ]
        .concat();
        let (_, violation) = run(&input, &[4096]);
        assert_eq!(violation.is_none(), accepted, "{fields}: {violation:?}");
    }
}
