//! Reasons for revocation.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "issue")]
use serde::{Deserialize, Serialize};

/// Why a certificate was revoked (RFC 5280 §5.3.1). Hold is not offered: it is reversible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "issue",
    derive(Serialize, Deserialize),
    serde(try_from = "String", into = "String")
)]
pub enum RevocationReason {
    /// No reason given; written by leaving the extension out.
    Unspecified,
    /// The holder's key leaked.
    KeyCompromise,
    /// The authority's key leaked.
    CaCompromise,
    /// The holder belongs elsewhere now.
    AffiliationChanged,
    /// Replaced by another certificate.
    Superseded,
    /// The holder is gone.
    CessationOfOperation,
    /// The holder may no longer have it.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// The code of RFC 5280.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }

    /// The reason with this code, if we use it.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The name in RFC 5280.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is no revocation reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown revocation reason; use unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, \
     cessationOfOperation or privilegeWithdrawn"
)]
pub struct UnknownReason;

impl FromStr for RevocationReason {
    type Err = UnknownReason;

    /// The RFC's names, in any case and with or without hyphens.
    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        let plain: String = text.chars().filter(|c| !matches!(c, '-' | '_')).collect();
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str().eq_ignore_ascii_case(&plain))
            .ok_or(UnknownReason)
    }
}

impl TryFrom<String> for RevocationReason {
    type Error = UnknownReason;

    fn try_from(text: String) -> Result<Self, UnknownReason> {
        text.parse()
    }
}

impl From<RevocationReason> for String {
    fn from(reason: RevocationReason) -> Self {
        reason.as_str().to_owned()
    }
}
