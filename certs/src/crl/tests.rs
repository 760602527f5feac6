//! CRLs: their DER, their reading, their order (conformance §16).

use std::time::Duration;

use proptest::prelude::*;
use webpki::{BorrowedCertRevocationList, CertRevocationList};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::*;
use crate::authority::X509Authority;
use crate::der;
use crate::testing::*;
use crate::time::unix_millis;
use crate::time::{from_unix_seconds, to_datetime};

const SECOND: Duration = Duration::from_secs(1);

fn entry(tail: u8, reason: RevocationReason) -> RevokedEntry {
    RevokedEntry {
        serial: serial(tail),
        revoked_at: now() - HOUR,
        reason,
        invalid_since: None,
    }
}

fn parsed(crl: &Crl) -> CertificateRevocationList<'_> {
    CertificateRevocationList::from_der(crl.der()).unwrap().1
}

/// The fields of tbsCertList, each with its tag.
fn fields(crl: &Crl) -> Vec<Vec<u8>> {
    let mut rest = der::single(der::signed(crl.der()).unwrap().tbs).unwrap().content;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (element, after) = der::split_element(rest).unwrap();
        fields.push(element.whole.to_vec());
        rest = after;
    }
    fields
}

/// Covers CRL-01, CRL-02, CRL-03, CRL-05, CRL-08, CRL-11, CRL-12, CRL-13, CRL-14, CRL-15, CRL-16, CRL-17, CRL-24, CRL-25.
/// Covers RS-08.
#[test]
fn an_empty_list_has_exactly_these_fields_in_der() {
    let authority = authority("td");
    let list = crl(&authority, &[]);
    let fields = fields(&list);
    let tags: Vec<u8> = fields.iter().map(|field| field[0]).collect();
    // version, signature, issuer, thisUpdate, nextUpdate, [0] extensions; no revokedCertificates.
    assert_eq!(tags, [0x02, 0x30, 0x30, 0x17, 0x17, 0xa0]);
    assert_eq!(fields[0], [0x02, 0x01, 0x01]);
    assert_eq!(fields[1], ecdsa_sha256());
    assert_eq!(fields[2], authority.certificate().subject_der());
    let key_id = nest(0x30, &[&tlv(0x80, authority.certificate().id().as_bytes())]);
    let number = integer(&list.number().0.to_be_bytes()[2..]);
    let extensions = nest(
        0x30,
        &[
            &extension("551d23", false, &key_id),
            &extension("551d14", false, &number),
        ],
    );
    assert_eq!(fields[5], nest(0xa0, &[&extensions]));
    assert_eq!(list.entry_count(), 0);
    let ca = x509_parser::parse_x509_certificate(authority.certificate().der())
        .unwrap()
        .1;
    parsed(&list).verify_signature(ca.public_key()).unwrap();
}

/// Covers CRL-09, CRL-20, CRL-21, CRL-23.
#[test]
fn entries_are_sorted_without_doubles_and_unspecified_is_left_out() {
    let authority = authority("td");
    let mut late = entry(3, RevocationReason::Superseded);
    late.revoked_at = now() - Duration::from_secs(600);
    let list = crl(
        &authority,
        &[
            entry(9, RevocationReason::KeyCompromise),
            late,
            entry(1, RevocationReason::Unspecified),
            entry(3, RevocationReason::PrivilegeWithdrawn),
        ],
    );
    let der = &fields(&list)[5];
    let date = tlv(0x17, b"270115070000Z");
    let reason = |code: u8| nest(0x30, &[&extension("551d15", false, &[0x0a, 0x01, code])]);
    let expected = nest(
        0x30,
        &[
            &nest(0x30, &[&integer(serial(1).as_bytes()), &date]),
            &nest(0x30, &[&integer(serial(3).as_bytes()), &date, &reason(9)]),
            &nest(0x30, &[&integer(serial(9).as_bytes()), &date, &reason(1)]),
        ],
    );
    assert_eq!(*der, expected);
    assert!(list.is_revoked(&serial(3)) && !list.is_revoked(&serial(2)));
}

