//! The few lines of HTTP client that tests need: one request, one connection, whole bodies.

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// An answer with its whole body.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// `GET` of a plain `http://` URL.
///
/// # Errors
/// When the server cannot be reached or breaks off.
pub async fn get(url: &str) -> Result<Answer> {
    send(Method::GET, url, &[], Bytes::new()).await
}

/// What a program measures, as its `/metrics` shows it; for the base URL of its telemetry.
///
/// # Errors
/// As [`get`], and when the answer is another than a text.
pub async fn metrics(telemetry_url: &str) -> Result<String> {
    let answer = get(&format!("{telemetry_url}/metrics")).await?;
    ensure!(answer.status == StatusCode::OK, "/metrics: {}", answer.status);
    String::from_utf8(answer.body.to_vec()).context("/metrics is not UTF-8")
}

/// `POST` of JSON to a plain `http://` URL.
///
/// # Errors
/// As [`get`].
pub async fn post(url: &str, body: &Value) -> Result<Answer> {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    send(Method::POST, url, &headers, body.to_string().into()).await
}

/// Any request.
///
/// # Errors
/// As [`get`].
pub async fn send(
    method: Method,
    url: &str,
    headers: &[(header::HeaderName, &str)],
    body: Bytes,
) -> Result<Answer> {
    let response = open(method, url, headers, body).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.context("read the body")?.to_bytes();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

/// Any request, answered before its body is complete: for streams.
///
/// # Errors
/// As [`get`].
pub async fn open(
    method: Method,
    url: &str,
    headers: &[(header::HeaderName, &str)],
    body: Bytes,
) -> Result<hyper::Response<Incoming>> {
    let uri: Uri = url.parse().with_context(|| format!("URL {url}"))?;
    let authority = uri.authority().context("a URL without a host")?.clone();
    let stream = TcpStream::connect(authority.as_str())
        .await
        .with_context(|| format!("connect to {authority}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority.as_str());
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Full::new(body))?;
    sender.send_request(request).await.context("send a request")
}
