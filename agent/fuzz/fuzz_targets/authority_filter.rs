//! Hostile clients against the authority filter's frame rewriter.
//!
//! Whatever comes in, nothing panics, no more than one frame is held back, what goes out is framed legally, and each
//! header block of it can be decoded with an empty table, by a second decoder that has seen nothing else.
//!
//! The first byte says how the rest is read: bit 0 wraps it into HEADERS frames (one per 0xff-terminated part), so that
//! the fuzzer need not learn framing first; the upper bits are the size of the pieces in which the input arrives.
//!
//! Run it with `cargo +nightly fuzz run -s none authority_filter`: there is no unsafe code for a sanitizer to watch.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use loona_hpack::Decoder;
use signet_agent::testing::{MAX_FRAME_PAYLOAD, MAX_HEADER_LIST, Rewriter};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const FRAME_HEADER: usize = 9;

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else {
        return;
    };
    let mut input = [PREFACE, SETTINGS].concat();
    if how & 1 == 0 {
        input.extend_from_slice(data);
    } else {
        for (index, block) in data.split(|byte| *byte == 0xff).enumerate() {
            frame(
                &mut input,
                2 * index as u32 + 1,
                &block[..block.len().min(MAX_FRAME_PAYLOAD)],
            );
        }
    }
    let output = rewrite(&input, usize::from(how >> 1) * 16 + 1);
    check(&output);
});

fn frame(out: &mut Vec<u8>, stream: u32, block: &[u8]) {
    out.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[1, 4]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(block);
}

fn rewrite(input: &[u8], piece: usize) -> Vec<u8> {
    let mut rewriter = Rewriter::new();
    let mut waiting = BytesMut::new();
    let mut output = Vec::new();
    for part in input.chunks(piece) {
        waiting.extend_from_slice(part);
        loop {
            match rewriter.next(&mut waiting) {
                Ok(Some(bytes)) => output.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(_) => return output,
            }
        }
        assert!(
            waiting.len() < FRAME_HEADER + MAX_FRAME_PAYLOAD,
            "more than one frame held back"
        );
    }
    output
}

fn check(output: &[u8]) {
    let mut rest = output.strip_prefix(PREFACE).unwrap_or_default();
    while let Some((header, body)) = rest.split_at_checked(FRAME_HEADER) {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        assert!(length <= MAX_FRAME_PAYLOAD);
        // A frame that passes unchanged may have been cut by the end of the input.
        let Some((payload, later)) = body.split_at_checked(length) else {
            return;
        };
        assert!(
            header[3] != 9 && header[3] != 5,
            "CONTINUATION or PUSH_PROMISE passed"
        );
        if header[3] == 1 {
            assert_eq!(
                header[4] & !1,
                4,
                "HEADERS with other flags than END_HEADERS and END_STREAM"
            );
            let mut decoder = Decoder::new();
            decoder.set_max_table_size(0);
            decoder.set_max_allowed_table_size(0);
            let fields = decoder.decode(payload).expect("a block that needs no table");
            let size: usize = fields
                .iter()
                .map(|(name, value)| name.len() + value.len() + 32)
                .sum();
            assert!(size <= MAX_HEADER_LIST);
        }
        rest = later;
    }
}
