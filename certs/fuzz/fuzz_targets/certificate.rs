//! Certificates: what is read as a leaf or an authority reads the same again, and what is believed obeys the rules.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use signet_certs::authority::AuthorityCertificate;
use signet_certs::bundle::{DEFAULT_REFRESH_HINT, TrustBundle};
use signet_certs::id::SpiffeId;
use signet_certs::svid::{SvidTemplate, crl_url, sign};
use signet_certs::verify::{Role, TrustRoots, inspect_leaf, verify_chain};
use signet_certs_fuzz::{AUTHORITY, DOMAIN, object};
use signet_testkit::{crl, leaf, leaf_key, now, public_key, roots, td};

/// With every extension that a leaf may have.
static LEAF: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let template = SvidTemplate {
        dns_names: vec!["a.example".to_owned()],
        crl_url: Some(crl_url("http://crl", AUTHORITY.certificate().id()).expect("an address")),
        ..leaf(&AUTHORITY, "/ns/a/sa/b").template()
    };
    sign(&template, &public_key(&leaf_key()), &AUTHORITY).expect("a leaf")
});

static ROOTS: LazyLock<TrustRoots> = LazyLock::new(|| roots(&[(&AUTHORITY, Some(&crl(&AUTHORITY, 1, &[])))]));

fuzz_target!(|data: &[u8]| {
    for good in [LEAF.as_slice(), AUTHORITY.certificate().der()] {
        let Some(certificate) = object(data, good) else {
            return;
        };
        as_leaf(&certificate);
        as_authority(&certificate);
    }
});

fn as_leaf(der: &[u8]) {
    let believed = verify_chain(&[CertificateDer::from(der.to_vec())], Role::Client, &ROOTS, now());
    if let Ok(peer) = &believed {
        assert_eq!(peer.spiffe_id().trust_domain_name(), DOMAIN);
        assert_eq!(peer.authority_id(), AUTHORITY.certificate().id());
        assert!(peer.recheck(&ROOTS, now()).is_ok());
    }
    let Ok(leaf) = inspect_leaf(der) else { return };
    assert!(!leaf.spiffe_id.is_trust_domain());
    assert_eq!(
        SpiffeId::parse(leaf.spiffe_id.as_str()).as_ref(),
        Ok(&leaf.spiffe_id)
    );
    assert_eq!(leaf.serial.to_string().parse().as_ref(), Ok(&leaf.serial));
    if let Ok(peer) = believed {
        assert_eq!((peer.spiffe_id(), peer.serial()), (&leaf.spiffe_id, leaf.serial));
    }
}

fn as_authority(der: &[u8]) {
    let Ok(authority) = AuthorityCertificate::from_der(der) else {
        return;
    };
    assert_eq!(authority.der(), der);
    assert!(inspect_leaf(der).is_err());
    let domain = authority.trust_domain().cloned();
    let domain = domain.unwrap_or_else(|| td(DOMAIN));
    let bundle = TrustBundle::new(domain.clone(), vec![authority], 1, DEFAULT_REFRESH_HINT);
    if let Ok(document) = bundle.to_json() {
        assert_eq!(TrustBundle::parse_json(&domain, &document).as_ref(), Ok(&bundle));
    }
}
