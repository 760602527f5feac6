//! Certificates: what is read as a leaf or an authority reads the same again, and what is believed obeys the rules.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use signet_certs::authority::AuthorityCertificate;
use signet_certs::bundle::{DEFAULT_REFRESH_HINT, TrustBundle};
use signet_certs::crl::{CrlNumber, sign_crl};
use signet_certs::csr::{create_csr, verify_csr};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::svid::{Purpose, SvidProfile, sign, template};
use signet_certs::verify::{Role, TrustRoots, TrustedAuthority, inspect_leaf, verify_chain};
use signet_certs_fuzz::{AUTHORITY, leaf_key, now, object, serial};

const HOUR: Duration = Duration::from_secs(3600);

static LEAF: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let profile = SvidProfile {
        ttl: HOUR,
        clock_skew: HOUR,
        crl_base_url: Some("http://crl".to_owned()),
    };
    let id = SpiffeId::parse("spiffe://td/ns/a/sa/b").expect("an ID");
    let names = vec!["a.example".to_owned()];
    let template = template(
        &profile,
        Purpose::Workload,
        id,
        names,
        serial(2),
        &AUTHORITY.certificate,
        now(),
    )
    .expect("a template");
    let key = verify_csr(&create_csr(&leaf_key()).expect("a request")).expect("a key");
    sign(&template, &key, &AUTHORITY).expect("a leaf")
});

static ROOTS: LazyLock<TrustRoots> = LazyLock::new(|| {
    let crl = sign_crl(&AUTHORITY, &[], CrlNumber(1), now() - HOUR, now() + HOUR).expect("a CRL");
    let authority = TrustedAuthority {
        certificate: AUTHORITY.certificate.clone(),
        crl: Some(crl),
    };
    TrustRoots::new(vec![(
        TrustDomain::parse("td").expect("a trust domain"),
        vec![authority],
    )])
});

fuzz_target!(|data: &[u8]| {
    for good in [LEAF.as_slice(), AUTHORITY.certificate.der()] {
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
        assert_eq!(peer.spiffe_id.trust_domain_name(), "td");
        assert_eq!(peer.authority_id, AUTHORITY.certificate.id());
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
        assert_eq!((peer.spiffe_id, peer.serial), (leaf.spiffe_id, leaf.serial));
    }
}

fn as_authority(der: &[u8]) {
    let Ok(authority) = AuthorityCertificate::from_der(der) else {
        return;
    };
    assert_eq!(authority.der(), der);
    assert!(inspect_leaf(der).is_err());
    let domain = authority.trust_domain().cloned();
    let domain = domain.unwrap_or_else(|| TrustDomain::parse("td").expect("a trust domain"));
    let bundle = TrustBundle::new(domain.clone(), vec![authority], 1, DEFAULT_REFRESH_HINT);
    if let Ok(document) = bundle.to_json() {
        assert_eq!(TrustBundle::parse_json(&domain, &document).as_ref(), Ok(&bundle));
    }
}
