//! Reads a trust state as it arrives, and keeps of its lists the digest and the number: nobody needs five hundred copies.

use ring::digest::{Context, SHA256};

/// What an agent needs of a `TrustState` to answer it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sequence: u64,
    /// Seconds.
    pub(super) refresh_hint: u64,
    pub(super) authorities: Vec<Offered>,
}

/// One authority as offered.
#[derive(Debug, Default)]
pub(super) struct Offered {
    pub(super) is_control: bool,
    pub(super) certificate: Vec<u8>,
    /// The list, where its bytes came.
    pub(super) list: Option<List>,
    /// The digest of its list, where it was named.
    pub(super) named: Option<[u8; 32]>,
}

/// A list, without its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) sha256: [u8; 32],
    pub(super) number: u64,
    pub(super) bytes: u64,
}

/// Enough of a list's end to hold its number: two extensions and a signature by P-256.
const TAIL: usize = 512;
/// The extension cRLNumber (RFC 5280 §5.2.3): its OID, then an OCTET STRING.
const NUMBER: [u8; 6] = [0x06, 0x03, 0x55, 0x1d, 0x14, 0x04];

/// Field numbers of `TrustState` and of `Authority`.
const SEQUENCE: u64 = 1;
const REFRESH_HINT: u64 = 2;
const X509: u64 = 3;
const CONTROL: u64 = 4;
const CERTIFICATE: u64 = 1;
const LIST: u64 = 2;
const NAMED: u64 = 4;

/// Takes gRPC messages apart without holding them.
#[derive(Default)]
pub(super) struct Scanner {
    /// Bytes of a header that has not fully arrived.
    head: Vec<u8>,
    /// Bytes left of the message and of the authority within it.
    message: Option<u64>,
    authority: Option<u64>,
    value: Option<(u64, Sink)>,
    state: State,
}

/// Where the bytes of a value go.
enum Sink {
    Nowhere,
    Certificate,
    Named(Vec<u8>),
    List(Box<Context>, Vec<u8>, u64),
}

impl Scanner {
    /// Takes bytes from `rest` until a message is complete.
    pub(super) fn feed(&mut self, rest: &mut &[u8]) -> Option<State> {
        loop {
            if self.value.is_none() && self.is_over() {
                return Some(std::mem::take(&mut self.state));
            }
            if rest.is_empty() {
                return None;
            }
            match self.value.take() {
                Some((left, sink)) => self.fill(left, sink, rest),
                None => self.header(rest),
            }
        }
    }

    fn is_over(&mut self) -> bool {
        if self.authority == Some(0) {
            self.authority = None;
        }
        let over = self.authority.is_none() && self.message == Some(0);
        if over {
            self.message = None;
        }
        over
    }

    fn fill(&mut self, left: u64, mut sink: Sink, rest: &mut &[u8]) {
        let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (part, after) = rest.split_at(taken);
        *rest = after;
        match &mut sink {
            Sink::Nowhere => {}
            Sink::Certificate => {
                if let Some(offered) = self.state.authorities.last_mut() {
                    offered.certificate.extend_from_slice(part);
                }
            }
            Sink::Named(digest) => digest.extend_from_slice(part),
            Sink::List(digest, tail, bytes) => {
                digest.update(part);
                *bytes += part.len() as u64;
                tail.extend_from_slice(part.get(part.len().saturating_sub(TAIL)..).unwrap_or(part));
                tail.drain(..tail.len().saturating_sub(TAIL));
            }
        }
        let left = left - taken as u64;
        if left > 0 {
            self.value = Some((left, sink));
        } else {
            self.finish(sink);
        }
    }

    fn finish(&mut self, sink: Sink) {
        let Some(offered) = self.state.authorities.last_mut() else {
            return;
        };
        match sink {
            Sink::Nowhere | Sink::Certificate => {}
            Sink::Named(digest) => offered.named = digest.try_into().ok(),
            Sink::List(digest, tail, bytes) => {
                let sha256 = digest.finish().as_ref().try_into().unwrap_or_default();
                offered.list = number(&tail).map(|number| List {
                    sha256,
                    number,
                    bytes,
                });
            }
        }
    }

