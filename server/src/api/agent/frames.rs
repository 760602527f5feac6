//! Trust states as they go over the wire. What all streams have in common is encoded once for each snapshot, and a list's bytes
//! are never copied: protobuf messages concatenate, so a message is shared pieces followed by the stream's own fields. They
//! come in the order of their numbers, as the generated code has it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::Frame;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use signet_certs::{
    authority::{AuthorityId, AuthorityKind},
    crl::Crl,
};
use signet_proto::agent as wire;
use signet_runtime::sync::Mutex;
use tokio::sync::mpsc;
use tonic::Status;

use crate::trust::{PublishedAuthority, TrustSnapshot};

/// Field numbers of `TrustState` and of `Authority`; a test compares them with what the generated code makes.
const X509_AUTHORITIES: u32 = 3;
const CONTROL_AUTHORITIES: u32 = 4;
const CRL: u32 = 2;
/// A shorter list is copied into its message: one small frame costs less than two.
const COPIED: usize = 4096;

/// What every stream says of one snapshot.
pub(super) struct Rendered {
    snapshot: Arc<TrustSnapshot>,
    /// Of the workloads' bundle.
    pub(super) bundle_digest: [u8; 32],
    /// Sequence and refresh hint.
    head: Bytes,
    authorities: Vec<RenderedAuthority>,
    departed: Vec<Bytes>,
}

struct RenderedAuthority {
    id: AuthorityId,
    crl: Crl,
    /// All of the field up to the list's bytes, which follow, and what comes behind them.
    before_crl: Bytes,
    after_crl: Bytes,
    /// The field with the digest in place of the list.
    named: Bytes,
}

impl Rendered {
    fn new(snapshot: &Arc<TrustSnapshot>) -> Self {
        let head = wire::TrustState {
            sequence_number: snapshot.sequence,
            refresh_hint_seconds: u32::try_from(snapshot.refresh_hint.as_secs()).unwrap_or(u32::MAX),
            ..wire::TrustState::default()
        };
        let of = |field: u32| move |one: &PublishedAuthority| RenderedAuthority::new(one, field);
        let kinds = snapshot.kinds.iter();
        let authorities = kinds.flat_map(|(kind, published)| published.iter().map(of(field(*kind))));
        let departed = snapshot.departed.iter();
        Self {
            bundle_digest: snapshot.bundle().digest(),
            head: head.encode_to_vec().into(),
            authorities: authorities.collect(),
            departed: departed.map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
            snapshot: snapshot.clone(),
        }
    }

    /// What it renders.
    pub(super) fn snapshot(&self) -> &TrustSnapshot {
        &self.snapshot
    }

    /// The lists by authority.
    pub(super) fn lists(&self) -> impl Iterator<Item = (AuthorityId, [u8; 32])> {
        self.authorities.iter().map(|one| (one.id, one.crl.sha256()))
    }

    /// The message for one stream: `own` is what only this stream is told, in the fields behind the authorities. Lists that `is_held` knows by their digest are
    /// named, the others carried.
    pub(super) fn message(
        &self,
        own: &wire::TrustState,
        is_held: impl Fn(&AuthorityId, &[u8; 32]) -> bool,
    ) -> Frames {
        let own = wire::TrustState {
            departed_authorities: self.departed.clone(),
            ..own.clone()
        };
        let is_named = |one: &RenderedAuthority| is_held(&one.id, &one.crl.sha256());
        let named: Vec<bool> = self.authorities.iter().map(is_named).collect();
        let pieces = || self.authorities.iter().zip(&named);
        let length: usize = pieces().map(|(one, named)| one.length(*named)).sum();
        let mut frames = Writer::begin(own.encoded_len() + self.head.len() + length);
        frames.put(&self.head);
        for (one, named) in pieces() {
            if *named {
                frames.put(&one.named);
            } else {
                frames.put(&one.before_crl);
                frames.share(one.crl.der());
                frames.put(&one.after_crl);
            }
        }
        frames.put(&own.encode_to_vec());
        frames.end()
    }
}

