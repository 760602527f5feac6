//! Certificate requests, good and bad (conformance §15.2).

use proptest::prelude::*;
use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair};

use super::*;
use crate::testing::*;

/// For tests only; it signs nothing else.
const RSA_KEY: &[u8] = include_bytes!("../../tests/fixtures/test-rsa-2048.pk8");
const EMPTY_ATTRIBUTES: [u8; 2] = [0xa0, 0x00];

/// CertificationRequestInfo with an empty subject.
fn info(spki: &[u8], attributes: &[u8]) -> Vec<u8> {
    nest(0x30, &[&integer(&[0]), &tlv(0x30, &[]), spki, attributes])
}

fn assemble(info: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    nest(0x30, &[info, algorithm, &bits(signature)])
}

/// A request over `info` signed with `key` by ECDSA-SHA256.
fn signed_by(key: &LeafKey, info: &[u8]) -> Vec<u8> {
    use rcgen::SigningKey as _;
    signed(info, |message| RcgenLeafKey(key).sign(message).unwrap())
}

fn rsa_algorithm(last: u8) -> Vec<u8> {
    nest(0x30, &[&oid(&format!("2a864886f70d0101{last:02x}")), &[5, 0]])
}

fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = nest(0x30, &[&integer(modulus), &integer(exponent)]);
    nest(0x30, &[&rsa_algorithm(1), &bits(&key)])
}

fn rsa_request(encoding: &'static dyn RsaEncoding, algorithm: &[u8]) -> Vec<u8> {
    let key = RsaKeyPair::from_pkcs8(RSA_KEY).unwrap();
    let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
    let info = info(&rsa_spki(&public.n, &public.e), &EMPTY_ATTRIBUTES);
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(encoding, &rng(), &info, &mut signature).unwrap();
    assemble(&info, algorithm, &signature)
}

/// A request whose key is refused before any signature counts.
fn refusal_of(spki: &[u8]) -> CsrError {
    verify_csr(&assemble(
        &info(spki, &EMPTY_ATTRIBUTES),
        &ecdsa_sha256(),
        &[1; 70],
    ))
    .unwrap_err()
}

fn ec_spki(curve: &[u8], point: &[u8]) -> Vec<u8> {
    nest(
        0x30,
        &[&nest(0x30, &[&oid("2a8648ce3d0201"), curve]), &bits(point)],
    )
}

/// Covers BC-10.
#[test]
fn our_own_request_is_accepted_and_carries_only_the_key() {
    let key = leaf_key();
    let request = create_csr(&key).unwrap();
    let public = verify_csr(&request).unwrap();
    assert_eq!(public.spki_der(), key.public_key_spki());
    assert_eq!(public.algorithm(), KeyAlgorithm::EcP256);
    assert_eq!(
        public.spki_sha256().as_slice(),
        digest::digest(&digest::SHA256, public.spki_der()).as_ref()
    );
    assert_eq!(public.key_id(), AuthorityId::of_spki(public.spki_der()));
    assert!(request.len() < 250);
}

#[test]
fn rsa_requests_are_accepted_with_the_three_hashes() {
    let absent = nest(0x30, &[&oid("2a864886f70d01010b")]);
    assert!(verify_csr(&rsa_request(&RSA_PKCS1_SHA256, &absent)).is_ok());
    for (encoding, last) in [
        (&RSA_PKCS1_SHA256 as &dyn RsaEncoding, 11),
        (&RSA_PKCS1_SHA384, 12),
        (&RSA_PKCS1_SHA512, 13),
    ] {
        let public = verify_csr(&rsa_request(encoding, &rsa_algorithm(last))).unwrap();
        assert_eq!(public.algorithm(), KeyAlgorithm::Rsa { bits: 2048 });
        assert_eq!(PublicKeyData::subject_public_key_info(&public), public.spki_der());
    }
}

