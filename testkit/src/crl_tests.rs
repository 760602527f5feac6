use super::crl::*;
use super::leaf::next_serial;
use super::{HOUR, authority, crl_at, now};

#[test]
fn one_wrong_byte_or_a_wrong_predecessor_is_seen() {
    let issuer = authority("td");
    let certificate = issuer.certificate().der();
    let list = |number, end| {
        crl_at(
            &issuer,
            number,
            &[next_serial(now()), next_serial(now())],
            now(),
            end,
        )
    };
    let (before, after) = (list(7, now() + HOUR), list(8, now() + HOUR));
    check_der(after.der(), certificate, Some(before.der())).unwrap();
    let back = check_der(before.der(), certificate, Some(after.der())).unwrap_err();
    assert!(back.starts_with("CRL-12"), "{back}");
    let shorter = list(9, now() + HOUR / 2);
    let shorter = check_der(shorter.der(), certificate, Some(after.der())).unwrap_err();
    assert!(shorter.starts_with("CRL-07"), "{shorter}");
    for at in 0..after.der().len() {
        let mut wrong = after.der().to_vec();
        wrong[at] ^= 1;
        assert!(check_der(&wrong, certificate, None).is_err(), "byte {at}");
    }
    let other = authority("td");
    assert!(check_der(after.der(), other.certificate().der(), None).is_err());
}