/// Not critical, GeneralizedTime in any year, and beside the reason where there is one; left out where nobody has said it.
///
/// Covers CRL-22.
#[test]
fn an_entry_says_since_when_it_is_invalid_where_that_is_known() {
    let authority = authority("td");
    let since = from_unix_seconds(1_800_000_000);
    let dated = |tail, reason| RevokedEntry {
        invalid_since: Some(since + Duration::from_millis(700)),
        ..entry(tail, reason)
    };
    let entries = [
        dated(1, RevocationReason::KeyCompromise),
        dated(2, RevocationReason::Unspecified),
        entry(3, RevocationReason::KeyCompromise),
    ];
    let list = crl(&authority, &entries);
    let read: Vec<_> = list.entries().map(|entry| entry.invalid_since).collect();
    assert_eq!(read, [Some(since), Some(since), None]);
    let date = tlv(0x17, b"270115070000Z");
    let reason = extension("551d15", false, &[0x0a, 0x01, 1]);
    let invalid = extension("551d18", false, &tlv(0x18, b"20270115080000Z"));
    let expected = nest(
        0x30,
        &[
            &nest(
                0x30,
                &[
                    &integer(serial(1).as_bytes()),
                    &date,
                    &nest(0x30, &[&reason, &invalid]),
                ],
            ),
            &nest(
                0x30,
                &[&integer(serial(2).as_bytes()), &date, &nest(0x30, &[&invalid])],
            ),
            &nest(
                0x30,
                &[&integer(serial(3).as_bytes()), &date, &nest(0x30, &[&reason])],
            ),
        ],
    );
    assert_eq!(fields(&list)[5], expected);
}

/// Covers CRL-10.
#[test]
fn a_revocation_later_than_this_update_is_dated_this_update() {
    let authority = authority("td");
    let fresh = RevokedEntry {
        revoked_at: now(),
        ..entry(1, RevocationReason::Unspecified)
    };
    let list = crl(&authority, &[fresh]);
    assert_eq!(list.entries().next().unwrap().revoked_at, list.this_update());
    assert_eq!(list.this_update(), now() - SKEW);
}

/// Covers CRL-04, CRL-05, CRL-06.
#[test]
fn dates_change_their_encoding_at_2050() {
    let last = from_unix_seconds(2_524_607_999);
    let authority = authority_between("td", last - DAY, last + DAY);
    let revoked = RevokedEntry {
        revoked_at: last,
        ..entry(1, RevocationReason::Unspecified)
    };
    let early = sign_crl(&authority, &[revoked], CrlNumber(1), last - SECOND, last).unwrap();
    assert_eq!(fields(&early)[4], tlv(0x17, b"491231235959Z"));
    let across = sign_crl(&authority, &[revoked], CrlNumber(2), last, last + SECOND).unwrap();
    assert_eq!(fields(&across)[3], tlv(0x17, b"491231235959Z"));
    assert_eq!(fields(&across)[4], tlv(0x18, b"20500101000000Z"));
    assert!(fields(&across)[5].ends_with(&tlv(0x17, b"491231235959Z")));
    let revoked = RevokedEntry {
        revoked_at: last + SECOND,
        ..revoked
    };
    let late = sign_crl(&authority, &[revoked], CrlNumber(3), last + SECOND, last + HOUR).unwrap();
    assert_eq!(fields(&late)[3], tlv(0x18, b"20500101000000Z"));
    assert!(fields(&late)[5].ends_with(&tlv(0x18, b"20500101000000Z")));
    assert_eq!(late.this_update(), last + SECOND);
}

#[test]
fn a_period_of_nothing_is_refused() {
    let authority = authority("td");
    for next in [now(), now() - SECOND, now() + Duration::from_millis(900)] {
        let refusal = sign_crl(&authority, &[], CrlNumber(1), now(), next);
        assert!(matches!(refusal, Err(CrlError::Period { .. })));
    }
}

