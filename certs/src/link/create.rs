//! Makes links.

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo as PublicKey,
};

use super::{is_made_by, last_walk};
use crate::authority::{AuthorityCertificate, AuthorityError, X509Authority, ia5};
use crate::certificate::Certificate;
use crate::id::TrustDomain;
use crate::serial::SerialNumber;
use crate::signer::RcgenSigner;
use crate::time::to_datetime;

/// Certifies `successor`'s key by the acting authority. The certificate states no more than the successor's own: its subject, its
/// key, its trust domain. It is valid from `not_before` until [`WALK_AFTER_END`](super::WALK_AFTER_END) after the acting authority's own end, so that
/// whoever holds that one finds the way for as long as it may be walked from, however long authorities live. Since no authority lets another stand below it
/// (pathLenConstraint 0), it is of no use to whoever builds paths.
///
/// # Errors
/// When the two are not of one trust domain, the acting one ended too long ago, or the key does not sign.
pub fn create_link(
    acting: &X509Authority,
    successor: &AuthorityCertificate,
    serial: SerialNumber,
    not_before: SystemTime,
) -> Result<AuthorityCertificate, AuthorityError> {
    let params = link_params(acting.certificate(), successor, serial, not_before)?;
    let failed = |error: rcgen::Error| AuthorityError::Sign(error.to_string());
    let key = PublicKey::from_der(successor.spki()).map_err(failed)?;
    let issuer = Issuer::from_params(
        acting.certificate().issuer_params()?,
        RcgenSigner(acting.signer().as_ref()),
    );
    let signed = params.signed_by(&key, &issuer).map_err(failed)?;
    let link = AuthorityCertificate::from_der(signed.der())?;
    // Whatever signed must have been the key that the authority's certificate names.
    if Certificate::parse(link.der()).is_ok_and(|parsed| is_made_by(&parsed, acting.certificate())) {
        Ok(link)
    } else {
        Err(AuthorityError::KeyMismatch)
    }
}

fn link_params(
    acting: &AuthorityCertificate,
    successor: &AuthorityCertificate,
    serial: SerialNumber,
    not_before: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let one = |domain: &&TrustDomain| acting.trust_domain() == Some(*domain);
    let domain = successor
        .trust_domain()
        .filter(one)
        .ok_or_else(|| AuthorityError::Name("a link joins two authorities of one trust domain".to_owned()))?;
    let not_after = last_walk(acting).filter(|last| *last > not_before);
    let mut params = CertificateParams::default();
    params.not_before = to_datetime(not_before);
    params.not_after = to_datetime(not_after.ok_or(AuthorityError::Validity)?);
    params.serial_number = Some(serial.as_bytes().to_vec().into());
    params.distinguished_name = successor.issuer_params()?.distinguished_name.clone();
    params.subject_alt_names = vec![SanType::URI(ia5(domain.id().as_str())?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::PreSpecified(successor.key_id().to_vec());
    Ok(params)
}
