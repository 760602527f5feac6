//! Requests: whatever one asks for, only its key gets into the certificate.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use signet_certs::authority::X509Authority;
use signet_certs::csr::{create_csr, verify_csr};
use signet_certs::svid::{check, sign};
use signet_certs::verify::inspect_leaf;
use signet_certs_fuzz::{DOMAIN, Mode, fixed_leaf_key, mode, object};
use signet_testkit::{authority, leaf, serial};

static REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| create_csr(&fixed_leaf_key()).expect("a request"));
/// Another key than the one that signs requests.
static ISSUER: LazyLock<X509Authority> = LazyLock::new(|| authority(DOMAIN));
static KEY: LazyLock<Vec<u8>> = LazyLock::new(|| fixed_leaf_key().public_key_spki());

fuzz_target!(|data: &[u8]| {
    let Some(request) = object(data, &REQUEST) else {
        return;
    };
    let Ok(key) = verify_csr(&request) else { return };
    assert_eq!(verify_csr(&request).as_ref(), Ok(&key));
    // Whatever was edited around it, a request that verifies holds the key that signed it.
    let is_raw = matches!(mode(data), Some((Mode::Raw, _)));
    assert!(is_raw || key.spki_der() == KEY.as_slice());
    let template = leaf(&ISSUER, "/w").serial(serial(2)).template();
    let leaf = sign(&template, &key, &ISSUER).expect("a leaf");
    check(&leaf, &template, &key, ISSUER.certificate()).expect("a leaf that says what was asked");
    assert_eq!(
        inspect_leaf(&leaf).map(|leaf| leaf.spki_sha256),
        Ok(key.spki_sha256())
    );
});
