//! An authority that signs.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyIdMethod, KeyUsagePurpose};
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::x509::X509Name;

use super::{AuthorityCertificate, AuthorityError};
use crate::signer::{AuthoritySigner, P256_SPKI_PREFIX};

impl AuthorityCertificate {
    pub(crate) fn issuer_params(&self) -> Result<&CertificateParams, AuthorityError> {
        self.0.issuer.as_ref().ok_or(AuthorityError::Subject)
    }
}

/// An authority with its key, which belong together: what can sign.
#[derive(Clone)]
pub struct X509Authority {
    certificate: AuthorityCertificate,
    signer: Arc<dyn AuthoritySigner>,
}

impl X509Authority {
    /// Joins certificate and key after checking that they belong together.
    pub fn new(
        certificate: AuthorityCertificate,
        signer: Arc<dyn AuthoritySigner>,
    ) -> Result<Self, AuthorityError> {
        let point = signer.public_point();
        if certificate.spki().strip_prefix(&P256_SPKI_PREFIX) != Some(point) {
            return Err(AuthorityError::KeyMismatch);
        }
        Ok(Self { certificate, signer })
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// Its key.
    #[must_use]
    pub fn signer(&self) -> &Arc<dyn AuthoritySigner> {
        &self.signer
    }
}

impl fmt::Debug for X509Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Authority")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// rcgen's text type for URIs and DNS names.
pub(crate) fn ia5(text: &str) -> Result<rcgen::string::Ia5String, AuthorityError> {
    text.try_into().map_err(|_| AuthorityError::Name(text.to_owned()))
}

/// The parameters under which rcgen signs as this authority, or nothing for a name it cannot repeat byte for
/// byte.
pub(super) fn issuer_params(subject: &X509Name<'_>, key_id: &[u8]) -> Option<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = repeat_name(subject)?;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_id.to_vec());
    Some(params)
}

fn repeat_name(name: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut repeated = DistinguishedName::new();
    for rdn in name.iter() {
        let mut attributes = rdn.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return None;
        };
        let kind = DnType::from_oid(&attribute.attr_type().iter()?.collect::<Vec<_>>());
        if repeated.get(&kind).is_some() {
            return None;
        }
        let text = std::str::from_utf8(attribute.attr_value().data).ok()?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().ok()?),
            _ => return None,
        };
        repeated.push(kind, value);
    }
    Some(repeated)
}
