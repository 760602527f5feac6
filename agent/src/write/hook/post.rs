//! A POST over plain HTTP, to this machine alone: whoever else would hear it would have to be known, and answer for himself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use signet_runtime::error::excerpt;
use signet_runtime::spans;
use thiserror::Error;
use tokio::net::TcpStream;

/// So much of an answer is read, of one that is no success.
const READ: usize = 4 << 10;
/// So much of it stands in the log.
const SHOWN: usize = 500;

/// Where the request goes.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    address: SocketAddr,
    uri: Uri,
}

/// Why that is no address for a hook.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub(crate) enum UrlError {
    #[error("write http://127.0.0.1:PORT/PATH")]
    Form,
    #[error("the port is a number from 1 to 65535")]
    Port,
    #[error(
        "only this machine is called, as 127.0.0.1, [::1] or localhost: over plain HTTP anybody else could answer"
    )]
    Elsewhere,
}

#[derive(Debug, Error)]
pub(crate) enum PostError {
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("cannot be written: {0}")]
    Request(#[from] http::Error),
    #[error("the answer is {0}: {1}")]
    Refused(StatusCode, String),
}

impl FromStr for Post {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Form)?;
        let authority = uri.authority().ok_or(UrlError::Form)?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return Err(UrlError::Form);
        }
        let ip = match authority.host().trim_matches(['[', ']']) {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().map_err(|_| UrlError::Elsewhere)?,
        };
        if !ip.is_loopback() {
            return Err(UrlError::Elsewhere);
        }
        // Not `port_u16`: for that one a port that is none is as good as left out.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            rest => rest
                .and_then(|rest| rest.strip_prefix(':')?.parse().ok())
                .filter(|port| *port > 0)
                .ok_or(UrlError::Port)?,
        };
        let address = SocketAddr::new(ip, port);
        Ok(Self { address, uri })
    }
}

impl Post {
    /// Sends it; an answer of 2xx is a success.
    pub(super) async fn send(&self) -> Result<(), PostError> {
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|error| PostError::Connect(self.address, error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driving = Aborted(spans::spawn(async move {
            let _ = connection.await;
        }));
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self
            .uri
            .authority()
            .map_or("localhost", |authority| authority.as_str());
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let body = Limited::new(answer.into_body(), READ).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        drop(driving);
        let said = excerpt(String::from_utf8_lossy(&body).trim(), SHOWN);
        Err(PostError::Refused(status, said))
    }
}

impl fmt::Display for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// A task that ends with this.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_this_machine_is_called() {
        for good in [
            "http://127.0.0.1:80/reload",
            "http://localhost:1/",
            "http://[::1]:8080/a?b=c",
        ] {
            assert!(good.parse::<Post>().is_ok(), "{good}");
        }
        assert_eq!("http://[::1]/".parse::<Post>().unwrap().address.port(), 80);
        for (bad, why) in [
            ("http://192.0.2.1/reload", UrlError::Elsewhere),
            ("http://example.org/reload", UrlError::Elsewhere),
            ("https://127.0.0.1/", UrlError::Form),
            ("http://127.0.0.1:65616/", UrlError::Port),
            ("http://[::1]:0/", UrlError::Port),
            ("http://localhost:/", UrlError::Port),
            ("http://me@127.0.0.1/", UrlError::Form),
            ("/reload", UrlError::Form),
            ("", UrlError::Form),
        ] {
            assert_eq!(bad.parse::<Post>().unwrap_err(), why, "{bad}");
        }
    }

    /// Answers one request with these bytes, and returns what it was.
    async fn answered(listener: &TcpListener, with: &[u8]) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = vec![0; 4096];
        let length = stream.read(&mut read).await.unwrap();
        stream.write_all(with).await.unwrap();
        String::from_utf8_lossy(&read[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_success_is_one_and_anything_else_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let post: Post = format!("http://{}/reload?now", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let (sent, asked) = tokio::join!(
            post.send(),
            answered(&listener, b"HTTP/1.1 204 No Content\r\n\r\n")
        );
        sent.unwrap();
        assert!(asked.starts_with("POST /reload?now HTTP/1.1\r\n"), "{asked}");
        let no = b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy";
        let (sent, _) = tokio::join!(post.send(), answered(&listener, no));
        let said = sent.unwrap_err().to_string();
        assert!(said.contains("503") && said.ends_with("busy"), "{said}");
        drop(listener);
        assert!(matches!(post.send().await, Err(PostError::Connect(..))));
    }
}
