//! Messages as they go over the wire. What only one workload is told is encoded for it; the lists, which all are told, are read where they
//! are as the client takes them, so that whoever takes nothing holds a few kilobytes of them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use ring::digest::{Context, SHA256};
use signet_runtime::prefix::Prefix;
use zeroize::Zeroizing;

use super::readings::Reading;
use crate::context::Lists;

/// What is on its way to the client at once.
const CHUNK: usize = 16 * 1024;

/// One message, or a part of one that is encoded already: what is its own, and the lists, all of one moment.
#[derive(Debug, Default)]
pub(crate) struct Message {
    parts: Vec<Part>,
    /// None where it has none.
    lists: Option<Arc<Lists>>,
}

/// Stands for a message that was sent.
pub(crate) type Digest = [u8; 32];

#[derive(Debug)]
enum Part {
    Own(Bytes),
    Secret(Zeroizing<Vec<u8>>),
    List(List),
}

/// What of the lists.
#[derive(Clone, Copy, Debug)]
struct List {
    which: Which,
    length: usize,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    /// One of them, in DER.
    Der(usize),
    /// All of them, in PEM.
    Pem,
}

impl Which {
    fn of(self, lists: &Lists) -> &[u8] {
        match self {
            Self::Der(number) => lists.ders().get(number).map_or(&[], AsRef::as_ref),
            Self::Pem => lists.pem(),
        }
    }
}

impl Part {
    fn length(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Secret(bytes) => bytes.len(),
            Self::List(list) => list.length,
        }
    }
}

impl Message {
    /// What everybody may read.
    pub(crate) fn own(bytes: impl Into<Bytes>) -> Self {
        Self::of(Part::Own(bytes.into()))
    }

    /// What may hold keys. To be made at its full length, so that no part of a key stays behind where it has grown.
    pub(crate) fn secret(bytes: Vec<u8>) -> Self {
        Self::of(Part::Secret(bytes.into()))
    }

    /// The lists in DER, each a field of this number.
    pub(crate) fn lists_in_der(lists: &Arc<Lists>, field: u32) -> Self {
        let fields = lists.ders().iter().enumerate().map(|(number, der)| {
            let which = Which::Der(number);
            let length = der.len();
            Self::of(Part::List(List { which, length })).within(field)
        });
        let mut all = Self::default().then_all(fields);
        all.lists = Some(lists.clone());
        all
    }

    /// The lists in PEM, one behind the other.
    pub(crate) fn lists_in_pem(lists: &Arc<Lists>) -> Self {
        let (which, length) = (Which::Pem, lists.pem().len());
        let mut all = Self::of(Part::List(List { which, length }));
        all.lists = Some(lists.clone());
        all
    }

    fn of(part: Part) -> Self {
        let parts = if part.length() > 0 { vec![part] } else { Vec::new() };
        Self { parts, lists: None }
    }

    /// With the other behind it. Their lists are of one moment, if both have some.
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self.lists = self.lists.or(other.lists);
        self
    }

    /// With all others behind it.
    pub(crate) fn then_all(self, others: impl IntoIterator<Item = Self>) -> Self {
        others.into_iter().fold(self, Self::then)
    }

    /// As a field of this number: bytes, a string or a message.
    pub(crate) fn within(self, field: u32) -> Self {
        let mut before = BytesMut::new();
        encode_key(field, WireType::LengthDelimited, &mut before);
        encode_varint(self.length() as u64, &mut before);
        Self::own(before.freeze()).then(self)
    }

    /// Whose lists it has.
    pub(crate) fn lists(&self) -> Option<&Arc<Lists>> {
        self.lists.as_ref()
    }

    /// How many bytes it has.
    pub(crate) fn length(&self) -> usize {
        self.parts.iter().map(Part::length).sum()
    }

    /// What it holds of its caller's while it is on its way: what is its own, and what is in the queues of the connection. One chunk may be
    /// under way there when the next is asked for.
    pub(crate) fn held(&self) -> usize {
        let is_own = |part: &&Part| !matches!(part, Part::List(_));
        let own: usize = self.parts.iter().filter(is_own).map(Part::length).sum();
        own + self.length().min(2 * CHUNK)
    }

    /// Equal for equal messages, and tells nothing of a key.
    pub(crate) fn digest(&self) -> Digest {
        let mut all = Context::new(&SHA256);
        for part in &self.parts {
            all.update(&(part.length() as u64).to_be_bytes());
            match part {
                Part::Own(bytes) => all.update(bytes),
                Part::Secret(bytes) => all.update(bytes),
                // All of them at once below: what they are in this form follows from what they are.
                Part::List(_) => {}
            }
        }
        if let Some(lists) = &self.lists {
            all.update(lists.digest());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(all.finish().as_ref());
        digest
    }

    /// To be sent. `reading` is where the lists are read.
    pub(crate) fn send(self, reading: Option<Arc<Reading>>) -> Sending {
        let prefix = Bytes::copy_from_slice(&Prefix::of(self.length()));
        let parts = Self::own(prefix).then(self).parts;
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
pub(crate) struct Sending {
    parts: Vec<Part>,
    /// The part that comes next, and how much of it was sent.
    next: usize,
    taken: usize,
    reading: Option<Arc<Reading>>,
}

/// The lists are not kept any more for who has not taken them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooLate;

impl Sending {
    /// Whether nothing is left.
    pub(crate) fn is_over(&self) -> bool {
        self.next == self.parts.len()
    }

    /// The next piece.
    pub(crate) fn chunk(&mut self) -> Result<Bytes, TooLate> {
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
                Part::List(list) => {
                    let lists = self.reading.as_ref().and_then(|reading| reading.lists());
                    let lists = lists.ok_or(TooLate)?;
                    let bytes = list.which.of(&lists);
                    chunk.extend_from_slice(bytes.get(range).unwrap_or_default());
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
    use signet_runtime::prefix::LENGTH;

    use super::super::readings::Readings;
    use super::*;

    /// As the generated code has it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Whole {
        #[prost(bytes = "vec", repeated, tag = "1")]
        lists: Vec<Vec<u8>>,
        #[prost(string, tag = "2")]
        tail: String,
    }

    fn message(lists: &Arc<Lists>) -> (Message, Whole) {
        let tail = Whole {
            lists: Vec::new(),
            tail: "bundle".to_owned(),
        };
        let whole = Whole {
            lists: lists.ders().iter().map(|der| der.to_vec()).collect(),
            ..tail.clone()
        };
        let message = Message::lists_in_der(lists, 1).then(Message::own(tail.encode_to_vec()));
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
            assert_eq!(bytes[..LENGTH], [&[0][..], &length.to_be_bytes()].concat());
            assert_eq!(bytes[LENGTH..], whole.encode_to_vec());
        }
    }

    #[test]
    fn what_is_its_own_is_held_whole_and_of_the_lists_what_is_under_way() {
        let long = Lists::new(vec![Bytes::from(vec![1; 2_600_000])]);
        let (long, _) = message(&long);
        let (short, _) = message(&Lists::new(Vec::new()));
        let prefix_of_list = 5;
        assert_eq!(long.held(), prefix_of_list + short.length() + 2 * CHUNK);
        assert_eq!(short.held(), 2 * short.length());
        assert_ne!(long.digest(), short.digest());
    }
}
