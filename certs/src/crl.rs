//! Certificate revocation lists: complete ones only, no deltas, no shards, no IssuingDistributionPoint.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, RevokedCertParams};
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::authority::{AuthorityCertificate, AuthorityError, AuthorityId, X509Authority};
use crate::der::DerError;
use crate::pem;
use crate::serial::{SerialError, SerialNumber};
use crate::signer::RcgenSigner;
use crate::time::{from_unix_millis, rfc3339, to_datetime, unix_millis, whole_seconds};

mod read;

/// How far a CRL's number or thisUpdate may lie ahead of our clock.
pub const MAX_AHEAD: Duration = Duration::from_secs(600);

/// Why a CRL was not made, not believed, or not put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// Not strict DER.
    #[error("the CRL is not DER: {0}")]
    Der(#[from] DerError),
    /// DER of something else, or a part that does not parse.
    #[error("the bytes are not a CRL: {0}")]
    Malformed(String),
    /// RFC 5280 §5: a required part is missing or a forbidden one present.
    #[error("the CRL is not one that may be used: {0}")]
    Unacceptable(String),
    /// A serial in it is none.
    #[error("the CRL lists a bad serial: {0}")]
    Serial(#[from] SerialError),
    /// Signed by another authority than expected.
    #[error("the CRL was not issued by authority {0}")]
    Issuer(AuthorityId),
    /// The signature does not verify.
    #[error("the CRL's signature by authority {0} does not verify")]
    Signature(AuthorityId),
    /// The authority may not sign CRLs or is not usable.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// nextUpdate is not later than thisUpdate.
    #[error("nextUpdate {next_update} is not later than thisUpdate {this_update}")]
    Period {
        /// RFC 3339.
        this_update: String,
        /// RFC 3339.
        next_update: String,
    },
    /// The key did not sign.
    #[error("cannot sign the CRL: {0}")]
    Sign(String),
    /// An older list than the one in force.
    #[error("CRL number {offered} does not replace number {held}")]
    Rollback {
        /// The number in force.
        held: CrlNumber,
        /// The number offered.
        offered: CrlNumber,
    },
    /// Two different lists with one number: someone signed behind the store's back.
    #[error("two different CRLs have number {0}")]
    Conflict(CrlNumber),
    /// Number or thisUpdate lies in the future.
    #[error("the CRL's number or thisUpdate is more than 10 minutes ahead of this clock")]
    Ahead,
}

/// Why a certificate was revoked (RFC 5280 §5.3.1). Hold is not offered: it is reversible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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

    fn to_rcgen(self) -> Option<rcgen::RevocationReason> {
        use rcgen::RevocationReason as Rcgen;
        match self {
            Self::Unspecified => None,
            Self::KeyCompromise => Some(Rcgen::KeyCompromise),
            Self::CaCompromise => Some(Rcgen::CaCompromise),
            Self::AffiliationChanged => Some(Rcgen::AffiliationChanged),
            Self::Superseded => Some(Rcgen::Superseded),
            Self::CessationOfOperation => Some(Rcgen::CessationOfOperation),
            Self::PrivilegeWithdrawn => Some(Rcgen::PrivilegeWithdrawn),
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

/// One revoked certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedEntry {
    /// Its serial.
    pub serial: SerialNumber,
    /// When the revocation was recorded.
    pub revoked_at: SystemTime,
    /// Why.
    pub reason: RevocationReason,
}

/// The number of a CRL; it never falls for one authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CrlNumber(pub u64);

impl CrlNumber {
    /// The number after `stored`: at least the clock's milliseconds, so that it grows even over a lost store.
    #[must_use]
    pub fn next(stored: Option<Self>, now: SystemTime) -> Self {
        let clock = u64::try_from(unix_millis(now)).unwrap_or(0);
        Self(stored.map_or(0, |stored| stored.0.saturating_add(1)).max(clock))
    }
}

impl fmt::Display for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A CRL whose signature was verified. Cheap to clone; equal when its bytes are.
#[derive(Clone)]
pub struct Crl(Arc<Inner>);

struct Inner {
    der: Bytes,
    authority_id: AuthorityId,
    number: CrlNumber,
    this_update: SystemTime,
    next_update: SystemTime,
    /// By serial, none twice.
    entries: Vec<RevokedEntry>,
}

impl Crl {
    /// Reads a CRL and verifies it against its issuer (conformance CRL-27): v2, signed by this key under this
    /// name, with AuthorityKeyIdentifier, number and nextUpdate, nothing critical that is unknown, no serial
    /// twice. Whether it is current is a question of its own: [`is_current`](Self::is_current).
    pub fn verify(der: &[u8], issuer: &AuthorityCertificate) -> Result<Self, CrlError> {
        read::verify(Bytes::copy_from_slice(der), issuer).map(|inner| Self(Arc::new(inner)))
    }

    /// The bytes; cloning them copies nothing.
    #[must_use]
    pub fn der(&self) -> &Bytes {
        &self.0.der
    }

    /// The CRL as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("X509 CRL", &self.0.der)
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let mut sum = [0; 32];
        sum.copy_from_slice(digest::digest(&digest::SHA256, &self.0.der).as_ref());
        sum
    }

    /// Who signed it.
    #[must_use]
    pub fn authority_id(&self) -> AuthorityId {
        self.0.authority_id
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> CrlNumber {
        self.0.number
    }

    /// Begin of its validity.
    #[must_use]
    pub fn this_update(&self) -> SystemTime {
        self.0.this_update
    }

    /// End of its validity.
    #[must_use]
    pub fn next_update(&self) -> SystemTime {
        self.0.next_update
    }

    /// How many certificates it lists.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether it lists this serial.
    #[must_use]
    pub fn is_revoked(&self, serial: &SerialNumber) -> bool {
        self.0
            .entries
            .binary_search_by(|entry| entry.serial.cmp(serial))
            .is_ok()
    }

    /// What it lists, by serial.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &RevokedEntry> {
        self.0.entries.iter()
    }

    /// Whether nextUpdate has not passed. thisUpdate may be ahead of our clock: a fresh list is not refused
    /// for skew.
    #[must_use]
    pub fn is_current(&self, now: SystemTime) -> bool {
        now <= self.0.next_update
    }

    /// Refuses a list from the future: whoever sets a far number could block every later one.
    pub fn check_not_ahead(&self, now: SystemTime) -> Result<(), CrlError> {
        let limit = now.checked_add(MAX_AHEAD).unwrap_or(now);
        let number = from_unix_millis(i64::try_from(self.0.number.0).unwrap_or(i64::MAX));
        if number > limit || self.0.this_update > limit {
            Err(CrlError::Ahead)
        } else {
            Ok(())
        }
    }

    /// Whether this list may take the place of `older` from the same authority: the number grows and
    /// thisUpdate does not fall, or it is the same list again.
    pub fn may_replace(&self, older: &Self, now: SystemTime) -> Result<(), CrlError> {
        if self.0.authority_id != older.0.authority_id {
            return Err(CrlError::Issuer(older.0.authority_id));
        }
        if self.0.der == older.0.der {
            return Ok(());
        }
        let (held, offered) = (older.0.number, self.0.number);
        if offered == held {
            return Err(CrlError::Conflict(offered));
        }
        if offered < held || self.0.this_update < older.0.this_update {
            return Err(CrlError::Rollback { held, offered });
        }
        self.check_not_ahead(now)
    }
}

impl PartialEq for Crl {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Crl {}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl")
            .field("authority_id", &self.0.authority_id)
            .field("number", &self.0.number)
            .field("entries", &self.0.entries.len())
            .finish_non_exhaustive()
    }
}

