//! Names of authorities and their kinds.

use std::fmt;
use std::str::FromStr;

use ring::digest;
#[cfg(feature = "issue")]
use serde::{Deserialize, Serialize};

use super::AuthorityError;

/// Names an authority's key: SHA-256 of its SubjectPublicKeyInfo cut to 160 bits, equal to its
/// SubjectKeyIdentifier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "issue",
    derive(Serialize, Deserialize),
    serde(try_from = "String", into = "String")
)]
pub struct AuthorityId([u8; 20]);

impl AuthorityId {
    /// The id of a key, given as DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        Self::from_digest(digest::digest(&digest::SHA256, spki).as_ref())
    }

    /// The id whose first 160 bits are those of `digest`; missing ones are zero.
    pub(crate) fn from_digest(digest: &[u8]) -> Self {
        let mut id = [0; 20];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
        Self(id)
    }

    /// Takes over 20 bytes, for instance from a store.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for AuthorityId {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let mut id = [0; 20];
        hex::decode_to_slice(text, &mut id).map_err(|_| AuthorityError::Id)?;
        Ok(Self(id))
    }
}

impl TryFrom<&[u8]> for AuthorityId {
    type Error = AuthorityError;

    fn try_from(bytes: &[u8]) -> Result<Self, AuthorityError> {
        bytes.try_into().map(Self).map_err(|_| AuthorityError::Id)
    }
}

impl TryFrom<String> for AuthorityId {
    type Error = AuthorityError;

    fn try_from(text: String) -> Result<Self, AuthorityError> {
        text.parse()
    }
}

impl From<AuthorityId> for String {
    fn from(id: AuthorityId) -> Self {
        id.to_string()
    }
}

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "issue",
    derive(Serialize, Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum AuthorityKind {
    /// X.509-SVIDs of workloads.
    X509,
    /// Certificates of servers and agents; never in a workload's bundle.
    Control,
}

impl AuthorityKind {
    /// All kinds, those of workloads first.
    pub const ALL: [Self; 2] = [Self::X509, Self::Control];

    /// Its name in journals, commands, tables and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Control => "control",
        }
    }
}

impl fmt::Display for AuthorityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuthorityKind {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.as_str() == text).ok_or(AuthorityError::Kind)
    }
}
