//! What the unit tests share: a fixed time, ready authorities, and a small DER writer for bad inputs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use rustls_pki_types::CertificateDer;

use crate::authority::{AuthorityKind, AuthorityProfile, X509Authority, create_authority};
use crate::crl::{Crl, CrlNumber, RevokedEntry, sign_crl};
use crate::csr::{WorkloadPublicKey, create_csr, verify_csr};
use crate::id::{SpiffeId, TrustDomain};
use crate::serial::SerialNumber;
use crate::signer::{LeafKey, LocalSigner};
use crate::svid::{Purpose, SvidProfile, SvidTemplate, X509Svid, sign, template};
use crate::time::from_unix_seconds;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const SKEW: Duration = Duration::from_secs(120);

/// 2026-11-21T09:40:00Z.
pub(crate) fn now() -> SystemTime {
    from_unix_seconds(1_795_254_000)
}

pub(crate) fn rng() -> SystemRandom {
    SystemRandom::new()
}

pub(crate) fn td(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(crate) fn serial(tail: u8) -> SerialNumber {
    SerialNumber::generate(now(), &[tail; 13])
}

/// An authority that began an hour ago and lives for 7 days.
pub(crate) fn authority(domain: &str) -> X509Authority {
    authority_between(domain, now() - HOUR, now() + 7 * DAY)
}

pub(crate) fn authority_between(
    domain: &str,
    not_before: SystemTime,
    not_after: SystemTime,
) -> X509Authority {
    let (signer, _) = LocalSigner::generate(&rng()).unwrap();
    let profile = AuthorityProfile {
        trust_domain: td(domain),
        kind: AuthorityKind::X509,
        not_before,
        not_after,
        serial: serial(0xca),
    };
    let certificate = create_authority(&profile, &signer).unwrap();
    X509Authority::new(certificate, Arc::new(signer)).unwrap()
}

pub(crate) fn leaf_key() -> LeafKey {
    LeafKey::generate(&rng()).unwrap()
}

pub(crate) fn public_key(key: &LeafKey) -> WorkloadPublicKey {
    verify_csr(&create_csr(key).unwrap()).unwrap()
}

pub(crate) fn profile() -> SvidProfile {
    SvidProfile {
        ttl: HOUR,
        clock_skew: SKEW,
        crl_base_url: None,
    }
}

pub(crate) fn purpose(id: &SpiffeId) -> Purpose {
    if id.is_reserved() {
        Purpose::Control
    } else {
        Purpose::Workload
    }
}

pub(crate) fn template_for(authority: &X509Authority, text: &str, number: u8) -> SvidTemplate {
    let id = id(text);
    template(
        &profile(),
        purpose(&id),
        id,
        Vec::new(),
        serial(number),
        &authority.certificate,
        now(),
    )
    .unwrap()
}

/// A leaf for `text` that lives for an hour.
pub(crate) fn svid(authority: &X509Authority, text: &str, number: u8) -> X509Svid {
    let key = leaf_key();
    let leaf = sign(
        &template_for(authority, text, number),
        &public_key(&key),
        authority,
    )
    .unwrap();
    X509Svid::new(vec![leaf], key).unwrap()
}

pub(crate) fn crl(authority: &X509Authority, entries: &[RevokedEntry]) -> Crl {
    let number = CrlNumber::next(None, now());
    sign_crl(authority, entries, number, now() - SKEW, now() + 2 * HOUR).unwrap()
}

pub(crate) fn chain(der: &[u8]) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from(der.to_vec())]
}

/// One DER element.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = vec![tag];
    match length {
        0..=0x7f => der.push(u8::try_from(length).unwrap()),
        0x80..=0xff => der.extend([0x81, u8::try_from(length).unwrap()]),
        _ => {
            der.push(0x83);
            der.extend(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
            if length <= 0xffff {
                der.truncate(1);
                der.push(0x82);
                der.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
        }
    }
    der.extend_from_slice(content);
    der
}

/// A constructed element around `parts`.
pub(crate) fn nest(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    tlv(tag, &parts.concat())
}

/// An OBJECT IDENTIFIER from its content octets in hexadecimal.
pub(crate) fn oid(content: &str) -> Vec<u8> {
    tlv(0x06, &hex::decode(content).unwrap())
}

/// A BIT STRING without unused bits.
pub(crate) fn bits(content: &[u8]) -> Vec<u8> {
    nest(0x03, &[&[0], content])
}

/// An unsigned INTEGER.
pub(crate) fn integer(magnitude: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if magnitude.first().is_some_and(|byte| *byte >= 0x80) {
        &[0]
    } else {
        &[]
    };
    nest(0x02, &[sign, magnitude])
}

/// ecdsa-with-SHA256.
pub(crate) fn ecdsa_sha256() -> Vec<u8> {
    nest(0x30, &[&oid("2a8648ce3d040302")])
}

/// One extension.
pub(crate) fn extension(oid_content: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    nest(0x30, &[&oid(oid_content), flag, &tlv(0x04, value)])
}

/// A signed structure: `tbs`, ecdsa-with-SHA256, and what `sign` makes of `tbs`.
pub(crate) fn signed(tbs: &[u8], sign: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    nest(0x30, &[tbs, &ecdsa_sha256(), &bits(&sign(tbs))])
}