    /// Takes one byte of a header, and the header once it is complete.
    fn header(&mut self, rest: &mut &[u8]) {
        let Some((first, after)) = rest.split_first() else {
            return;
        };
        *rest = after;
        self.head.push(*first);
        if self.message.is_none() {
            if let [_, length @ ..] = self.head.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.message = Some(u64::from(u32::from_be_bytes(length)));
                self.head.clear();
            }
            return;
        }
        let Some((key, value)) = key_and_value(&self.head) else {
            return;
        };
        let taken = self.head.len() as u64;
        self.head.clear();
        let level = self.authority.as_mut().or(self.message.as_mut());
        let content = if key & 7 == 2 { value } else { 0 };
        if let Some(left) = level {
            *left = left.saturating_sub(taken + content);
        }
        self.field(key, value);
    }

    fn field(&mut self, key: u64, value: u64) {
        let is_bytes = key & 7 == 2;
        match (self.authority, key >> 3) {
            (None, SEQUENCE) => self.state.sequence = value,
            (None, REFRESH_HINT) => self.state.refresh_hint = value,
            (None, field @ (X509 | CONTROL)) => {
                self.authority = Some(value);
                self.state.authorities.push(Offered {
                    is_control: field == CONTROL,
                    ..Offered::default()
                });
            }
            (Some(_), CERTIFICATE) => self.value = Some((value, Sink::Certificate)),
            (Some(_), LIST) => {
                self.value = Some((value, Sink::List(Box::new(Context::new(&SHA256)), Vec::new(), 0)));
            }
            (Some(_), NAMED) => self.value = Some((value, Sink::Named(Vec::new()))),
            _ if is_bytes => self.value = Some((value, Sink::Nowhere)),
            _ => {}
        }
        self.value = self.value.take().filter(|(left, _)| *left > 0);
    }
}

/// Two varints, if both are there: a field's key, and its value or length.
fn key_and_value(bytes: &[u8]) -> Option<(u64, u64)> {
    let (key, rest) = varint(bytes)?;
    let (value, _) = varint(rest)?;
    Some((key, value))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let (of_it, rest) = bytes.split_at(end + 1);
    let value = of_it
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, rest))
}

/// The number in the extension at the end of a list.
fn number(tail: &[u8]) -> Option<u64> {
    let at = tail.windows(NUMBER.len()).rposition(|window| window == NUMBER)?;
    // Length of the OCTET STRING, then an INTEGER of a short length.
    let (&length, digits) = tail.get(at + NUMBER.len() + 2..)?.split_first()?;
    let digits = digits.get(..usize::from(length))?;
    Some(
        digits
            .iter()
            .fold(0, |number, digit| number << 8 | u64::from(*digit)),
    )
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use signet_proto::agent::{Authority, TrustState};

    use super::*;

    /// Byte by byte and in one piece it is the same.
    #[test]
    fn a_state_is_read_in_pieces_of_any_size() {
        let tail = [&[7; 3000][..], &NUMBER, &[4, 2, 2, 1, 5], &[9; 80]].concat();
        let authority = |list: &[u8]| Authority {
            certificate: vec![1; 300].into(),
            crl: list.to_vec().into(),
            tainted: true,
            ..Authority::default()
        };
        let state = TrustState {
            sequence_number: 300,
            refresh_hint_seconds: 5,
            x509_authorities: vec![authority(&tail), authority(&tail)],
            control_authorities: vec![authority(&tail)],
            affected_pod_uids: vec!["pod".to_owned()],
            ..TrustState::default()
        };
        let encoded = state.encode_to_vec();
        let length = u32::try_from(encoded.len()).unwrap().to_be_bytes();
        let framed = [&[0][..], &length, &encoded].concat().repeat(2);
        for size in [1, 7, 1000, framed.len()] {
            let mut scanner = Scanner::default();
            let mut states = Vec::new();
            for mut piece in framed.chunks(size) {
                while let Some(state) = scanner.feed(&mut piece) {
                    states.push(state);
                }
            }
            assert_eq!(states.len(), 2, "in pieces of {size}");
            let state = &states[1];
            assert_eq!((state.sequence, state.refresh_hint), (300, 5));
            assert_eq!(state.authorities.len(), 3);
            assert!(state.authorities[2].is_control && !state.authorities[1].is_control);
            for offered in &state.authorities {
                let list = offered.list.unwrap();
                assert_eq!((list.number, list.bytes), (261, tail.len() as u64));
                assert_eq!(offered.certificate, [1; 300]);
            }
        }
    }
}
