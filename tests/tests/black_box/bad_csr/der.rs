//! Just enough DER to write requests that no honest library would write.

pub(super) const EC_PUBLIC_KEY: &[u8] = &[42, 134, 72, 206, 61, 2, 1];
pub(super) const P256: &[u8] = &[42, 134, 72, 206, 61, 3, 1, 7];
pub(super) const RSA_ENCRYPTION: &[u8] = &[42, 134, 72, 134, 247, 13, 1, 1, 1];
pub(super) const ECDSA_SHA256: &[u8] = &[42, 134, 72, 206, 61, 4, 3, 2];
pub(super) const ECDSA_SHA1: &[u8] = &[42, 134, 72, 206, 61, 4, 1];
pub(super) const RSA_SHA256: &[u8] = &[42, 134, 72, 134, 247, 13, 1, 1, 11];
pub(super) const RSA_SHA1: &[u8] = &[42, 134, 72, 134, 247, 13, 1, 1, 5];
pub(super) const MD5_RSA: &[u8] = &[42, 134, 72, 134, 247, 13, 1, 1, 4];

pub(super) fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    match content.len() {
        0..=0x7f => der.push(length[3]),
        0x80..=0xff => der.extend([0x81, length[3]]),
        0x100..=0xffff => der.extend([0x82, length[2], length[3]]),
        _ => der.extend([0x84, length[0], length[1], length[2], length[3]]),
    }
    der.extend_from_slice(content);
    der
}

pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tagged(0x30, &parts.concat())
}

pub(super) fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    tagged(0x31, &parts.concat())
}

pub(super) fn context(number: u8, content: &[u8]) -> Vec<u8> {
    tagged(0xa0 | number, content)
}

/// A non-negative INTEGER.
pub(super) fn integer(big_endian: &[u8]) -> Vec<u8> {
    if big_endian[0] & 0x80 == 0 {
        tagged(2, big_endian)
    } else {
        tagged(2, &[&[0], big_endian].concat())
    }
}

pub(super) fn bits(content: &[u8]) -> Vec<u8> {
    tagged(3, &[&[0], content].concat())
}

pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    tagged(4, content)
}

/// An OBJECT IDENTIFIER by its encoded arcs.
pub(super) fn object_id(encoded: &[u8]) -> Vec<u8> {
    tagged(6, encoded)
}

pub(super) fn text(value: &str) -> Vec<u8> {
    tagged(0x0c, value.as_bytes())
}

/// A GeneralName.
pub(super) fn uri(value: &str) -> Vec<u8> {
    tagged(0x86, value.as_bytes())
}

/// The SubjectPublicKeyInfo of an EC P-256 certificate: found by its fixed beginning.
pub(super) fn spki_of(certificate: &[u8]) -> Vec<u8> {
    let algorithm = sequence(&[object_id(EC_PUBLIC_KEY), object_id(P256)]);
    let at = certificate
        .windows(algorithm.len())
        .position(|part| part == algorithm)
        .unwrap();
    // SEQUENCE and its length come before, 68 bytes of BIT STRING after.
    certificate[at - 2..at + algorithm.len() + 68].to_vec()
}
