//! A strict reader of DER's outer shape.
//!
//! x509-parser skips bytes it does not expect inside a SEQUENCE and tolerates lengths that are not minimal.
//! What we sign over or store must have one encoding only, so every object from outside passes here first.

/// Nesting beyond this is no certificate, request or revocation list.
const MAX_DEPTH: usize = 24;

const CONSTRUCTED: u8 = 0x20;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;

/// What is wrong with the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerError {
    /// An element is longer than what contains it.
    #[error("the DER is truncated")]
    Truncated,
    /// Bytes follow where nothing may follow.
    #[error("{0} bytes follow after the end of the DER")]
    Trailing(usize),
    /// An indefinite length, or one not in its shortest form.
    #[error("a length is not in DER's shortest definite form")]
    Length,
    /// Multi-byte tags do not occur in X.509.
    #[error("a tag is not one that X.509 uses")]
    Tag,
    /// Nested more deeply than any X.509 object.
    #[error("the DER is nested more than {MAX_DEPTH} levels deep")]
    Depth,
    /// Not the structure that a signed object has.
    #[error("the DER is not a signed X.509 structure")]
    Shape,
}

/// One element: its tag, its content, and the bytes of the whole.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

/// Splits the first element off `input`.
pub(crate) fn split_element(input: &[u8]) -> Result<(Element<'_>, &[u8]), DerError> {
    let [tag, first, ..] = *input else {
        return Err(DerError::Truncated);
    };
    if tag & 0x1f == 0x1f {
        return Err(DerError::Tag);
    }
    let (header, length) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => long_length(input, usize::from(first & 0x7f))?,
        _ => return Err(DerError::Length),
    };
    let end = header.checked_add(length).ok_or(DerError::Truncated)?;
    let (whole, rest) = input.split_at_checked(end).ok_or(DerError::Truncated)?;
    let content = whole.get(header..).ok_or(DerError::Truncated)?;
    Ok((Element { tag, content, whole }, rest))
}

fn long_length(input: &[u8], octets: usize) -> Result<(usize, usize), DerError> {
    let bytes = input.get(2..2 + octets).ok_or(DerError::Truncated)?;
    let length = bytes
        .iter()
        .fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
    if length < 0x80 || bytes.first() == Some(&0) {
        return Err(DerError::Length);
    }
    Ok((2 + octets, length))
}

/// The single element that `input` is, and nothing after it.
pub(crate) fn single(input: &[u8]) -> Result<Element<'_>, DerError> {
    let (element, rest) = split_element(input)?;
    if rest.is_empty() {
        Ok(element)
    } else {
        Err(DerError::Trailing(rest.len()))
    }
}

/// Checks that `content` is a row of well-formed elements, all the way down.
fn check_nested(content: &[u8], depth: usize) -> Result<(), DerError> {
    if depth > MAX_DEPTH {
        return Err(DerError::Depth);
    }
    let mut rest = content;
    while !rest.is_empty() {
        let (element, after) = split_element(rest)?;
        if element.tag & CONSTRUCTED != 0 {
            check_nested(element.content, depth + 1)?;
        }
        rest = after;
    }
    Ok(())
}

/// The unsigned outside of a certificate, request or CRL.
pub(crate) struct Signed<'a> {
    /// What the signature covers.
    pub(crate) tbs: &'a [u8],
    /// The AlgorithmIdentifier beside it.
    pub(crate) algorithm: &'a [u8],
}

/// Takes a signed object apart after checking that the whole is well-formed DER: signed bytes, algorithm and signature,
/// with nothing before, between or after.
pub(crate) fn signed(input: &[u8]) -> Result<Signed<'_>, DerError> {
    let outer = single(input)?;
    if outer.tag != SEQUENCE {
        return Err(DerError::Shape);
    }
    let (tbs, rest) = split_element(outer.content)?;
    let (algorithm, rest) = split_element(rest)?;
    let (signature, rest) = split_element(rest)?;
    if !rest.is_empty() {
        return Err(DerError::Trailing(rest.len()));
    }
    if tbs.tag != SEQUENCE || algorithm.tag != SEQUENCE || signature.tag != BIT_STRING {
        return Err(DerError::Shape);
    }
    // No signature in use has bits left over; the parser would let their number vary.
    if signature.content.first() != Some(&0) {
        return Err(DerError::Shape);
    }
    check_nested(tbs.content, 1)?;
    check_nested(algorithm.content, 1)?;
    Ok(Signed {
        tbs: tbs.whole,
        algorithm: algorithm.whole,
    })
}

