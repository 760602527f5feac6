//! Certificate serial numbers.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

#[cfg(feature = "issue")]
use serde::{Deserialize, Serialize};

use crate::time::{from_unix_millis, unix_millis};

#[cfg(test)]
mod tests;

/// Longest serial in octets, sign octet included (RFC 5280 §4.1.2.2).
pub const MAX_SERIAL_BYTES: usize = 20;
/// Byte 0 of the serials we make: layout version 1, which also keeps the number positive.
const LAYOUT: u8 = 1;

/// Why bytes or text are no serial number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// No digits or octets, or the number zero.
    #[error("a serial number is positive; this one is empty or zero")]
    NotPositive,
    /// The sign bit is set.
    #[error("a serial number is positive; this one is negative")]
    Negative,
    /// An octet in front that DER leaves out.
    #[error("the serial number is not in its shortest form")]
    NotMinimal,
    /// More than 20 octets.
    #[error("the serial number has more than {MAX_SERIAL_BYTES} octets")]
    TooLong,
    /// Text that is not hexadecimal.
    #[error("a serial number is written in hexadecimal digits, with or without colons, `0x` or `serial=`")]
    NotHex,
}

/// A positive serial number of at most 20 octets. Orders as the number does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "issue",
    derive(Serialize, Deserialize),
    serde(try_from = "String", into = "String")
)]
pub struct SerialNumber {
    // The order of the fields makes the derived order the numeric one: no leading zeros, zeros after the end.
    len: u8,
    bytes: [u8; MAX_SERIAL_BYTES],
}

impl SerialNumber {
    /// A fresh serial: layout byte, 48 bits of milliseconds, 104 random bits that the caller drew. Serials of
    /// one layout sort by time, which keeps inserts at the right edge of an index.
    #[must_use]
    pub fn generate(now: SystemTime, random: &[u8; 13]) -> Self {
        let millis = u64::try_from(unix_millis(now)).unwrap_or(0).to_be_bytes();
        let mut bytes = [0; MAX_SERIAL_BYTES];
        bytes[0] = LAYOUT;
        bytes[1..7].copy_from_slice(&millis[2..]);
        bytes[7..].copy_from_slice(random);
        Self { len: 20, bytes }
    }

    /// When it was made, to the millisecond; `None` where it is of another layout than ours.
    #[must_use]
    pub fn made_at(&self) -> Option<SystemTime> {
        match *self.as_bytes() {
            [LAYOUT, a, b, c, d, e, f, ..] if usize::from(self.len) == MAX_SERIAL_BYTES => {
                let millis = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
                i64::try_from(millis).ok().map(from_unix_millis)
            }
            _ => None,
        }
    }

    /// Reads the content octets of a DER INTEGER: positive, shortest form, at most 20 octets.
    pub fn from_der_integer(content: &[u8]) -> Result<Self, SerialError> {
        match content {
            [] | [0] => return Err(SerialError::NotPositive),
            [first, ..] if *first >= 0x80 => return Err(SerialError::Negative),
            [0, second, ..] if *second < 0x80 => return Err(SerialError::NotMinimal),
            _ => {}
        }
        Self::from_unsigned(content)
    }

    /// Reads an unsigned big-endian number; zeros in front are dropped.
    pub fn from_unsigned(number: &[u8]) -> Result<Self, SerialError> {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = number.get(zeros..).unwrap_or_default();
        let first = *number.first().ok_or(SerialError::NotPositive)?;
        // DER puts a zero octet before a set sign bit; it counts.
        if number.len() + usize::from(first >= 0x80) > MAX_SERIAL_BYTES {
            return Err(SerialError::TooLong);
        }
        let mut bytes = [0; MAX_SERIAL_BYTES];
        bytes[..number.len()].copy_from_slice(number);
        Ok(Self {
            len: u8::try_from(number.len()).map_err(|_| SerialError::TooLong)?,
            bytes,
        })
    }

    /// The number in big-endian octets, without the zero octet that DER may need in front.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for SerialNumber {
    type Err = SerialError;

    /// Hexadecimal in either case, with or without colons, as OpenSSL and browsers print it: `serial=` or `0x` may stand in front.
    fn from_str(text: &str) -> Result<Self, SerialError> {
        let text = text.trim();
        let text = without_prefix(text, "serial=").trim_start();
        let text = without_prefix(text, "0x");
        // Two digits and a colon for each octet, and some leading zeros.
        if text.len() > 4 * MAX_SERIAL_BYTES {
            return Err(SerialError::TooLong);
        }
        let mut digits: String = text.chars().filter(|c| *c != ':').collect();
        if digits.len() % 2 == 1 {
            digits.insert(0, '0');
        }
        Self::from_unsigned(&hex::decode(digits).map_err(|_| SerialError::NotHex)?)
    }
}

/// The rest of a text behind a prefix of ASCII letters in either case, or all of it.
fn without_prefix<'a>(text: &'a str, prefix: &str) -> &'a str {
    match text.split_at_checked(prefix.len()) {
        Some((front, rest)) if front.eq_ignore_ascii_case(prefix) => rest,
        _ => text,
    }
}

impl TryFrom<String> for SerialNumber {
    type Error = SerialError;

    fn try_from(text: String) -> Result<Self, SerialError> {
        text.parse()
    }
}

impl From<SerialNumber> for String {
    fn from(serial: SerialNumber) -> Self {
        serial.to_string()
    }
}
