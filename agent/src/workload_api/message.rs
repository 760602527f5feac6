//! Messages of the Workload API as they go over the wire. What only one workload is told is encoded for it; the lists, which all are
//! told, are read where they are as the client takes them, so that whoever takes nothing holds a few kilobytes of them.
//! Fields come in the order of their numbers, as the generated code has it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::readings::Reading;
use crate::context::Lists;

/// What is on its way to the client at once.
const CHUNK: usize = 16 * 1024;

/// gRPC's word before each message: not compressed, and how long it is.
const PREFIX: usize = 5;

/// One message: what is around the lists, and the lists.
#[derive(Debug)]
pub(super) struct Message {
    /// The fields before the lists, which may hold keys.
    pub(super) head: Zeroizing<Vec<u8>>,
    /// None where they stay behind.
    pub(super) lists: Option<Arc<Lists>>,
    /// The field that has them.
    pub(super) field: u32,
    /// The fields behind them.
    pub(super) tail: Vec<u8>,
}

/// Stands for a message that was sent.
pub(super) type Digest = [u8; 32];

impl Message {
    /// How many bytes it has.
    pub(super) fn length(&self) -> usize {
        self.head.len() + self.length_of_lists() + self.tail.len()
    }

    fn length_of_lists(&self) -> usize {
        let ders = self.lists.iter().flat_map(|lists| lists.ders());
        ders.map(|der| key_len(self.field) + encoded_len_varint(der.len() as u64) + der.len())
            .sum()
    }

    /// What it holds of its caller's while it is on its way: what is its own, and what is in the queues of the connection. One chunk may be
    /// under way there when the next is asked for.
    pub(super) fn held(&self) -> usize {
        self.head.len() + self.tail.len() + self.length().min(2 * CHUNK)
    }

    /// Equal for equal messages, and tells nothing of a key.
    pub(super) fn digest(&self) -> Digest {
        let mut all = Context::new(&SHA256);
        all.update(&(self.head.len() as u64).to_be_bytes());
        all.update(&self.head);
        if let Some(lists) = &self.lists {
            all.update(lists.digest());
        }
        all.update(&self.tail);
        let mut digest = [0; 32];
        digest.copy_from_slice(all.finish().as_ref());
        digest
    }

    /// To be sent. `reading` is where the lists are read.
    pub(super) fn send(self, reading: Option<Arc<Reading>>) -> Sending {
        let mut prefix = BytesMut::with_capacity(PREFIX);
        prefix.put_u8(0);
        prefix.put_u32(u32::try_from(self.length()).unwrap_or(u32::MAX));
        let of_lists = self.lists.iter().flat_map(|lists| lists.ders()).enumerate();
        let mut parts = vec![Part::Own(prefix.freeze()), Part::Secret(self.head)];
        for (number, der) in of_lists {
            let mut before = BytesMut::new();
            encode_key(self.field, WireType::LengthDelimited, &mut before);
            encode_varint(der.len() as u64, &mut before);
            parts.push(Part::Own(before.freeze()));
            parts.push(Part::List {
                number,
                length: der.len(),
            });
        }
        parts.push(Part::Own(self.tail.into()));
        parts.retain(|part| part.length() > 0);
        Sending {
            parts,
            next: 0,
            taken: 0,
            reading,
        }
    }
}

/// A message of which some was sent.
#[derive(Debug)]
pub(super) struct Sending {
    parts: Vec<Part>,
    /// The part that comes next, and how much of it was sent.
    next: usize,
    taken: usize,
    reading: Option<Arc<Reading>>,
}

#[derive(Debug)]
enum Part {
    Own(Bytes),
    Secret(Zeroizing<Vec<u8>>),
    List { number: usize, length: usize },
}

impl Part {
    fn length(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Secret(bytes) => bytes.len(),
            Self::List { length, .. } => *length,
        }
    }
}

/// The lists are not kept any more for who has not taken them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TooLate;

impl Sending {
    /// Whether nothing is left.
    pub(super) fn is_over(&self) -> bool {
        self.next == self.parts.len()
    }

    /// The next piece.
    pub(super) fn chunk(&mut self) -> Result<Bytes, TooLate> {
        let mut chunk = Zeroizing::new(Vec::with_capacity(CHUNK));
        let mut is_secret = false;
        while let Some(part) = self.parts.get(self.next)
            && chunk.len() < CHUNK
        {
            let end = part.length().min(self.taken + CHUNK - chunk.len());
            let range = self.taken..end;
            match part {
                Part::Own(bytes) => chunk.extend_from_slice(&bytes[range]),
                Part::Secret(bytes) => {
                    is_secret = true;
                    chunk.extend_from_slice(&bytes[range]);
                }
                Part::List { number, .. } => {
                    let lists = self.reading.as_ref().and_then(|reading| reading.lists());
                    let lists = lists.ok_or(TooLate)?;
                    chunk.extend_from_slice(&lists.ders()[*number][range]);
                }
            }
            self.taken = end;
            if end == part.length() {
                (self.next, self.taken) = (self.next + 1, 0);
            }
        }
        Ok(if is_secret {
            Bytes::from_owner(chunk)
        } else {
            std::mem::take(&mut *chunk).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use signet_proto::workload::X509BundlesResponse;

    use super::super::readings::Readings;
    use super::*;

    fn message(lists: &Arc<Lists>) -> (Message, X509BundlesResponse) {
        let bundle = Bytes::from_static(b"bundle");
        let tail = X509BundlesResponse {
            crl: Vec::new(),
            bundles: [("spiffe://example.org".to_owned(), bundle)].into(),
        };
        let whole = X509BundlesResponse {
            crl: lists.ders().to_vec(),
            ..tail.clone()
        };
        let message = Message {
            head: Zeroizing::default(),
            lists: Some(lists.clone()),
            field: 1,
            tail: tail.encode_to_vec(),
        };
        (message, whole)
    }

    #[test]
    fn the_pieces_are_the_message_of_the_generated_code() {
        for length in [1, 127, 128, CHUNK - 1, CHUNK, 3 * CHUNK + 7] {
            let lists = Lists::new(vec![Bytes::from(vec![1; length]), Bytes::from(vec![2; 5])]);
            let (message, whole) = message(&lists);
            assert_eq!(message.length(), whole.encoded_len());
            let mut sending = message.send(Some(Readings::default().of(&lists)));
            let mut bytes = Vec::new();
            while !sending.is_over() {
                let chunk = sending.chunk().unwrap();
                assert!(chunk.len() == CHUNK || sending.is_over(), "{length}");
                bytes.extend_from_slice(&chunk);
            }
            let length = u32::try_from(whole.encoded_len()).unwrap();
            assert_eq!(bytes[..PREFIX], [&[0][..], &length.to_be_bytes()].concat());
            assert_eq!(bytes[PREFIX..], whole.encode_to_vec());
        }
    }

    #[test]
    fn what_is_its_own_is_held_whole_and_of_the_lists_what_is_under_way() {
        let long = Lists::new(vec![Bytes::from(vec![1; 2_600_000])]);
        let (long, _) = message(&long);
        assert_eq!(long.held(), long.tail.len() + 2 * CHUNK);
        let (short, _) = message(&Lists::new(Vec::new()));
        assert_eq!(short.held(), 2 * short.tail.len());
        assert_ne!(long.digest(), short.digest());
    }
}
