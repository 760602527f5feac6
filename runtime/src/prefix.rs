//! What stands before each message of a call (gRPC over HTTP/2, Length-Prefixed-Message): whether it is compressed, and how long it is.

/// Bytes of it: a flag and the length.
pub const LENGTH: usize = 5;

/// What it says of the message behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// It is compressed.
    pub compressed: bool,
    /// Its bytes, the prefix not counted.
    pub length: usize,
}

impl Prefix {
    /// Reads it. Any flag but 0 counts as compressed: nobody knows another meaning.
    #[must_use]
    pub fn read([flag, length @ ..]: [u8; LENGTH]) -> Self {
        Self {
            compressed: flag != 0,
            length: usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX),
        }
    }

    /// That of a message as it is.
    #[must_use]
    pub fn of(length: usize) -> [u8; LENGTH] {
        let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        [0, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 255, 65_536, 1 << 24] {
            let read = Prefix::read(Prefix::of(length));
            assert_eq!((read.compressed, read.length), (false, length));
        }
        assert_eq!(Prefix::of(258), [0, 0, 0, 1, 2]);
        assert!(Prefix::read([1, 0, 0, 0, 0]).compressed);
    }
}
