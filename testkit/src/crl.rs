//! What is true of every list that anything here signs, read from its bytes without the code that wrote them. Named by the ids of
//! docs/conformance.md: CRL-01 to CRL-17 and CRL-20 to CRL-25, CRL-36; what the rest say is not in one list's bytes.

use std::collections::HashSet;

use ring::signature::{self, UnparsedPublicKey};

type Checked<T> = Result<T, String>;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SUBJECT_KEY_ID: [u8; 3] = [0x55, 0x1d, 14];
const KEY_USAGE: [u8; 3] = [0x55, 0x1d, 15];
const CRL_NUMBER: [u8; 3] = [0x55, 0x1d, 20];
const REASON: [u8; 3] = [0x55, 0x1d, 21];
const INVALIDITY_DATE: [u8; 3] = [0x55, 0x1d, 24];
const AUTHORITY_KEY_ID: [u8; 3] = [0x55, 0x1d, 35];
/// keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn.
const REASONS: [u8; 6] = [1, 2, 3, 4, 5, 9];
/// Room of an entry without a date; with one it has that of two.
const ENTRY_BYTES: usize = 56;

/// Checks a list of the authority with this certificate, and that it may follow `before`, where there is one.
///
/// # Errors
/// The first thing that is wrong, with the id of the line that it breaks.
pub fn check_der(der: &[u8], issuer: &[u8], before: Option<&[u8]>) -> Checked<()> {
    let (list, issuer) = (List::read(der)?, Issuer::read(issuer)?);
    hold(list.issuer == issuer.subject, "CRL-03: another issuer")?;
    hold(
        list.next_update > list.this_update,
        "CRL-05: it ends before it begins",
    )?;
    hold(list.key_id == issuer.key_id, "CRL-11: another key identifier")?;
    hold(issuer.signs_lists, "CRL-16: its issuer may sign no lists")?;
    issuer.verify(&list)?;
    if let Some(before) = before.filter(|before| *before != der) {
        let before = List::read(before)?;
        // One that was dated by a clock ahead is followed by one of the right time.
        let is_of_the_future = before.this_update > list.this_update;
        hold(
            is_of_the_future || list.next_update >= before.next_update,
            "CRL-07: it ends before the one before it",
        )?;
        // Numbers of one length are in the order of their bytes.
        let order = |number: &[u8]| (number.len(), number.to_vec());
        hold(
            order(list.number) > order(before.number),
            "CRL-12: its number has not grown",
        )?;
    }
    Ok(())
}

fn hold(is_so: bool, else_what: &str) -> Checked<()> {
    is_so.then_some(()).ok_or_else(|| else_what.to_owned())
}

struct List<'a> {
    to_sign: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    this_update: String,
    next_update: String,
    key_id: &'a [u8],
    number: &'a [u8],
}

impl<'a> List<'a> {
    fn read(der: &'a [u8]) -> Checked<Self> {
        let mut whole = Reader(der);
        let mut list = whole.expect(SEQUENCE)?;
        whole.end("CRL-25: something follows it")?;
        let to_sign = list.next()?;
        let (outside, signature) = (list.expect_whole(SEQUENCE)?, list.expect(3)?);
        list.end("CRL-25: something follows the signature")?;
        let mut fields = Reader(to_sign.body);
        hold(fields.expect(2)?.0 == [1], "CRL-01: not version 2")?;
        let algorithm = fields.expect_whole(SEQUENCE)?;
        hold(
            algorithm == outside,
            "CRL-02: one algorithm inside, another outside",
        )?;
        let issuer = fields.expect_whole(SEQUENCE)?;
        let this_update = moment(&fields.next()?).map_err(|why| format!("CRL-04, CRL-06: {why}"))?;
        let next_update = moment(&fields.next()?).map_err(|why| format!("CRL-05, CRL-06: {why}"))?;
        let mut last = fields.next()?;
        if last.tag == SEQUENCE {
            entries(Reader(last.body), &this_update)?;
            last = fields.next()?;
        }
        hold(last.tag == 0xa0, "CRL-11: no extensions")?;
        fields.end("CRL-25: something follows the extensions")?;
        let (mut key_id, mut number) = (None, None);
        for (id, value) in extensions(Reader(last.body).expect(SEQUENCE)?)? {
            match <[u8; 3]>::try_from(id) {
                Ok(AUTHORITY_KEY_ID) => key_id = Some(Reader(value).expect(SEQUENCE)?.expect(0x80)?.0),
                Ok(CRL_NUMBER) => number = Some(integer(&mut Reader(value))?),
                _ => return Err(format!("CRL-13, CRL-14, CRL-15, CRL-24: an extension {id:x?}")),
            }
        }
        Ok(Self {
            to_sign: to_sign.whole,
            algorithm,
            signature: bits(signature.0)?,
            issuer,
            this_update,
            next_update,
            key_id: key_id.ok_or("CRL-11: no key identifier")?,
            number: number.ok_or("CRL-12: no number")?,
        })
    }
}