/// Covers CRL-12.
#[test]
fn numbers_grow_whatever_the_clock_says() {
    assert_eq!(CrlNumber::next(None), CrlNumber(1));
    assert_eq!(CrlNumber::next(Some(CrlNumber(5))), CrlNumber(6));
    assert_eq!(CrlNumber::next(Some(CrlNumber(u64::MAX))).0, u64::MAX);
}

#[test]
fn reasons_are_read_as_people_write_them() {
    for reason in RevocationReason::ALL {
        assert_eq!(reason.to_string().parse(), Ok(reason));
        assert_eq!(RevocationReason::from_code(reason.code()), Some(reason));
        assert_eq!(
            serde_json::from_str::<RevocationReason>(&serde_json::to_string(&reason).unwrap()).unwrap(),
            reason
        );
    }
    assert_eq!("key-compromise".parse(), Ok(RevocationReason::KeyCompromise));
    assert_eq!("CA_COMPROMISE".parse(), Ok(RevocationReason::CaCompromise));
    for text in [
        "certificateHold",
        "removeFromCRL",
        "aACompromise",
        "",
        "key compromise",
    ] {
        assert!(text.parse::<RevocationReason>().is_err(), "{text}");
    }
    assert_eq!(RevocationReason::from_code(6), None);
}

/// One signed list from hand-made parts.
struct Raw<'a> {
    authority: &'a X509Authority,
    version: Vec<u8>,
    issuer: Vec<u8>,
    dates: Vec<u8>,
    revoked: Vec<u8>,
    extensions: Vec<Vec<u8>>,
}

impl<'a> Raw<'a> {
    fn good(authority: &'a X509Authority) -> Self {
        let key_id = nest(0x30, &[&tlv(0x80, authority.certificate().id().as_bytes())]);
        Self {
            authority,
            version: integer(&[1]),
            issuer: authority.certificate().subject_der().to_vec(),
            dates: [tlv(0x17, b"261121080000Z"), tlv(0x17, b"261121200000Z")].concat(),
            revoked: Vec::new(),
            extensions: vec![
                extension("551d23", false, &key_id),
                extension("551d14", false, &integer(&[7])),
            ],
        }
    }

    fn der(&self) -> Vec<u8> {
        let parts: Vec<&[u8]> = self.extensions.iter().map(Vec::as_slice).collect();
        let extensions = nest(0xa0, &[&nest(0x30, &parts)]);
        let tbs = nest(
            0x30,
            &[
                &self.version,
                &ecdsa_sha256(),
                &self.issuer,
                &self.dates,
                &self.revoked,
                &extensions,
            ],
        );
        signed(&tbs, |message| self.authority.signer().sign(message).unwrap())
    }

    fn verify(&self) -> Result<Crl, CrlError> {
        Crl::verify(&self.der(), self.authority.certificate())
    }
}

fn revoked_entry(tail: u8, extensions: &[u8]) -> Vec<u8> {
    nest(
        0x30,
        &[
            &integer(serial(tail).as_bytes()),
            &tlv(0x17, b"261121080000Z"),
            extensions,
        ],
    )
}

