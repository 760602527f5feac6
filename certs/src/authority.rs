//! Signing authorities: their names, certificates and keys.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::certificate::{Certificate, CertificateError, usage};
use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::pem;
use crate::serial::SerialNumber;

mod chain;
#[cfg(feature = "issue")]
mod create;
mod id;
mod life;
#[cfg(feature = "issue")]
mod signing;
#[cfg(test)]
mod tests;

pub(crate) use chain::is_made_by;
pub use chain::{AuthorityChain, MAX_AUTHORITY_CHAIN};
#[cfg(feature = "issue")]
pub use create::{AuthorityProfile, create_authority};
pub use id::{AuthorityId, AuthorityKind};
pub use life::OutsideLife;
#[cfg(feature = "issue")]
pub use signing::X509Authority;
#[cfg(feature = "issue")]
pub(crate) use signing::ia5;

/// Why an authority's certificate cannot be used or made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Not a certificate.
    #[error("the authority's certificate is unusable: {0}")]
    Certificate(#[from] CertificateError),
    /// A certificate that does not have the shape of a SPIFFE authority's.
    #[error("the certificate is no SPIFFE authority: {0}")]
    NotAnAuthority(&'static str),
    /// Its URI SAN is not `spiffe://<td>`.
    #[error("the authority's URI name is no trust domain: {0}")]
    Name(String),
    /// Signer and certificate do not belong together.
    #[error("the key does not belong to the authority's certificate")]
    KeyMismatch,
    /// Certificates that are no chain.
    #[error("the certificates of the authority are no chain: {0}")]
    Chain(&'static str),
    /// It is not the one that was asked for.
    #[error("the authority's certificate is not as asked for: {0}")]
    NotAsAsked(&'static str),
    /// Its subject cannot be repeated as an issuer.
    #[error("the authority's subject name has a form that cannot be signed under")]
    Subject,
    /// Bounds of life that are empty.
    #[error("the authority would end before it begins")]
    Validity,
    /// The key did not sign.
    #[error("cannot sign the authority's certificate: {0}")]
    Sign(String),
    /// Text or bytes that are no authority id.
    #[error("an authority id has 40 hexadecimal digits, or 20 bytes")]
    Id,
    /// Text that is no kind of authority.
    #[error("unknown kind of authority; the kinds are x509 and control")]
    Kind,
}

/// A checked CA certificate. Cheap to clone; equal when its bytes are.
#[derive(Clone)]
pub struct AuthorityCertificate(Arc<Inner>);

struct Inner {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    id: AuthorityId,
    key_id: Vec<u8>,
    subject: Vec<u8>,
    subject_text: String,
    spki: Vec<u8>,
    trust_domain: Option<TrustDomain>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: SerialNumber,
    signs_crls: bool,
    path_len: Option<u32>,
    /// What rcgen needs to sign under this name; absent for names it cannot repeat.
    #[cfg(feature = "issue")]
    issuer: Option<rcgen::CertificateParams>,
}

impl AuthorityCertificate {
    /// Takes a CA certificate: v3, cA true, keyCertSign, a subject, and at most one URI name, which is a
    /// trust domain. It need not be self-signed, and its own signature is not checked: it is trusted for
    /// where it came from.
    pub fn from_der(der: &[u8]) -> Result<Self, AuthorityError> {
        let certificate = Certificate::parse(der)?;
        check_shape(&certificate)?;
        let trust_domain = authority_domain(&certificate)?;
        let owned = CertificateDer::from(der.to_vec());
        let anchor = webpki::anchor_from_trusted_cert(&owned)
            .map_err(|error| CertificateError::Malformed(error.to_string()))?
            .to_owned();
        let id = AuthorityId::of_spki(certificate.spki());
        let key_id = certificate
            .subject_key_id
            .map_or_else(|| id.as_bytes().to_vec(), <[u8]>::to_vec);
        Ok(Self(Arc::new(Inner {
            anchor,
            id,
            #[cfg(feature = "issue")]
            issuer: signing::issuer_params(certificate.x509.subject(), &key_id),
            key_id,
            subject: certificate.x509.subject().as_raw().to_vec(),
            subject_text: certificate.x509.subject().to_string(),
            spki: certificate.spki().to_vec(),
            trust_domain,
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            serial: certificate.serial,
            signs_crls: certificate.has_usage(usage::CRL_SIGN),
            path_len: certificate
                .basic_constraints
                .and_then(|constraints| constraints.path_len),
            der: owned,
        })))
    }

    /// The certificate's bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE", self.der())
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> AuthorityId {
        self.0.id
    }

    /// The subject for people: `O=Signet, CN=…`.
    #[must_use]
    pub fn subject(&self) -> String {
        self.0.subject_text.clone()
    }

    /// The trust domain it states, if it states one.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.0.trust_domain.as_ref()
    }

    /// First second of its life.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// Last second of its life.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// Its serial.
    #[must_use]
    pub fn serial(&self) -> SerialNumber {
        self.0.serial
    }

    /// The subject's DER, as issuer fields repeat it.
    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.0.subject
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.0.spki
    }

    /// Its SubjectKeyIdentifier, or the id where it has none.
    pub(crate) fn key_id(&self) -> &[u8] {
        &self.0.key_id
    }

    pub(crate) fn signs_crls(&self) -> bool {
        self.0.signs_crls
    }

    /// Whether so many authorities may stand between it and a leaf.
    fn allows_below(&self, authorities: usize) -> bool {
        let allowed = self.0.path_len.and_then(|most| usize::try_from(most).ok());
        allowed.is_none_or(|most| authorities <= most)
    }

    /// Whether its subject names this key.
    #[cfg(feature = "issue")]
    fn has_unique_subject(&self, id: AuthorityId) -> bool {
        let id = id.to_string();
        let mut places = self.0.subject.windows(id.len());
        places.any(|place| place.eq_ignore_ascii_case(id.as_bytes()))
    }

    pub(crate) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.0.anchor
    }
}

impl PartialEq for AuthorityCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for AuthorityCertificate {}

impl fmt::Debug for AuthorityCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityCertificate")
            .field("id", &self.0.id)
            .field("subject", &self.0.subject_text)
            .field("serial", &self.0.serial)
            .finish_non_exhaustive()
    }
}

fn check_shape(certificate: &Certificate<'_>) -> Result<(), AuthorityError> {
    let refuse = |why| Err(AuthorityError::NotAnAuthority(why));
    if !certificate
        .basic_constraints
        .is_some_and(|constraints| constraints.ca)
    {
        return refuse("cA is not set");
    }
    if !certificate.has_usage(usage::KEY_CERT_SIGN) {
        return refuse("keyCertSign is not set");
    }
    if certificate.x509.subject().iter().next().is_none() {
        return refuse("it has no subject name");
    }
    if certificate.uris.len() > 1 {
        return refuse("it has more than one URI name");
    }
    Ok(())
}

fn authority_domain(certificate: &Certificate<'_>) -> Result<Option<TrustDomain>, AuthorityError> {
    let Some(uri) = certificate.uris.first() else {
        return Ok(None);
    };
    let id = SpiffeId::parse(uri).map_err(|error: IdError| AuthorityError::Name(error.to_string()))?;
    if id.is_trust_domain() {
        Ok(Some(id.trust_domain()))
    } else {
        Err(AuthorityError::Name(id.to_string()))
    }
}
