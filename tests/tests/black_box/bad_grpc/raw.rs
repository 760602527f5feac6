//! HTTP/2 by hand, for requests that no library would send.

use std::{path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// A message.
    Message,
    /// An error, by trailers, reset, or the end of the connection.
    Refused,
    /// Neither, for a long time.
    Nothing,
}

/// One connection with at most one call on it.
pub(super) struct RawHttp2(UnixStream);

impl RawHttp2 {
    pub(super) async fn connect(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self(stream)
    }

    /// Sends a FetchX509SVID call, half-closed, and does not wait.
    pub(super) async fn ask(&mut self, authority: Option<&str>, header: &str, body: &[u8]) {
        let mut block = Vec::new();
        let mut pseudo = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
        ];
        if let Some(authority) = authority {
            pseudo.push((":authority", authority));
        }
        let rest = [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            (header, "true"),
        ];
        for (name, value) in pseudo.into_iter().chain(rest) {
            literal(&mut block, name, value);
        }
        let headers = frame(HEADERS, END_HEADERS, 1, &block);
        let data = frame(DATA, END_STREAM, 1, body);
        // The other side may refuse before it has read all.
        let _ = self.0.write_all(&[headers, data].concat()).await;
    }

    /// Calls and waits for the outcome.
    pub(super) async fn call(&mut self, authority: Option<&str>, header: &str, body: &[u8]) -> Answered {
        self.ask(authority, header, body).await;
        timeout(Duration::from_secs(20), self.outcome())
            .await
            .unwrap_or(Answered::Nothing)
    }

    async fn outcome(&mut self) -> Answered {
        loop {
            let mut head = [0; 9];
            if self.0.read_exact(&mut head).await.is_err() {
                return Answered::Refused;
            }
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            if self.0.read_exact(&mut payload).await.is_err() {
                return Answered::Refused;
            }
            match (head[3], head[4]) {
                (SETTINGS, 0) => {
                    let _ = self.0.write_all(&frame(SETTINGS, 1, 0, &[])).await;
                }
                (DATA, _) if length > 5 => return Answered::Message,
                (HEADERS, flags) if flags & END_STREAM != 0 => return Answered::Refused,
                (RST_STREAM | GOAWAY, _) => return Answered::Refused,
                _ => {}
            }
        }
    }
}

/// Sends bytes and waits until the other side closes.
pub(super) async fn send_and_wait_for_close(socket: &Path, bytes: &[u8]) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut buffer = [0; 1024];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            return;
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header field without indexing and without Huffman (RFC 7541, section 6.2.2).
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        length(block, text.len());
        block.extend(text.as_bytes());
    }
}

/// An integer with a 7-bit prefix (RFC 7541, section 5.1).
fn length(block: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
        return;
    }
    block.push(127);
    length -= 127;
    while length >= 128 {
        block.push(u8::try_from(length % 128 + 128).unwrap());
        length /= 128;
    }
    block.push(u8::try_from(length).unwrap());
}
