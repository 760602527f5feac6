//! An HTTP/2 client that sends whatever it is told to.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use loona_hpack::{Decoder, Encoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::soon;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITY: u8 = 32;

/// One frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A gRPC message: five bytes of prefix and the body.
pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Headers of a good call, with that `:authority` if any.
pub(crate) fn call_headers(path: &str, authority: Option<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut headers: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (b":method".to_vec(), b"POST".to_vec()),
        (b":scheme".to_vec(), b"http".to_vec()),
        (b":path".to_vec(), path.as_bytes().to_vec()),
    ];
    if let Some(authority) = authority {
        headers.push((b":authority".to_vec(), authority.to_vec()));
    }
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("workload.spiffe.io", "true"),
    ] {
        headers.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    }
    headers
}

/// What came back on one stream.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) headers: HashMap<String, String>,
    pub(crate) data: Vec<u8>,
    pub(crate) ended: bool,
    pub(crate) reset: Option<u32>,
}

impl Answer {
    /// The gRPC status, if it came.
    pub(crate) fn grpc_status(&self) -> Option<&str> {
        self.headers.get("grpc-status").map(String::as_str)
    }
}

pub(crate) struct RawClient {
    stream: UnixStream,
    encoder: Encoder<'static>,
    decoder: Decoder<'static>,
    answers: HashMap<u32, Answer>,
    pub(crate) goaway: Option<u32>,
    pub(crate) closed: bool,
}

impl RawClient {
    /// Connected, nothing sent.
    pub(crate) async fn silent(path: &Path) -> Self {
        Self {
            stream: UnixStream::connect(path).await.unwrap(),
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            answers: HashMap::new(),
            goaway: None,
            closed: false,
        }
    }

    /// Connected, preface and empty SETTINGS sent.
    pub(crate) async fn connect(path: &Path) -> Self {
        let mut client = Self::silent(path).await;
        client.send(PREFACE).await;
        client.send(&frame(SETTINGS, 0, 0, &[])).await;
        client
    }

    /// Sends bytes; a peer that has closed is for the reader to see.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Encodes with the dynamic table.
    pub(crate) fn encode(&mut self, headers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        self.encoder
            .encode(headers.iter().map(|(name, value)| (&name[..], &value[..])))
    }

    /// Opens a call and leaves it open for the body.
    pub(crate) async fn open(&mut self, stream: u32, headers: &[(Vec<u8>, Vec<u8>)]) {
        let block = self.encode(headers);
        self.send(&frame(HEADERS, END_HEADERS, stream, &block)).await;
    }

    /// A whole call with one message.
    pub(crate) async fn call(&mut self, stream: u32, headers: &[(Vec<u8>, Vec<u8>)], body: &[u8]) {
        self.open(stream, headers).await;
        self.send(&frame(DATA, END_STREAM, stream, &message(body))).await;
    }

    /// Reads frames until the stream has what `enough` wants, the stream is over, or the connection is.
    pub(crate) async fn until(&mut self, stream: u32, enough: impl Fn(&Answer) -> bool) -> &Answer {
        loop {
            let answer = self.answers.entry(stream).or_default();
            if self.closed || answer.ended || answer.reset.is_some() || enough(answer) {
                return &self.answers[&stream];
            }
            soon(self.read_frame()).await;
        }
    }

    /// The first message of a stream, or how it ended.
    pub(crate) async fn first_data(&mut self, stream: u32) -> &Answer {
        self.until(stream, |answer| !answer.data.is_empty()).await
    }

    /// How a stream ended.
    pub(crate) async fn end(&mut self, stream: u32) -> &Answer {
        self.until(stream, |_| false).await
    }

    /// Reads until the server closes the connection.
    pub(crate) async fn until_closed(&mut self) {
        while !self.closed {
            soon(self.read_frame()).await;
        }
    }

    /// Throws away what has come, without waiting for more.
    pub(crate) async fn take_what_came(&mut self) {
        let mut bytes = [0; 64 * 1024];
        // A peer that has closed takes nothing more either.
        let read = tokio::time::timeout(Duration::from_millis(5), self.stream.read(&mut bytes)).await;
        if matches!(read, Ok(Ok(0) | Err(_))) {
            self.closed = true;
        }
    }

    async fn read_frame(&mut self) {
        let mut header = [0_u8; 9];
        if self.stream.read_exact(&mut header).await.is_err() {
            self.closed = true;
            return;
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let mut payload = vec![0; length];
        if self.stream.read_exact(&mut payload).await.is_err() {
            self.closed = true;
            return;
        }
        let answer = self.answers.entry(stream).or_default();
        match header[3] {
            HEADERS => {
                for (name, value) in self.decoder.decode(&payload).unwrap() {
                    let name = String::from_utf8(name).unwrap();
                    answer
                        .headers
                        .insert(name, String::from_utf8_lossy(&value).into_owned());
                }
                answer.ended |= header[4] & END_STREAM != 0;
            }
            DATA => {
                answer.data.extend_from_slice(&payload);
                answer.ended |= header[4] & END_STREAM != 0;
            }
            RST_STREAM => answer.reset = Some(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            GOAWAY => self.goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
            _ => {}
        }
    }
}
