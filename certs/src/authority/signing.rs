//! An authority that signs.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyIdMethod, KeyUsagePurpose};
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::x509::X509Name;

use super::{AuthorityCertificate, AuthorityChain, AuthorityError};
use crate::signer::AuthoritySigner;

impl AuthorityCertificate {
    pub(crate) fn issuer_params(&self) -> Result<&CertificateParams, AuthorityError> {
        self.0.issuer.as_ref().ok_or(AuthorityError::Subject)
    }
}

/// An authority with its key, which belong together: what can sign.
#[derive(Clone)]
pub struct X509Authority {
    chain: AuthorityChain,
    signer: Arc<dyn AuthoritySigner>,
}

impl X509Authority {
    /// Joins certificates and key after checking that they belong together.
    ///
    /// # Errors
    /// The key is another one.
    pub fn new(
        chain: impl Into<AuthorityChain>,
        signer: Arc<dyn AuthoritySigner>,
    ) -> Result<Self, AuthorityError> {
        let chain = chain.into();
        if chain.own().spki() != signer.spki() {
            return Err(AuthorityError::KeyMismatch);
        }
        Ok(Self { chain, signer })
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> &AuthorityCertificate {
        self.chain.own()
    }

    /// Its certificate with those above it.
    #[must_use]
    pub fn chain(&self) -> &AuthorityChain {
        &self.chain
    }

    /// Its key.
    #[must_use]
    pub fn signer(&self) -> &Arc<dyn AuthoritySigner> {
        &self.signer
    }

    /// What the holder of a leaf of it shows: the leaf, and the certificates between it and the root.
    #[must_use]
    pub fn chain_of(&self, leaf: Vec<u8>) -> Vec<Vec<u8>> {
        let above = self.chain.presented().map(|one| one.der().to_vec());
        std::iter::once(leaf).chain(above).collect()
    }
}

impl fmt::Debug for X509Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Authority")
            .field("certificate", self.certificate())
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
