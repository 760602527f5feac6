//! One published document and the conditional requests on it (RFC 9110 §13). Shared by both publication doors.
//!
//! Only an entity tag tells a reader that it has the newest version. Documents carry no `Last-Modified` and no date is compared:
//! a list's own date is set back for slow clocks, so whoever asks by the time of the download, a cache among them
//! (RFC 9111 §4.3.2), would take an older list for the newest. Whoever asks by date gets the document (RFC 9110 §13.1.3).

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
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
}

impl Document {
    /// A document; its strong entity tag is the SHA-256 of its bytes.
    pub(crate) fn new(content_type: &'static str, body: Bytes) -> Self {
        let digest = hex::encode(digest::digest(&digest::SHA256, &body));
        // A quoted hex string is a header value.
        let etag = HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self {
            content_type,
            body,
            etag,
        }
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
        if !unchanged {
            answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            answer.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        response
    }

    fn is_unchanged_for(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .any(|value| self.matches(value))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn document(body: &'static str) -> Document {
        Document::new("text/plain", Bytes::from_static(body.as_bytes()))
    }

    fn ask(document: &Document, headers: &[(HeaderName, &str)]) -> StatusCode {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        document.respond(&Method::GET, &headers.collect()).status()
    }

    #[test]
    fn only_an_entity_tag_that_fits_says_unchanged() {
        let document = document("one");
        let tag = document.etag.to_str().unwrap().to_owned();
        for same in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let status = ask(&document, &[(header::IF_NONE_MATCH, &same)]);
            assert_eq!(status, StatusCode::NOT_MODIFIED, "{same}");
        }
        assert_eq!(
            ask(&document, &[(header::IF_NONE_MATCH, "\"x\"")]),
            StatusCode::OK
        );
    }

    #[test]
    fn a_date_says_nothing() {
        let document = document("one");
        let tag = document.etag.to_str().unwrap();
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "yesterday",
        ] {
            let since = (header::IF_MODIFIED_SINCE, date);
            assert_eq!(
                ask(&document, std::slice::from_ref(&since)),
                StatusCode::OK,
                "{date}"
            );
            let other = (header::IF_NONE_MATCH, "\"x\"");
            assert_eq!(ask(&document, &[other, since.clone()]), StatusCode::OK, "{date}");
            let same = (header::IF_NONE_MATCH, tag);
            assert_eq!(ask(&document, &[same, since]), StatusCode::NOT_MODIFIED, "{date}");
        }
    }
}
