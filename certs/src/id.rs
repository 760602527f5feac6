//! SPIFFE IDs and trust domains.
//!
//! One rule about case (conformance ID-17): whatever is signed or stored is lower case in scheme and trust
//! domain, and upper case there is refused, never folded. Only [`TrustDomain::parse_lenient`] folds, for what an
//! operator types.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

#[cfg(feature = "issue")]
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Longest trust domain name in bytes (SPIFFE-ID §2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest SPIFFE ID in bytes, scheme and all (SPIFFE-ID §2.3).
pub const MAX_ID_BYTES: usize = 2048;

const SCHEME: &str = "spiffe://";
const RESERVED: &str = "/signet";
const AGENTS: &str = "/signet/agent/";

/// Why a text is no SPIFFE ID or trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Does not begin with `spiffe://` in lower case.
    #[error("a SPIFFE ID begins with `spiffe://`")]
    Scheme,
    /// No trust domain between the slashes.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// A trust domain is at most 255 bytes.
    #[error("the trust domain has {0} bytes; the limit is {MAX_TRUST_DOMAIN_BYTES}")]
    TrustDomainTooLong(usize),
    /// A byte outside `a-z 0-9 . - _`; upper case counts as outside.
    #[error("the trust domain holds {}; allowed are a-z 0-9 . - _", printable(*.0))]
    TrustDomainByte(u8),
    /// An ID is at most 2048 bytes.
    #[error("the SPIFFE ID has {0} bytes; the limit is {MAX_ID_BYTES}")]
    TooLong(usize),
    /// `//` or a slash at the end.
    #[error("the path has an empty segment or ends in a slash")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the path has a segment `.` or `..`")]
    DotSegment,
    /// A byte outside `A-Z a-z 0-9 . - _`.
    #[error("the path holds {}; allowed are A-Z a-z 0-9 . - _", printable(*.0))]
    PathByte(u8),
}

/// One byte for an error message; never raw control characters.
fn printable(byte: u8) -> String {
    if byte.is_ascii_graphic() {
        format!("`{}`", char::from(byte))
    } else {
        format!("byte 0x{byte:02x}")
    }
}

/// The name of a trust domain, without scheme: `example.org`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "issue",
    derive(Serialize, Deserialize),
    serde(try_from = "String", into = "String")
)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Takes a bare lower-case name, 1–255 bytes of `a-z 0-9 . - _`.
    pub fn parse(name: &str) -> Result<Self, IdError> {
        check_trust_domain(name)?;
        Ok(Self(Arc::from(name)))
    }

    /// As [`parse`](Self::parse) for operator input: `spiffe://` in front and ASCII upper case are accepted.
    pub fn parse_lenient(text: &str) -> Result<Self, IdError> {
        // Only after the ASCII check: KELVIN SIGN must not become `k`.
        let lower = text.to_ascii_lowercase();
        Self::parse(lower.strip_prefix(SCHEME).unwrap_or(&lower))
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `spiffe://<name>`, the ID of the domain itself.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        SpiffeId::join(self, "")
    }
}

// Maps keyed by trust domain are searched by the name within an ID.
impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A SPIFFE ID in canonical form: equal bytes, equal identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "issue",
    derive(Serialize, Deserialize),
    serde(try_from = "String", into = "String")
)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Where the path begins in `uri`.
    path_at: u16,
}