impl Signed<'_> {
    /// Whether element `index` of the signed bytes, the inner algorithm, equals the outer one byte for byte. The parser
    /// would let tags differ that nobody signed.
    pub(crate) fn has_inner_algorithm_at(&self, index: usize) -> bool {
        let Ok(mut rest) = single(self.tbs).map(|tbs| tbs.content) else {
            return false;
        };
        for _ in 0..index {
            let Ok((_, after)) = split_element(rest) else {
                return false;
            };
            rest = after;
        }
        split_element(rest).is_ok_and(|(element, _)| element.whole == self.algorithm)
    }
}

/// Takes certificates that stand one after another, as the Workload API carries chains and bundles, apart. What
/// they hold is not looked at. Nothing gives nothing.
pub fn split_certificates(run: &[u8]) -> Result<Vec<&[u8]>, DerError> {
    let mut certificates = Vec::new();
    let mut rest = run;
    while !rest.is_empty() {
        let (element, after) = split_element(rest)?;
        if element.tag != SEQUENCE {
            return Err(DerError::Shape);
        }
        certificates.push(element.whole);
        rest = after;
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_certificates_is_taken_apart() {
        let two = [0x30, 0x01, 7, 0x30, 0x00];
        assert_eq!(split_certificates(&two), Ok(vec![&two[..3], &two[3..]]));
        assert_eq!(split_certificates(&[]), Ok(vec![]));
        assert_eq!(split_certificates(&two[..4]), Err(DerError::Truncated));
        assert_eq!(split_certificates(&[0x02, 0x01, 7]), Err(DerError::Shape));
        let mut long = vec![0x30, 0x82, 300_u16.to_be_bytes()[0], 300_u16.to_be_bytes()[1]];
        long.resize(4 + 300, 7);
        let run = [&long[..], &two, &long].concat();
        assert_eq!(
            split_certificates(&run),
            Ok(vec![&long[..], &two[..3], &two[3..], &long])
        );
        for broken in [
            &[0x30][..],
            &[0x30, 0x80],
            &[0x31, 0x00],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
            &[0x30, 5, 1],
        ] {
            assert!(split_certificates(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn indefinite_and_overlong_lengths_are_refused() {
        assert_eq!(single(&[0x30, 0x80, 0, 0]).err(), Some(DerError::Length));
        assert_eq!(single(&[0x30, 0x81, 0x01, 0]).err(), Some(DerError::Length));
        assert_eq!(single(&[0x30, 0x82, 0x00, 0x01, 0]).err(), Some(DerError::Length));
        assert_eq!(single(&[0x30, 0x02, 0]).err(), Some(DerError::Truncated));
        assert_eq!(
            single(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).err(),
            Some(DerError::Truncated)
        );
        assert_eq!(single(&[0x1f, 0x00]).err(), Some(DerError::Tag));
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        assert_eq!(single(&[0x30, 0x00, 0x00]).err(), Some(DerError::Trailing(1)));
        let four = [0x30, 0x08, 0x30, 0, 0x30, 0, 0x03, 0, 0x05, 0];
        assert_eq!(signed(&four).err(), Some(DerError::Trailing(2)));
    }

    #[test]
    fn deep_nesting_ends_in_an_error_not_in_a_stack_overflow() {
        let mut der = vec![0x30, 0x00];
        for _ in 0..40 {
            der.splice(0..0, [0x30, u8::try_from(der.len()).unwrap()]);
        }
        let mut whole = vec![0x30, u8::try_from(der.len() + 5).unwrap()];
        whole.extend_from_slice(&der);
        whole.extend_from_slice(&[0x30, 0, 0x03, 1, 0]);
        assert_eq!(signed(&whole).err(), Some(DerError::Depth));
    }
}