/// Covers BC-01, BC-02.
#[test]
fn what_is_no_der_request_is_refused() {
    let good = create_csr(&leaf_key()).unwrap();
    let authority = authority("td");
    let pem = crate::pem::encode("CERTIFICATE REQUEST", &good);
    let mut wrong_tag = good.clone();
    wrong_tag[0] = 0x31;
    let mut trailing = good.clone();
    trailing.push(0);
    let mut indefinite = vec![0x30, 0x80];
    indefinite.extend_from_slice(&good[3..]);
    indefinite.extend([0, 0]);
    let noise: Vec<u8> = (0..1024_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for bytes in [
        &[][..],
        &[0x30],
        &noise,
        authority.certificate().der(),
        pem.as_bytes(),
        &wrong_tag,
        &trailing,
        &indefinite,
    ] {
        assert!(verify_csr(bytes).is_err());
    }
    for end in 0..good.len() {
        assert!(verify_csr(&good[..end]).is_err(), "truncated at {end}");
    }
    assert_eq!(
        verify_csr(&vec![0x30; MAX_CSR_BYTES + 1]),
        Err(CsrError::TooLarge(MAX_CSR_BYTES + 1))
    );
}

/// Covers BC-02.
#[test]
fn bytes_hidden_inside_the_structures_are_refused() {
    let key = leaf_key();
    let spki = key.public_key_spki();
    let extra_in_info = nest(
        0x30,
        &[&integer(&[0]), &tlv(0x30, &[]), &spki, &EMPTY_ATTRIBUTES, &[5, 0]],
    );
    assert!(verify_csr(&signed_by(&key, &extra_in_info)).is_err());
    let info = info(&spki, &EMPTY_ATTRIBUTES);
    let inner = signed_by(&key, &info);
    let content = der::single(&inner).unwrap().content;
    assert_eq!(
        verify_csr(&nest(0x30, &[content, &[5, 0]])),
        Err(CsrError::Der(DerError::Trailing(2)))
    );
}

/// Covers BC-03.
#[test]
fn possession_must_be_proven() {
    let (key, other) = (leaf_key(), leaf_key());
    let info = info(&key.public_key_spki(), &EMPTY_ATTRIBUTES);
    assert!(verify_csr(&signed_by(&key, &info)).is_ok());
    assert_eq!(verify_csr(&signed_by(&other, &info)), Err(CsrError::Signature));
    assert_eq!(
        verify_csr(&assemble(&info, &ecdsa_sha256(), &[])),
        Err(CsrError::Signature)
    );
    let mut flipped = signed_by(&key, &info);
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(verify_csr(&flipped), Err(CsrError::Signature));
    let mismatched = assemble(&info, &rsa_algorithm(11), &[1; 256]);
    assert!(matches!(
        verify_csr(&mismatched),
        Err(CsrError::SignatureAlgorithm(_))
    ));
    let sha384 = assemble(&info, &nest(0x30, &[&oid("2a8648ce3d040303")]), &[1; 70]);
    assert!(matches!(
        verify_csr(&sha384),
        Err(CsrError::SignatureAlgorithm(_))
    ));
}

/// Covers BC-04, VAL-17.
#[test]
fn weak_large_and_malformed_rsa_keys_are_refused() {
    let odd = |bits: usize| {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        modulus
    };
    let exponent = [1, 0, 1];
    for bits in [512, 1024, 2047, 4097, 16_384] {
        let error = refusal_of(&rsa_spki(&odd(bits), &exponent));
        // 16384 bits may also fail on the size of the request.
        assert!(
            matches!(error, CsrError::Rsa(ref why) if why.contains(&bits.to_string())),
            "{bits}: {error}"
        );
    }
    for exponent in [&[1][..], &[3], &[1, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 1], &[0]] {
        assert!(
            matches!(refusal_of(&rsa_spki(&odd(2048), exponent)), CsrError::Rsa(_)),
            "{exponent:?}"
        );
    }
    let mut even = odd(2048);
    *even.last_mut().unwrap() = 0xfe;
    for modulus in [&even[..], &[0], &[]] {
        assert!(matches!(
            refusal_of(&rsa_spki(modulus, &exponent)),
            CsrError::Rsa(_) | CsrError::Der(_)
        ));
    }
    // A negative modulus, bytes after the key, unused bits.
    let negative = nest(0x30, &[&tlv(0x02, &odd(2048)), &integer(&exponent)]);
    assert!(matches!(
        refusal_of(&nest(0x30, &[&rsa_algorithm(1), &bits(&negative)])),
        CsrError::Rsa(_)
    ));
    let key = nest(0x30, &[&integer(&odd(2048)), &integer(&exponent)]);
    let trailing = nest(0x30, &[&rsa_algorithm(1), &bits(&[&key[..], &[5, 0]].concat())]);
    assert_eq!(refusal_of(&trailing), CsrError::Der(DerError::Trailing(2)));
    let unused = nest(0x30, &[&rsa_algorithm(1), &nest(0x03, &[&[1], &key])]);
    assert!(matches!(
        refusal_of(&unused),
        CsrError::KeyType | CsrError::NotARequest(_)
    ));
}

/// Covers BC-05.
#[test]
fn other_curves_and_point_forms_are_refused() {
    let p256 = oid("2a8648ce3d030107");
    let point = leaf_key().public_key_spki()[26..].to_vec();
    let compressed = [&[2][..], &point[1..33]].concat();
    for spki in [
        ec_spki(&oid("2a8648ce3d030101"), &[4; 49]),
        ec_spki(&oid("2b8104000a"), &point),
        ec_spki(&oid("2b81040022"), &[4; 97]),
        ec_spki(&nest(0x30, &[&integer(&[1])]), &point),
        ec_spki(&p256, &compressed),
        ec_spki(&p256, &[0]),
        ec_spki(&p256, &[]),
        ec_spki(&p256, &[&point[..], &[0]].concat()),
    ] {
        assert_eq!(refusal_of(&spki), CsrError::KeyType);
    }
    let mut off_curve = point;
    off_curve[64] ^= 1;
    assert_eq!(refusal_of(&ec_spki(&p256, &off_curve)), CsrError::Signature);
}

/// Covers BC-06.
#[test]
fn other_kinds_of_keys_are_refused() {
    for algorithm in [
        "2a8648ce380401",
        "2a864886f70d010301",
        "2b656e",
        "2b6570",
        "608648016503040311",
    ] {
        let spki = nest(0x30, &[&nest(0x30, &[&oid(algorithm)]), &bits(&[7; 32])]);
        assert_eq!(refusal_of(&spki), CsrError::KeyType, "{algorithm}");
    }
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let request = CertificateParams::default().serialize_request(&ed25519).unwrap();
    assert_eq!(verify_csr(request.der()), Err(CsrError::KeyType));
}

/// rcgen takes the key's type from the signature's algorithm; here a P-384 key may not pass as P-256.
#[test]
fn the_key_itself_decides_not_the_signature_s_algorithm() {
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let request = CertificateParams::default().serialize_request(&p384).unwrap();
    assert_eq!(verify_csr(request.der()), Err(CsrError::KeyType));
}

/// Covers BC-07, VAL-17.
#[test]
fn md5_and_sha1_signatures_are_refused() {
    for last in [4, 5, 14, 10] {
        let error = verify_csr(&rsa_request(&RSA_PKCS1_SHA256, &rsa_algorithm(last))).unwrap_err();
        assert!(
            matches!(error, CsrError::SignatureAlgorithm(_)),
            "{last}: {error}"
        );
    }
}

/// Covers BC-08, BC-09, BC-11, X509-17, INV-6.
#[test]
fn whatever_a_request_asks_for_is_ignored() {
    let key = leaf_key();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning, ExtendedKeyUsagePurpose::Any];
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    params.subject_alt_names = vec![uri("spiffe://td/other"), uri("spiffe://td"), uri("https://x")];
    for name in ["*", "*.*.x", "a..b", "xn--\u{1}"] {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.try_into().unwrap()));
    }
    let request = params.serialize_request(&RcgenLeafKey(&key)).unwrap();
    let public = verify_csr(request.der()).unwrap();
    assert_eq!(public, verify_csr(&create_csr(&key).unwrap()).unwrap());

    let authority = authority("td");
    let template = template_for(&authority, "spiffe://td/ns/a/sa/b", 1);
    let leaf = crate::svid::sign(&template, &public, &authority).unwrap();
    crate::svid::check(&leaf, &template, &public, authority.certificate()).unwrap();
}