/// Covers CRL-27.
#[test]
fn a_hand_made_list_is_read_and_each_fault_refuses_it() {
    let authority = authority("td");
    let good = || Raw::good(&authority);
    let list = good().verify().unwrap();
    assert_eq!((list.number(), list.entry_count()), (CrlNumber(7), 0));
    let refused = |change: &dyn Fn(&mut Raw<'_>), why: &str| {
        let mut raw = good();
        change(&mut raw);
        let error = raw.verify().unwrap_err().to_string();
        assert!(error.contains(why), "{error} is not about {why}");
    };
    refused(&|raw| raw.version = Vec::new(), "version 2");
    refused(&|raw| raw.version = integer(&[2]), "version 2");
    refused(&|raw| raw.dates = tlv(0x17, b"261121080000Z"), "nextUpdate");
    refused(
        &|raw| raw.dates = tlv(0x17, b"261121080000Z").repeat(2),
        "not later",
    );
    refused(&|raw| raw.extensions.truncate(1), "no CRL number");
    refused(&|raw| drop(raw.extensions.remove(0)), "AuthorityKeyIdentifier");
    refused(&|raw| raw.extensions.push(raw.extensions[1].clone()), "twice");
    refused(
        &|raw| raw.extensions.push(extension("2a0304", true, &[5, 0])),
        "critical",
    );
    // IssuingDistributionPoint and deltaCRLIndicator.
    refused(
        &|raw| {
            raw.extensions
                .push(extension("551d1c", true, &[0x30, 0x03, 0x81, 0x01, 0xff]));
        },
        "critical",
    );
    refused(
        &|raw| raw.extensions.push(extension("551d1b", true, &integer(&[1]))),
        "critical",
    );
    refused(
        &|raw| raw.extensions[1] = extension("551d14", false, &integer(&[1; 9])),
        "64 bits",
    );
    refused(&|raw| raw.issuer = tlv(0x30, &[]), "not issued");
    let other = nest(0x30, &[&tlv(0x80, &[1; 20])]);
    refused(
        &|raw| raw.extensions[0] = extension("551d23", false, &other),
        "not issued",
    );
    let plain = extension("2a0304", false, &[5, 0]);
    let mut tolerated = good();
    tolerated.extensions.push(plain);
    assert!(tolerated.verify().is_ok());
}

/// Covers CRL-09, CRL-20, CRL-21, CRL-23, CRL-27.
#[test]
fn entries_that_cannot_be_taken_refuse_the_list() {
    let authority = authority("td");
    let with = |entries: &[Vec<u8>]| {
        let mut raw = Raw::good(&authority);
        raw.revoked = tlv(0x30, &entries.concat());
        raw.verify()
    };
    let reason = |code: u8| nest(0x30, &[&extension("551d15", false, &[0x0a, 0x01, code])]);
    assert!(
        with(&[revoked_entry(1, &[]), revoked_entry(1, &[])])
            .unwrap_err()
            .to_string()
            .contains("twice")
    );
    assert!(
        with(&[revoked_entry(1, &reason(8))])
            .unwrap_err()
            .to_string()
            .contains("removeFromCRL")
    );
    let critical = nest(0x30, &[&extension("551d1d", true, &[0x30, 0x00])]);
    assert!(with(&[revoked_entry(1, &critical)]).is_err());
    let negative = nest(0x30, &[&tlv(0x02, &[0x80]), &tlv(0x17, b"261121080000Z")]);
    assert!(matches!(with(&[negative]), Err(CrlError::Serial(_))));
    // Unsorted lists and reasons that we do not offer are fine: others write them.
    let list = with(&[
        revoked_entry(9, &reason(6)),
        revoked_entry(2, &reason(10)),
        revoked_entry(5, &reason(4)),
    ])
    .unwrap();
    let reasons: Vec<_> = list.entries().map(|entry| (entry.serial, entry.reason)).collect();
    let unspecified = RevocationReason::Unspecified;
    let expected = [
        (serial(2), unspecified),
        (serial(5), RevocationReason::Superseded),
        (serial(9), unspecified),
    ];
    assert_eq!(reasons, expected);
}