/// Signs a complete CRL and reads it back as a peer would. Entries are sorted and doubles dropped (the
/// earliest revocation stays); a revocation later than `this_update` is dated `this_update` (RFC 5280
/// §5.1.2.6).
pub fn sign_crl(
    authority: &X509Authority,
    entries: &[RevokedEntry],
    number: CrlNumber,
    this_update: SystemTime,
    next_update: SystemTime,
) -> Result<Crl, CrlError> {
    authority.check_key()?;
    let certificate = &authority.certificate;
    if !certificate.signs_crls() {
        return Err(AuthorityError::NotAnAuthority("cRLSign is not set").into());
    }
    let (this_update, next_update) = (whole_seconds(this_update), whole_seconds(next_update));
    check_period(this_update, next_update)?;
    let params = CertificateRevocationListParams {
        this_update: to_datetime(this_update),
        next_update: to_datetime(next_update),
        crl_number: number.0.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked_params(entries, this_update),
        key_identifier_method: KeyIdMethod::PreSpecified(certificate.key_id().to_vec()),
    };
    let issuer = Issuer::from_params(
        certificate.issuer_params()?,
        RcgenSigner(authority.signer.as_ref()),
    );
    let signed = params
        .signed_by(&issuer)
        .map_err(|error| CrlError::Sign(error.to_string()))?;
    Crl::verify(signed.der(), certificate)
}

fn check_period(this_update: SystemTime, next_update: SystemTime) -> Result<(), CrlError> {
    if next_update > this_update {
        return Ok(());
    }
    Err(CrlError::Period {
        this_update: rfc3339(this_update),
        next_update: rfc3339(next_update),
    })
}

fn revoked_params(entries: &[RevokedEntry], this_update: SystemTime) -> Vec<RevokedCertParams> {
    let mut sorted: Vec<&RevokedEntry> = entries.iter().collect();
    sorted.sort_unstable_by_key(|entry| (entry.serial, entry.revoked_at));
    sorted.dedup_by_key(|entry| entry.serial);
    let to_params = |entry: &RevokedEntry| RevokedCertParams {
        serial_number: entry.serial.as_bytes().to_vec().into(),
        revocation_time: to_datetime(entry.revoked_at.min(this_update)),
        reason_code: entry.reason.to_rcgen(),
        invalidity_date: None,
    };
    sorted.into_iter().map(to_params).collect()
}
