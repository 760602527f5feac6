//! Requests: whatever one asks for, only its key gets into the certificate.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;
use signet_certs::authority::X509Authority;
use signet_certs::csr::{create_csr, verify_csr};
use signet_certs::id::SpiffeId;
use signet_certs::signer::LocalSigner;
use signet_certs::svid::{Purpose, SvidProfile, check, sign, template};
use signet_certs::verify::inspect_leaf;
use signet_certs_fuzz::{Mode, authority, fixed_leaf_key, mode, now, object, serial};

static REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| create_csr(&fixed_leaf_key()).expect("a request"));
/// Another key than the one that signs requests.
static ISSUER: LazyLock<X509Authority> =
    LazyLock::new(|| authority(LocalSigner::generate(&SystemRandom::new()).expect("a key").0));
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
    let profile = SvidProfile {
        ttl: Duration::from_secs(3600),
        clock_skew: Duration::ZERO,
        crl_base_url: None,
    };
    let id = SpiffeId::parse("spiffe://td/w").expect("an ID");
    let template = template(
        &profile,
        Purpose::Workload,
        id,
        Vec::new(),
        serial(2),
        &ISSUER.certificate,
        now(),
    )
    .expect("a template");
    let leaf = sign(&template, &key, &ISSUER).expect("a leaf");
    check(&leaf, &template, &key, &ISSUER.certificate).expect("a leaf that says what was asked");
    assert_eq!(
        inspect_leaf(&leaf).map(|leaf| leaf.spki_sha256),
        Ok(key.spki_sha256())
    );
});