/// Covers BC-12.
#[test]
fn large_or_broken_subjects_are_never_copied() {
    let key = leaf_key();
    let name = |value: &[u8]| {
        let attribute = nest(0x30, &[&oid("550403"), &tlv(0x0c, value)]);
        nest(0x30, &[&nest(0x31, &[&attribute])])
    };
    let request = |subject: &[u8]| {
        let info = nest(
            0x30,
            &[&integer(&[0]), subject, &key.public_key_spki(), &EMPTY_ATTRIBUTES],
        );
        verify_csr(&signed_by(&key, &info))
    };
    assert_eq!(
        request(&name(b"a\0b")).map(|public| public.spki_der().to_vec()),
        Ok(key.public_key_spki())
    );
    // Invalid UTF-8 may be refused or ignored; it ends in an answer.
    let _ = request(&name(&[0xff, 0xfe]));
    let large = name(&vec![b'a'; 1 << 20]);
    assert!(matches!(request(&large), Err(CsrError::TooLarge(_))));
    let rdns = der::single(&name(b"x")).unwrap().content.repeat(1000);
    assert_eq!(
        request(&tlv(0x30, &rdns)).map(|public| public.spki_der().to_vec()),
        Ok(key.public_key_spki())
    );
}

/// Covers BC-13.
#[test]
fn odd_versions_are_refused_and_odd_attributes_end_in_an_answer() {
    let key = leaf_key();
    let spki = key.public_key_spki();
    let version_7 = nest(0x30, &[&integer(&[7]), &tlv(0x30, &[]), &spki, &EMPTY_ATTRIBUTES]);
    assert_eq!(
        verify_csr(&signed_by(&key, &version_7)),
        Err(CsrError::Version(7))
    );
    let attribute = |kind: &str, value: &[u8]| nest(0x30, &[&oid(kind), &nest(0x31, &[value])]);
    let extensions = nest(
        0x30,
        &[&extension("551d13", true, &[0x30, 0x03, 0x01, 0x01, 0xff])],
    );
    let request = attribute("2a864886f70d01090e", &extensions);
    for attributes in [
        vec![attribute("2a864886f70d010907", &tlv(0x0c, b"secret"))],
        vec![request.clone(), request],
        vec![attribute("2a0304", &tlv(0x04, b"?"))],
        vec![tlv(0x04, b"not an attribute")],
    ] {
        let parts: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
        if let Ok(public) = verify_csr(&signed_by(&key, &info(&spki, &nest(0xa0, &parts)))) {
            assert_eq!(public.spki_der(), spki);
        }
    }
}