fn entries(mut entries: Reader<'_>, this_update: &str) -> Checked<()> {
    hold(!entries.0.is_empty(), "CRL-08: a field without entries")?;
    let mut serials = HashSet::new();
    while !entries.0.is_empty() {
        let entry = entries.next()?;
        hold(entry.tag == SEQUENCE, "CRL-09: an entry is no sequence")?;
        let mut fields = Reader(entry.body);
        let serial = integer(&mut fields).map_err(|why| format!("CRL-09: {why}"))?;
        hold(
            serial.len() <= 20 && serial != [0],
            "CRL-09: no serial of a certificate",
        )?;
        hold(serials.insert(serial), "CRL-09: a serial twice")?;
        let revoked = moment(&fields.next()?).map_err(|why| format!("CRL-06: {why}"))?;
        hold(
            revoked.as_str() <= this_update,
            "CRL-10: revoked after thisUpdate",
        )?;
        let is_dated = !fields.0.is_empty() && entry_extensions(fields)?;
        let most = ENTRY_BYTES * (1 + usize::from(is_dated));
        hold(entry.whole.len() <= most, "CRL-36: an entry of too many bytes")?;
    }
    Ok(())
}

/// Whether it says since when it is invalid.
fn entry_extensions(mut fields: Reader<'_>) -> Checked<bool> {
    let mut is_dated = false;
    let all = extensions(fields.expect(SEQUENCE)?)?;
    fields.end("CRL-25: something follows an entry's extensions")?;
    hold(!all.is_empty(), "CRL-20: extensions without one")?;
    for (id, value) in all {
        let value = Reader(value).next()?;
        match <[u8; 3]>::try_from(id) {
            Ok(REASON) => {
                let is_one = value.tag == 10 && matches!(value.body, [reason] if REASONS.contains(reason));
                hold(is_one, "CRL-20, CRL-21: a reason that is none here")?;
            }
            Ok(INVALIDITY_DATE) => {
                hold(value.tag == GENERALIZED_TIME, "CRL-22: a date of another form")?;
                let text = std::str::from_utf8(value.body).unwrap_or_default();
                hold(
                    text.len() == 15 && text.ends_with('Z'),
                    "CRL-22: a date of another form",
                )?;
                is_dated = true;
            }
            _ => return Err(format!("CRL-23, CRL-24: an entry's extension {id:x?}")),
        }
    }
    Ok(is_dated)
}

/// Id and value of each: none twice, none critical.
fn extensions(mut all: Reader<'_>) -> Checked<Vec<(&[u8], &[u8])>> {
    let mut found: Vec<(&[u8], &[u8])> = Vec::new();
    while !all.0.is_empty() {
        let mut extension = all.expect(SEQUENCE)?;
        let (id, value) = (extension.expect(6)?.0, extension.next()?);
        hold(
            value.tag == 4,
            "CRL-24: an extension is critical, or says that it is not",
        )?;
        extension.end("CRL-25: something follows an extension")?;
        hold(
            found.iter().all(|(other, _)| *other != id),
            "CRL-24: an extension twice",
        )?;
        found.push((id, value.body));
    }
    Ok(found)
}

struct Issuer<'a> {
    subject: &'a [u8],
    key: &'a [u8],
    key_id: &'a [u8],
    signs_lists: bool,
}

