//! What the unit tests share beside the testkit: numbered leaves, lists with any entry, and a small DER writer for bad
//! inputs.

use rustls_pki_types::CertificateDer;

use crate::authority::X509Authority;
use crate::crl::{Crl, CrlNumber, RevokedEntry, sign_crl};
use crate::svid::{SvidProfile, SvidTemplate, X509Svid};
pub(crate) use crate::testkit::{
    DAY, HOUR, SKEW, authority, authority_between, id, leaf, leaf_key, now, public_key, rng, serial, td,
};
use crate::time::unix_millis;

pub(crate) fn profile() -> SvidProfile {
    SvidProfile {
        ttl: HOUR,
        clock_skew: SKEW,
        crl_base_url: None,
    }
}

pub(crate) fn template_for(authority: &X509Authority, text: &str, number: u8) -> SvidTemplate {
    leaf(authority, text).serial(serial(number)).template()
}

/// A leaf for `text` that lives for an hour.
pub(crate) fn svid(authority: &X509Authority, text: &str, number: u8) -> X509Svid {
    leaf(authority, text).serial(serial(number)).svid()
}

pub(crate) fn crl(authority: &X509Authority, entries: &[RevokedEntry]) -> Crl {
    let number = CrlNumber(u64::try_from(unix_millis(now())).unwrap());
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