/// Covers BC-14.
#[test]
fn an_authority_s_own_key_gets_no_certificate() {
    let authority = authority("td");
    let (signer, id) = (authority.signer().as_ref(), authority.certificate().id());
    let info = info(
        &crate::signer::p256_spki(signer.public_point()),
        &EMPTY_ATTRIBUTES,
    );
    let public = verify_csr(&signed(&info, |message| signer.sign(message).unwrap())).unwrap();
    assert_eq!(
        public.refuse_authority_keys(&[id]),
        Err(CsrError::AuthorityKey(id))
    );
    assert_eq!(public.refuse_authority_keys(&[]), Ok(()));
    let template = template_for(&authority, "spiffe://td/w", 1);
    assert!(crate::svid::sign(&template, &public, &authority).is_err());
}

/// Covers BC-03.
#[test]
fn every_single_bit_counts() {
    let request = create_csr(&leaf_key()).unwrap();
    for bit in 0..request.len() * 8 {
        let mut changed = request.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(verify_csr(&changed).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verify_csr(&bytes).is_err());
    }
}

#[test]
fn work_is_read_from_the_key_and_nothing_is_checked_for_it() {
    let rsa = rsa_request(&RSA_PKCS1_SHA256, &rsa_algorithm(11));
    let mut forged = rsa.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(verify_csr(&forged), Err(CsrError::Signature));
    let large = info(&rsa_spki(&[0xff; 512], &[1, 0, 1]), &EMPTY_ATTRIBUTES);
    let large = assemble(&large, &rsa_algorithm(11), &[1; 512]);
    assert_eq!(verify_csr(&large), Err(CsrError::Signature));
    assert_eq!(
        [&rsa, &forged, &large].map(|der| verification_work(der)),
        [1, 1, 2]
    );
    let p256 = create_csr(&LeafKey::generate(&rng()).unwrap()).unwrap();
    assert_eq!([verification_work(&p256), verification_work(b"junk")], [1, 1]);
}