impl SpiffeId {
    /// Takes the canonical form only; nothing is trimmed or folded.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let path_at = check_id(text)?;
        Ok(Self {
            uri: Arc::from(text),
            path_at,
        })
    }

    /// Builds an ID from a domain and path segments, each checked by itself, so that a segment cannot smuggle
    /// in a slash.
    pub fn from_segments(domain: &TrustDomain, segments: &[&str]) -> Result<Self, IdError> {
        let mut path = String::new();
        for segment in segments {
            if segment.contains('/') {
                return Err(IdError::PathByte(b'/'));
            }
            check_segment(segment)?;
            path.push('/');
            path.push_str(segment);
        }
        let id = Self::join(domain, &path);
        check_length(id.as_str())?;
        Ok(id)
    }

    /// The server's own ID, `spiffe://<td>/signet/server`.
    #[must_use]
    pub fn server(domain: &TrustDomain) -> Self {
        Self::join(domain, "/signet/server")
    }

    /// The bundle endpoint's own ID, `spiffe://<td>/signet/bundle`.
    #[must_use]
    pub fn bundle_endpoint(domain: &TrustDomain) -> Self {
        Self::join(domain, "/signet/bundle")
    }

    /// An agent's ID, `spiffe://<td>/signet/agent/<cluster>/<node uid>`.
    pub fn agent(domain: &TrustDomain, cluster: &str, node_uid: &str) -> Result<Self, IdError> {
        Self::from_segments(domain, &["signet", "agent", cluster, node_uid])
    }

    /// Joins parts that were checked before.
    fn join(domain: &TrustDomain, path: &str) -> Self {
        let uri: String = [SCHEME, domain.as_str(), path].concat();
        // A trust domain has at most 255 bytes, so the sum always fits.
        let path_at = u16::try_from(SCHEME.len() + domain.as_str().len()).unwrap_or(u16::MAX);
        Self {
            uri: Arc::from(uri),
            path_at,
        }
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The domain's name, without allocating.
    #[must_use]
    pub fn trust_domain_name(&self) -> &str {
        self.uri
            .get(SCHEME.len()..usize::from(self.path_at))
            .unwrap_or_default()
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(Arc::from(self.trust_domain_name()))
    }

    /// Empty, or `/a/b`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.get(usize::from(self.path_at)..).unwrap_or_default()
    }

    /// Whether this names a trust domain itself; such an ID never belongs to a workload.
    #[must_use]
    pub fn is_trust_domain(&self) -> bool {
        self.path().is_empty()
    }

    /// Whether the path is `/signet` or below: kept for the product's own parts.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        path_is_within(self.path(), RESERVED)
    }

    /// Whether this is an agent's ID.
    #[must_use]
    pub fn is_agent(&self) -> bool {
        self.path().starts_with(AGENTS)
    }

    /// Name of the cluster in an agent's ID; `None` for any other.
    #[must_use]
    pub fn cluster_of_agent(&self) -> Option<&str> {
        let (cluster, _) = self.path().strip_prefix(AGENTS)?.split_once('/')?;
        Some(cluster)
    }

    /// Whether this ID equals `prefix` or lies below it. Whole segments count: `/ns/shop-admin` is not within
    /// `/ns/shop`.
    #[must_use]
    pub fn is_within(&self, prefix: &Self) -> bool {
        self.trust_domain_name() == prefix.trust_domain_name() && path_is_within(self.path(), prefix.path())
    }
}

fn path_is_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_trust_domain(name: &str) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::EmptyTrustDomain);
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(IdError::TrustDomainTooLong(name.len()));
    }
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    match name.bytes().find(|byte| !allowed(byte)) {
        Some(byte) => Err(IdError::TrustDomainByte(byte)),
        None => Ok(()),
    }
}

/// Returns where the path begins.
fn check_id(text: &str) -> Result<u16, IdError> {
    check_length(text)?;
    let rest = text.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
    let domain = rest.find('/').map_or(rest, |at| &rest[..at]);
    check_trust_domain(domain)?;
    let path = &rest[domain.len()..];
    if let Some(segments) = path.strip_prefix('/') {
        segments.split('/').try_for_each(check_segment)?;
    }
    u16::try_from(SCHEME.len() + domain.len()).map_err(|_| IdError::TooLong(text.len()))
}

fn check_length(text: &str) -> Result<(), IdError> {
    if text.len() > MAX_ID_BYTES {
        Err(IdError::TooLong(text.len()))
    } else {
        Ok(())
    }
}

fn check_segment(segment: &str) -> Result<(), IdError> {
    match segment {
        "" => return Err(IdError::EmptySegment),
        "." | ".." => return Err(IdError::DotSegment),
        _ => {}
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match segment.bytes().find(|byte| !allowed(byte)) {
        Some(byte) => Err(IdError::PathByte(byte)),
        None => Ok(()),
    }
}

/// Text in and out, the same for both types.
macro_rules! textual {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.as_str().to_owned()
            }
        }
    };
}

textual!(TrustDomain);
textual!(SpiffeId);
