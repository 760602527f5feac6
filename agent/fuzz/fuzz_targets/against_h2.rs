//! The authority filter against h2: the same bytes to both, and the requests that come out are compared.
//!
//! The first byte says how the rest is read: bit 0 takes it as the bytes after the opening of a connection, else it decides what a client
//! does; the upper bits are the size of the pieces in which they arrive.
//!
//! Run it with `cargo +nightly fuzz run -s none against_h2`: there is no unsafe code for a sanitizer to watch.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/endpoint/clients.rs"]
mod clients;
#[path = "../../tests/endpoint/oracle.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else {
        return;
    };
    let input = if how & 1 == 1 {
        [&clients::client(&[]), data].concat()
    } else {
        clients::client(data)
    };
    oracle::compare(&input, usize::from(how >> 1) * 4 + 1);
});
