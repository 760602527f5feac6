//! Serials: layout, order, and every form they are read in.

use std::time::Duration;

use proptest::prelude::*;
use x509_parser::num_bigint::BigUint;

use super::*;
use crate::time::from_unix_millis;

fn generated() -> impl Strategy<Value = SerialNumber> {
    (0_i64..0xffff_ffff_ffff, prop::array::uniform13(any::<u8>()))
        .prop_map(|(ms, random)| SerialNumber::generate(from_unix_millis(ms), &random))
}

#[test]
fn the_layout_is_version_time_and_randomness() {
    let serial = SerialNumber::generate(from_unix_millis(0x0102_0304_0506), &[0xab; 13]);
    assert_eq!(serial.to_string(), format!("01010203040506{}", "ab".repeat(13)));
}

#[test]
fn ours_say_when_they_were_made() {
    let then = from_unix_millis(0x0102_0304_0506);
    assert_eq!(SerialNumber::generate(then, &[0xab; 13]).made_at(), Some(then));
    for other in ["01", "010203040506", &"02".repeat(20), &"01".repeat(19)] {
        assert_eq!(other.parse::<SerialNumber>().unwrap().made_at(), None, "{other}");
    }
}

#[test]
fn bad_der_integers_are_refused() {
    for (content, error) in [
        (&[][..], SerialError::NotPositive),
        (&[0][..], SerialError::NotPositive),
        (&[0x80][..], SerialError::Negative),
        (&[0, 1][..], SerialError::NotMinimal),
        (&[0, 0, 0x80][..], SerialError::NotMinimal),
        (&[1; 21][..], SerialError::TooLong),
    ] {
        assert_eq!(SerialNumber::from_der_integer(content), Err(error), "{content:?}");
    }
    let mut signed = [0xff; 21];
    signed[0] = 0;
    assert_eq!(SerialNumber::from_der_integer(&signed), Err(SerialError::TooLong));
    assert_eq!(
        SerialNumber::from_der_integer(&signed[..20]).unwrap().as_bytes(),
        &[0xff; 19]
    );
}

#[test]
fn text_is_read_as_people_copy_it() {
    let serial: SerialNumber = "0A:0b:Ff".parse().unwrap();
    assert_eq!(serial.to_string(), "0a0bff");
    assert_eq!("a0bff".parse(), Ok(serial));
    assert_eq!("000000a0bff".parse(), Ok(serial));
    for text in [
        "serial=0A0BFF",
        "serial=0A:0B:FF\n",
        "0xa0bff",
        "0XA0BFF",
        "Serial= 0xA0BFF",
    ] {
        assert_eq!(text.parse(), Ok(serial), "{text}");
    }
    for text in [
        "",
        "0",
        "00:00",
        "xyz",
        "0x",
        "serial=",
        "0x0x1f",
        "0xserial=1f",
        "1 f",
        "-1f",
        "é1",
        &"f".repeat(40),
        &"0".repeat(400),
    ] {
        assert!(text.parse::<SerialNumber>().is_err(), "{text}");
    }
}

proptest! {
    /// Covers X509-15.
    #[test]
    fn generated_serials_are_positive_and_fit_twenty_octets(serial in generated()) {
        prop_assert_eq!(serial.as_bytes().len(), 20);
        prop_assert!(serial.as_bytes()[0] > 0 && serial.as_bytes()[0] < 0x80);
    }

    #[test]
    fn every_form_is_read_back(serial in generated()) {
        prop_assert_eq!(serial.to_string().parse(), Ok(serial));
        prop_assert_eq!(SerialNumber::from_der_integer(serial.as_bytes()), Ok(serial));
        let json = serde_json::to_string(&serial).unwrap();
        prop_assert_eq!(serde_json::from_str::<SerialNumber>(&json).unwrap(), serial);
    }

    #[test]
    fn later_serials_sort_after_earlier_ones(serial in generated(), random in prop::array::uniform13(any::<u8>())) {
        let millis = serial.as_bytes()[1..7].iter().fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte));
        let later = SerialNumber::generate(from_unix_millis(millis) + Duration::from_millis(1), &random);
        prop_assert!(serial < later);
    }

    #[test]
    fn order_is_that_of_the_numbers(
        a in prop::collection::vec(any::<u8>(), 1..20),
        b in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        if let (Ok(one), Ok(two)) = (SerialNumber::from_unsigned(&a), SerialNumber::from_unsigned(&b)) {
            prop_assert_eq!(one.cmp(&two), BigUint::from_bytes_be(&a).cmp(&BigUint::from_bytes_be(&b)));
        }
    }

    #[test]
    fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..30), text in "\\PC{0,60}") {
        if let Ok(serial) = SerialNumber::from_der_integer(&bytes) {
            let magnitude = bytes.strip_prefix(&[0]).unwrap_or(&bytes);
            prop_assert_eq!(serial.as_bytes(), magnitude);
        }
        let _ = text.parse::<SerialNumber>();
    }
}