impl RenderedAuthority {
    fn new(published: &PublishedAuthority, field: u32) -> Self {
        let (certificate, list) = (published.certificate.der(), published.crl.der());
        let authority = wire::Authority {
            certificate: Bytes::copy_from_slice(certificate),
            ..wire::Authority::default()
        };
        let mark = wire::Authority {
            tainted: published.tainted,
            ..wire::Authority::default()
        };
        let named = wire::Authority {
            tainted: published.tainted,
            crl_sha256: Bytes::copy_from_slice(&published.crl.sha256()),
            ..authority.clone()
        };
        let list_length = list.len() as u64;
        let of_list = key_len(CRL) + encoded_len_varint(list_length) + list.len();
        let mut before_crl = BytesMut::new();
        encode_key(field, WireType::LengthDelimited, &mut before_crl);
        let length = authority.encoded_len() + of_list + mark.encoded_len();
        encode_varint(length as u64, &mut before_crl);
        before_crl.put_slice(&authority.encode_to_vec());
        encode_key(CRL, WireType::LengthDelimited, &mut before_crl);
        encode_varint(list_length, &mut before_crl);
        let mut by_name = BytesMut::new();
        encode_key(field, WireType::LengthDelimited, &mut by_name);
        by_name.put_slice(&named.encode_length_delimited_to_vec());
        Self {
            id: published.certificate.id(),
            crl: published.crl.clone(),
            before_crl: before_crl.freeze(),
            after_crl: mark.encode_to_vec().into(),
            named: by_name.freeze(),
        }
    }

    fn length(&self, named: bool) -> usize {
        if named {
            self.named.len()
        } else {
            self.before_crl.len() + self.crl.der().len() + self.after_crl.len()
        }
    }
}

/// The newest snapshot, rendered; made by the first stream that needs it.
#[derive(Default)]
pub(crate) struct Renderings(Mutex<Option<Arc<Rendered>>>);

impl Renderings {
    /// A snapshot as every stream says it.
    pub(super) fn of(&self, snapshot: &Arc<TrustSnapshot>) -> Arc<Rendered> {
        let mut newest = self.0.lock();
        if let Some(rendered) = newest.as_ref()
            && Arc::ptr_eq(&rendered.snapshot, snapshot)
        {
            return rendered.clone();
        }
        let rendered = Arc::new(Rendered::new(snapshot));
        *newest = Some(rendered.clone());
        rendered
    }
}

/// One gRPC message with its header, in pieces.
#[derive(Debug)]
pub(super) struct Frames(VecDeque<Bytes>);

struct Writer {
    done: VecDeque<Bytes>,
    small: BytesMut,
}

impl Writer {
    /// A message of this length, not compressed.
    fn begin(length: usize) -> Self {
        let mut small = BytesMut::with_capacity(length.min(COPIED) + 512);
        small.put_u8(0);
        small.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        Self {
            done: VecDeque::new(),
            small,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.small.put_slice(bytes);
    }

    fn share(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPIED {
            return self.put(bytes);
        }
        self.done.push_back(self.small.split().freeze());
        self.done.push_back(bytes.clone());
    }

    fn end(mut self) -> Frames {
        if !self.small.is_empty() {
            self.done.push_back(self.small.freeze());
        }
        Frames(self.done)
    }
}

/// The body of an answer that is a stream of messages, encoded already. What never ends for good ends with a status.
pub(super) struct States {
    messages: mpsc::Receiver<Result<Frames, Status>>,
    pieces: VecDeque<Bytes>,
    /// What is said when nobody sends any more; taken when it is over.
    end: Option<Status>,
}

impl States {
    pub(super) fn new(messages: mpsc::Receiver<Result<Frames, Status>>, end: Status) -> Self {
        Self {
            messages,
            pieces: VecDeque::new(),
            end: Some(end),
        }
    }

    /// One message.
    pub(super) fn once(message: Frames) -> Self {
        let nothing_else = mpsc::channel(1).1;
        Self {
            pieces: message.0,
            ..Self::new(nothing_else, Status::ok(""))
        }
    }

    fn over(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.end = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(match status.add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(error) => Err(error),
        }))
    }
}

impl hyper::body::Body for States {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(end) = self.end.clone() else {
            return Poll::Ready(None);
        };
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match std::task::ready!(self.messages.poll_recv(cx)) {
                Some(Ok(message)) => self.pieces = message.0,
                Some(Err(status)) => return self.over(&status),
                None => return self.over(&end),
            }
        }
    }
}

/// Where the authorities of a kind go in the message.
fn field(kind: AuthorityKind) -> u32 {
    match kind {
        AuthorityKind::X509 => X509_AUTHORITIES,
        AuthorityKind::Control => CONTROL_AUTHORITIES,
    }
}

#[cfg(test)]
mod tests;
