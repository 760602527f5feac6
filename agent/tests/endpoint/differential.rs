//! The filter against h2, which alone knows what a client's bytes mean.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::clients::client;
use crate::oracle::compare;
use crate::support::raw::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame};

/// h2 ends the whole connection for it, the filter's one frame costs its stream alone.
#[test]
fn a_bad_field_in_a_middle_fragment_changes_no_other_request() {
    let start = b"\x83\x86\x44\x20/SpiffeWorkloadAPI/FetchX509SVID";
    let came = compare(
        &[
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_STREAM | END_HEADERS, 1, start),
            frame(HEADERS, END_STREAM, 3, start),
            frame(CONTINUATION, 0, 3, b"\x40\x02te\x04gzip"),
            frame(CONTINUATION, END_HEADERS, 3, b"\x40\x03x-h\x01a"),
        ]
        .concat(),
        4096,
    );
    assert_eq!(came, 1);
}

/// h2 takes a quotation mark in the name of a field, and so does what stands behind the filter.
#[test]
fn a_field_whose_name_only_h2_takes_comes_through_beside_a_mended_authority() {
    let block = b"\x83\x86\x44\x20/SpiffeWorkloadAPI/FetchX509SVID\x41\x01[\x00\x05x-\"in\x01v";
    let came = compare(
        &[
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_STREAM | END_HEADERS, 1, block),
        ]
        .concat(),
        4096,
    );
    assert_eq!(came, 1);
}

#[test]
fn most_clients_get_through_to_requests() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()[3]
    };
    let came = (0..300).map(|_| {
        let choices: Vec<u8> = (0..80).map(|_| random()).collect();
        compare(&client(&choices), 64)
    });
    let came: Vec<_> = came.collect();
    let with_requests = came.iter().filter(|count| **count > 0).count();
    assert!(
        with_requests > 100,
        "{with_requests} of 300: the test tests little"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Covers EP-23.
    #[test]
    fn every_request_comes_through_the_filter_as_h2_would_read_it(choices in vec(any::<u8>(), 0..160), piece in 1_usize..300) {
        compare(&client(&choices), piece);
    }

    #[test]
    fn bytes_that_are_hardly_a_client_mean_the_same_too(noise in vec(any::<u8>(), 0..200)) {
        let opening = client(&[]);
        compare(&[opening, noise].concat(), 16);
    }
}