impl<'a> Issuer<'a> {
    fn read(der: &'a [u8]) -> Checked<Self> {
        let mut fields = Reader(der).expect(SEQUENCE)?.expect(SEQUENCE)?;
        // Version, serial, algorithm, issuer, dates.
        for _ in 0..5 {
            fields.next()?;
        }
        let subject = fields.expect_whole(SEQUENCE)?;
        let mut key = fields.expect(SEQUENCE)?;
        key.next()?;
        let key = bits(key.expect(3)?.0)?;
        let mut issuer = Self {
            subject,
            key,
            key_id: &[],
            signs_lists: false,
        };
        let mut all = fields.expect(0xa3)?.expect(SEQUENCE)?;
        while !all.0.is_empty() {
            let mut extension = all.expect(SEQUENCE)?;
            let (id, mut value) = (extension.expect(6)?.0, extension.next()?);
            if value.tag == 1 {
                value = extension.next()?;
            }
            match <[u8; 3]>::try_from(id) {
                Ok(SUBJECT_KEY_ID) => issuer.key_id = Reader(value.body).expect(4)?.0,
                // cRLSign is bit 6.
                Ok(KEY_USAGE) => {
                    let bits = Reader(value.body).expect(3)?.0;
                    issuer.signs_lists = bits.get(1).is_some_and(|first| first & 0b10 != 0);
                }
                _ => {}
            }
        }
        Ok(issuer)
    }

    fn verify(&self, list: &List<'_>) -> Checked<()> {
        // ecdsa-with-SHA256 and ecdsa-with-SHA384.
        let algorithm: &dyn signature::VerificationAlgorithm = match list.algorithm {
            [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => &signature::ECDSA_P256_SHA256_ASN1,
            [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => &signature::ECDSA_P384_SHA384_ASN1,
            other => return Err(format!("CRL-02: an algorithm {other:x?}")),
        };
        let verified = UnparsedPublicKey::new(algorithm, self.key).verify(list.to_sign, list.signature);
        verified.map_err(|_| "CRL-17: the signature does not hold".to_owned())
    }
}

/// A positive number in as few bytes as can be.
fn integer<'a>(reader: &mut Reader<'a>) -> Checked<&'a [u8]> {
    let body = reader.expect(2)?.0;
    match body {
        [] | [0, 0..=0x7f, ..] => Err("a number that is longer than it need be".to_owned()),
        [0x80..=0xff, ..] => Err("a negative number".to_owned()),
        body => Ok(body),
    }
}

fn bits(body: &[u8]) -> Checked<&[u8]> {
    match body {
        [0, bits @ ..] => Ok(bits),
        _ => Err("CRL-25: bits that are no whole bytes".to_owned()),
    }
}

/// With its century: UTCTime up to 2049 and GeneralizedTime after, by the second, in UTC.
fn moment(value: &Value<'_>) -> Checked<String> {
    let text = std::str::from_utf8(value.body).map_err(|_| "a date that is no text")?;
    let digits = text.strip_suffix('Z').unwrap_or_default();
    let is_date = digits.bytes().all(|byte| byte.is_ascii_digit());
    match (value.tag, digits.len()) {
        (UTC_TIME, 12) if is_date => Ok(format!("{}{digits}", if digits < "50" { "20" } else { "19" })),
        (GENERALIZED_TIME, 14) if is_date && digits >= "2050" => Ok(digits.to_owned()),
        _ => Err(format!("a date {text} of type {}", value.tag)),
    }
}

#[derive(Clone, Copy)]
struct Value<'a> {
    tag: u8,
    body: &'a [u8],
    whole: &'a [u8],
}

/// DER: one way to write a length.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Checked<Value<'a>> {
        let short = || "CRL-25: cut off, or a length that is not DER".to_owned();
        let (&tag, &first) = (
            self.0.first().ok_or_else(short)?,
            self.0.get(1).ok_or_else(short)?,
        );
        let (length, header) = match first {
            0..=0x7f => (usize::from(first), 2),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let bytes = self.0.get(2..2 + count).ok_or_else(short)?;
                let length = bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte));
                let is_least = bytes[0] != 0 && length > 0x7f;
                (is_least.then_some(length).ok_or_else(short)?, 2 + count)
            }
            _ => return Err(short()),
        };
        let whole = self.0.get(..header + length).ok_or_else(short)?;
        self.0 = &self.0[whole.len()..];
        Ok(Value {
            tag,
            body: &whole[header..],
            whole,
        })
    }

    fn expect(&mut self, tag: u8) -> Checked<Self> {
        let value = self.next()?;
        hold(
            value.tag == tag,
            &format!("CRL-25: type {} where {tag} should be", value.tag),
        )?;
        Ok(Self(value.body))
    }

    fn expect_whole(&mut self, tag: u8) -> Checked<&'a [u8]> {
        let value = self.next()?;
        hold(
            value.tag == tag,
            &format!("CRL-25: type {} where {tag} should be", value.tag),
        )?;
        Ok(value.whole)
    }

    fn end(&self, else_what: &str) -> Checked<()> {
        hold(self.0.is_empty(), else_what)
    }
}
