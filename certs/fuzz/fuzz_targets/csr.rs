//! Requests: whatever one asks for, only its key gets into the certificate.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use signet_certs::csr::{create_csr, verify_csr};
use signet_certs::id::SpiffeId;
use signet_certs::svid::{Purpose, SvidProfile, check, sign, template};
use signet_certs::verify::inspect_leaf;
use signet_certs_fuzz::{AUTHORITY, fixed_leaf_key, now, object, serial};

static REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| create_csr(&fixed_leaf_key()).expect("a request"));
static KEY: LazyLock<Vec<u8>> = LazyLock::new(|| fixed_leaf_key().public_key_spki());

fuzz_target!(|data: &[u8]| {
    let Some(request) = object(data, &REQUEST) else {
        return;
    };
    let Ok(key) = verify_csr(&request) else { return };
    assert_eq!(verify_csr(&request).as_ref(), Ok(&key));
    if key.spki_der() == KEY.as_slice() {
        // The fixed key is the authority's own.
        assert!(key.refuse_authority_keys(&[AUTHORITY.certificate.id()]).is_err());
        return;
    }
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
        &AUTHORITY.certificate,
        now(),
    )
    .expect("a template");
    let leaf = sign(&template, &key, &AUTHORITY).expect("a leaf");
    check(&leaf, &template, &key, &AUTHORITY.certificate).expect("a leaf that says what was asked");
    assert_eq!(
        inspect_leaf(&leaf).map(|leaf| leaf.spki_sha256),
        Ok(key.spki_sha256())
    );
});