/// Covers CRL-17, CRL-27.
#[test]
fn lists_of_others_and_changed_bytes_are_refused() {
    let (one, two) = (authority("td"), authority("td"));
    let list = crl(&one, &[entry(1, RevocationReason::KeyCompromise)]);
    assert_eq!(
        Crl::verify(list.der(), two.certificate()),
        Err(CrlError::Issuer(two.certificate().id()))
    );
    let mut forged = Raw::good(&one);
    forged.authority = &two;
    let refusal = Crl::verify(&forged.der(), one.certificate());
    assert_eq!(refusal, Err(CrlError::Signature(one.certificate().id())));
    let mut trailing = list.der().to_vec();
    trailing.push(0);
    assert_eq!(
        Crl::verify(&trailing, one.certificate()),
        Err(CrlError::Der(DerError::Trailing(1)))
    );
    for end in 0..list.der().len() {
        assert!(Crl::verify(&list.der()[..end], one.certificate()).is_err());
    }
    assert!(Crl::verify(list.pem().as_bytes(), one.certificate()).is_err());
    assert!(Crl::verify(one.certificate().der(), one.certificate()).is_err());
}

/// Covers CRL-17, CRL-27.
#[test]
fn every_single_bit_counts() {
    let authority = authority("td");
    let der = crl(&authority, &[entry(1, RevocationReason::KeyCompromise)])
        .der()
        .to_vec();
    for bit in 0..der.len() * 8 {
        let mut changed = der.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Crl::verify(&changed, authority.certificate()).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn an_authority_without_crl_sign_issues_none() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let list = rcgen::CertificateRevocationListParams {
        this_update: to_datetime(now()),
        next_update: to_datetime(now() + HOUR),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    }
    .signed_by(&issuer)
    .unwrap();
    let mut without = params.clone();
    without.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = AuthorityCertificate::from_der(without.self_signed(&key).unwrap().der()).unwrap();
    assert!(matches!(
        Crl::verify(list.der(), &certificate),
        Err(CrlError::Authority(_))
    ));
    let with = AuthorityCertificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
    assert!(Crl::verify(list.der(), &with).is_ok());
}

/// Covers CRL-28, INV-3.
#[test]
fn only_a_later_list_takes_the_place_of_an_earlier_one() {
    let authority = authority("td");
    let at = |number, this_update| {
        sign_crl(&authority, &[], CrlNumber(number), this_update, now() + HOUR).unwrap()
    };
    let held = at(10, now() - HOUR);
    assert_eq!(at(11, now()).may_replace(&held, now()), Ok(()));
    assert_eq!(held.may_replace(&held.clone(), now()), Ok(()));
    let rollback = |offered| {
        Err(CrlError::Rollback {
            held: CrlNumber(10),
            offered: CrlNumber(offered),
        })
    };
    assert_eq!(at(9, now()).may_replace(&held, now()), rollback(9));
    assert_eq!(at(12, now() - 2 * HOUR).may_replace(&held, now()), rollback(12));
    assert_eq!(
        at(10, now()).may_replace(&held, now()),
        Err(CrlError::Conflict(CrlNumber(10)))
    );
    let stranger = crl(&crate::testing::authority("td"), &[]);
    assert!(matches!(
        stranger.may_replace(&held, now()),
        Err(CrlError::Issuer(_))
    ));
}

/// Covers CRL-28.
#[test]
fn a_list_that_was_dated_ahead_gives_way_to_a_later_number() {
    let authority = authority("td");
    let at = |number, this_update| {
        sign_crl(&authority, &[], CrlNumber(number), this_update, now() + HOUR).unwrap()
    };
    let ahead = at(10, now() + MAX_AHEAD);
    assert!(ahead.check_not_ahead(now()).is_ok(), "readers have taken it");
    let right = at(11, now());
    assert_eq!(right.may_replace(&ahead, now()), Ok(()));
    let rollback = |offered| {
        Err(CrlError::Rollback {
            held: CrlNumber(10),
            offered: CrlNumber(offered),
        })
    };
    assert_eq!(at(9, now()).may_replace(&ahead, now()), rollback(9));
    let reached = now() + MAX_AHEAD;
    assert_eq!(right.may_replace(&ahead, reached), rollback(11));
}

#[test]
fn lists_from_the_future_are_refused() {
    let authority = authority("td");
    let millis = |at: SystemTime| u64::try_from(unix_millis(at)).unwrap();
    let at =
        |number, this_update| sign_crl(&authority, &[], CrlNumber(number), this_update, now() + DAY).unwrap();
    let held = at(1, now() - HOUR);
    assert_eq!(
        at(millis(now() + MAX_AHEAD), now() + MAX_AHEAD).may_replace(&held, now()),
        Ok(())
    );
    assert_eq!(
        at(millis(now() + MAX_AHEAD) + 1, now()).may_replace(&held, now()),
        Err(CrlError::Ahead)
    );
    assert_eq!(
        at(2, now() + MAX_AHEAD + SECOND).check_not_ahead(now()),
        Err(CrlError::Ahead)
    );
    assert_eq!(at(u64::MAX, now()).check_not_ahead(now()), Err(CrlError::Ahead));
}

/// Covers CRL-29.
#[test]
fn freshness_ends_with_next_update() {
    let list = crl(&authority("td"), &[]);
    assert!(list.is_current(now()) && list.is_current(list.next_update()));
    assert!(!list.is_current(list.next_update() + SECOND));
}

/// Covers CRL-25.
#[test]
fn pem_has_the_standard_label() {
    let pem = crl(&authority("td"), &[]).pem();
    assert!(pem.starts_with("-----BEGIN X509 CRL-----\n") && pem.ends_with("-----END X509 CRL-----\n"));
    assert!(pem.lines().all(|line| line.len() <= 64));
}

/// Covers CRL-36.
#[test]
fn a_large_list_stays_within_its_bytes_and_answers() {
    let authority = authority("td");
    let entries: Vec<RevokedEntry> = (0..20_000_u32)
        .map(|n| {
            let mut random = [0; 13];
            random[..4].copy_from_slice(&n.to_be_bytes());
            RevokedEntry {
                serial: SerialNumber::generate(now(), &random),
                ..entry(0, RevocationReason::Unspecified)
            }
        })
        .collect();
    let list = crl(&authority, &entries);
    assert_eq!(list.entry_count(), entries.len());
    assert!(list.der().len() < entries.len() * 40 + 400);
    assert!(entries.iter().all(|entry| list.is_revoked(&entry.serial)));
}

fn entries() -> impl Strategy<Value = Vec<RevokedEntry>> {
    let one = (prop::collection::vec(any::<u8>(), 1..20), 0_i64..3600, 0_usize..7);
    prop::collection::vec(one, 0..40).prop_map(|list| {
        let entry = |(bytes, age, reason): (Vec<u8>, i64, usize)| {
            Some(RevokedEntry {
                serial: SerialNumber::from_unsigned(&bytes).ok()?,
                revoked_at: now() - SKEW - Duration::from_secs(u64::try_from(age).unwrap()),
                reason: RevocationReason::ALL[reason],
                invalid_since: None,
            })
        };
        list.into_iter().filter_map(entry).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Covers CRL-09, CRL-18, CRL-37.
    #[test]
    fn what_is_signed_is_read_back_and_a_second_parser_agrees(entries in entries()) {
        let authority = authority("td");
        let list = crl(&authority, &entries);
        let again = Crl::verify(list.der(), authority.certificate()).unwrap();
        prop_assert_eq!(&again, &list);
        prop_assert_eq!(again.sha256(), list.sha256());
        prop_assert!(list.entries().is_sorted_by_key(|entry| entry.serial));
        let theirs: CertRevocationList<'_> = BorrowedCertRevocationList::from_der(list.der()).unwrap().into();
        for entry in &entries {
            prop_assert!(list.is_revoked(&entry.serial));
            let mut content = entry.serial.as_bytes().to_vec();
            if content[0] >= 0x80 {
                content.insert(0, 0);
            }
            prop_assert!(theirs.find_serial(&content).unwrap().is_some());
        }
        let listed: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.serial).collect();
        prop_assert_eq!(list.entry_count(), listed.len());
        prop_assert!(!list.is_revoked(&serial(0x77)));
    }
}
