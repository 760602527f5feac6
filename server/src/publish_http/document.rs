//! One published document and the conditional requests on it (RFC 9110 §13). Shared by both publication doors.

use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use ring::digest;

/// Readers may keep what they got for so long; a revocation reaches them through every cache within this time.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=30, must-revalidate");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// Bytes with what a reader may ask about them.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    content_type: &'static str,
    body: Bytes,
    etag: HeaderValue,
    last_modified: Option<i64>,
    /// Another version was handed out under the same second, so a date cannot tell them apart.
    ambiguous: bool,
}

impl Document {
    /// A document; its strong entity tag is the SHA-256 of its bytes.
    pub(crate) fn new(content_type: &'static str, body: Bytes, modified: Option<SystemTime>) -> Self {
        let digest = hex::encode(digest::digest(&digest::SHA256, &body));
        // A quoted hex string is a header value.
        let etag = HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        let last_modified = modified.map(signet_certs::time::unix_seconds);
        Self {
            content_type,
            body,
            etag,
            last_modified,
            ambiguous: false,
        }
    }

    /// Compares with the version that was served before under the same path.
    pub(crate) fn following(mut self, previous: Option<&Self>) -> Self {
        if let Some(previous) = previous {
            self.ambiguous = if previous.etag == self.etag {
                previous.ambiguous
            } else {
                previous.last_modified >= self.last_modified
            };
        }
        self
    }

    /// The answer to a request for this document.
    pub(crate) fn respond(&self, method: &Method, headers: &HeaderMap) -> Response<Body> {
        if method != Method::GET && method != Method::HEAD {
            return method_not_allowed();
        }
        let unchanged = self.is_unchanged_for(headers);
        let mut response = Response::new(if unchanged || method == Method::HEAD {
            Body::empty()
        } else {
            Body::from(self.body.clone())
        });
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let answer = response.headers_mut();
        answer.insert(header::ETAG, self.etag.clone());
        answer.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        answer.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if let Some(date) = self.last_modified.and_then(http_date) {
            answer.insert(header::LAST_MODIFIED, date);
        }
        if !unchanged {
            answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            answer.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        response
    }

    /// If-None-Match decides alone where it is given; If-Modified-Since counts only without it.
    fn is_unchanged_for(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(header::IF_NONE_MATCH) {
            return headers
                .get_all(header::IF_NONE_MATCH)
                .iter()
                .any(|value| self.matches(value));
        }
        let since = headers.get(header::IF_MODIFIED_SINCE).and_then(seconds);
        match (since, self.last_modified) {
            (Some(since), Some(modified)) => !self.ambiguous && modified <= since,
            _ => false,
        }
    }

    /// Weak comparison, as If-None-Match wants it.
    fn matches(&self, value: &HeaderValue) -> bool {
        let (Ok(listed), Ok(own)) = (value.to_str(), self.etag.to_str()) else {
            return false;
        };
        listed
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == own)
    }
}

/// 405 with the methods that are.
pub(crate) fn method_not_allowed() -> Response<Body> {
    let mut response = plain(
        StatusCode::METHOD_NOT_ALLOWED,
        "only GET and HEAD are served here\n",
    );
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

/// A short answer in plain text that no cache keeps.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 2] = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn http_date(seconds: i64) -> Option<HeaderValue> {
    let timestamp = Timestamp::from_second(seconds).ok()?;
    let text = rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&timestamp)
        .ok()?;
    HeaderValue::try_from(text).ok()
}

fn seconds(value: &HeaderValue) -> Option<i64> {
    let zoned = rfc2822::DateTimeParser::new()
        .parse_timestamp(value.to_str().ok()?)
        .ok()?;
    Some(zoned.as_second())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOON: i64 = 784_111_777; // 1994-11-06T08:49:37Z

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn document(body: &'static str) -> Document {
        Document::new(
            "text/plain",
            Bytes::from_static(body.as_bytes()),
            Some(at(784_111_777)),
        )
    }

    fn ask(document: &Document, name: HeaderName, value: &str) -> StatusCode {
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]);
        document.respond(&Method::GET, &headers).status()
    }

    #[test]
    fn dates_are_written_and_read_as_http_wants_them() {
        assert_eq!(http_date(NOON).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(
            seconds(&HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT")),
            Some(NOON)
        );
        assert_eq!(seconds(&HeaderValue::from_static("yesterday")), None);
    }

    #[test]
    fn an_entity_tag_decides_before_a_date() {
        let document = document("one");
        let tag = document.etag.to_str().unwrap().to_owned();
        for same in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            assert_eq!(
                ask(&document, header::IF_NONE_MATCH, &same),
                StatusCode::NOT_MODIFIED,
                "{same}"
            );
        }
        assert_eq!(ask(&document, header::IF_NONE_MATCH, "\"x\""), StatusCode::OK);
        let both = HeaderMap::from_iter([
            (header::IF_NONE_MATCH, HeaderValue::from_static("\"x\"")),
            (header::IF_MODIFIED_SINCE, http_date(NOON).unwrap()),
        ]);
        assert_eq!(document.respond(&Method::GET, &both).status(), StatusCode::OK);
    }

    #[test]
    fn a_date_is_not_believed_when_two_versions_share_it() {
        let (first, second) = (document("one"), document("two"));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(
            ask(&first, header::IF_MODIFIED_SINCE, date),
            StatusCode::NOT_MODIFIED
        );
        let second = second.following(Some(&first));
        assert_eq!(ask(&second, header::IF_MODIFIED_SINCE, date), StatusCode::OK);
        let again = document("two").following(Some(&second));
        assert_eq!(ask(&again, header::IF_MODIFIED_SINCE, date), StatusCode::OK);
        assert_eq!(
            ask(&first, header::IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT"),
            StatusCode::OK
        );
    }
}
