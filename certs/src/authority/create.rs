//! Makes self-signed authorities.

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyIdMethod,
    KeyUsagePurpose, SanType,
};

use super::{AuthorityCertificate, AuthorityError, AuthorityId, AuthorityKind, ia5};
use crate::certificate::Certificate;
use crate::id::TrustDomain;
use crate::serial::SerialNumber;
use crate::signer::{AuthoritySigner, RcgenSigner};
use crate::time::{to_datetime, whole_seconds};

/// Upper bound of X.520 commonName in characters.
const MAX_COMMON_NAME: usize = 64;
/// X.520 serialNumber.
const SERIAL_NUMBER_OID: [u64; 4] = [2, 5, 4, 5];

/// What [`create_authority`] puts into the certificate.
#[derive(Clone, Debug)]
pub struct AuthorityProfile {
    /// The domain it signs for.
    pub trust_domain: TrustDomain,
    /// What it signs.
    pub kind: AuthorityKind,
    /// Begin of its life, cut to the second.
    pub not_before: SystemTime,
    /// End of its life, cut to the second.
    pub not_after: SystemTime,
    /// Its own serial.
    pub serial: SerialNumber,
}

/// Makes a self-signed authority over `signer`'s key. Its subject is unique to the key, because verifiers
/// pick a CRL by the issuer's name alone.
pub fn create_authority(
    profile: &AuthorityProfile,
    signer: &dyn AuthoritySigner,
) -> Result<AuthorityCertificate, AuthorityError> {
    if profile.not_after <= profile.not_before {
        return Err(AuthorityError::Validity);
    }
    let id = AuthorityId::of_spki(&signer.spki());
    let params = authority_params(profile, id)?;
    let certificate = params
        .self_signed(&RcgenSigner(signer))
        .map_err(|error| AuthorityError::Sign(error.to_string()))?;
    let parsed = AuthorityCertificate::from_der(certificate.der())?;
    // Whatever signed must have been the key that the certificate names.
    Certificate::parse(parsed.der())?
        .x509
        .verify_signature(None)
        .map_err(|_| AuthorityError::KeyMismatch)?;
    Ok(parsed)
}

impl AuthorityProfile {
    /// Whether a certificate that somebody else made over `signer`'s key says what was asked for: another's signature is worth
    /// no more than what it is under. Its life may be shorter, for nothing outlives who signed it, but has to have begun by `now`, and at
    /// least half of what was asked for has to be left: a successor is made at half of a life.
    ///
    /// # Errors
    /// [`AuthorityError`] names the first difference.
    pub fn check(
        &self,
        certificate: &AuthorityCertificate,
        signer: &dyn AuthoritySigner,
        now: SystemTime,
    ) -> Result<(), AuthorityError> {
        let expect = |holds: bool, what| {
            if holds {
                Ok(())
            } else {
                Err(AuthorityError::NotAsAsked(what))
            }
        };
        let spki = signer.spki();
        let id = AuthorityId::of_spki(&spki);
        expect(certificate.spki() == spki, "it has another key")?;
        expect(
            certificate.key_id() == id.as_bytes(),
            "its SubjectKeyIdentifier is not the key's id",
        )?;
        expect(
            certificate.trust_domain() == Some(&self.trust_domain),
            "it states another trust domain, or none",
        )?;
        expect(certificate.signs_crls(), "cRLSign is not set")?;
        expect(
            certificate.has_unique_subject(id),
            "its subject does not hold the key's id, by which readers tell lists apart",
        )?;
        expect(certificate.is_valid_at(now), "it is not valid yet, or no more")?;
        expect(
            certificate.not_after() <= whole_seconds(self.not_after),
            "it ends later than was asked for",
        )?;
        let length = |from, until: SystemTime| until.duration_since(from).unwrap_or_default();
        expect(
            length(now, certificate.not_after()) >= length(self.not_before, self.not_after) / 2
                && certificate.not_before() + length(self.not_before, self.not_after) > now,
            "less than half of the life that was asked for is left of it, or it is as old as that",
        )
    }
}

fn authority_params(
    profile: &AuthorityProfile,
    id: AuthorityId,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.not_before = to_datetime(profile.not_before);
    params.not_after = to_datetime(profile.not_after);
    params.serial_number = Some(profile.serial.as_bytes().to_vec().into());
    params.distinguished_name = authority_name(profile, id)?;
    params.subject_alt_names = vec![SanType::URI(ia5(profile.trust_domain.id().as_str())?)];
    // A leaf is all that may stand below.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::PreSpecified(id.as_bytes().to_vec());
    Ok(params)
}

fn authority_name(profile: &AuthorityProfile, id: AuthorityId) -> Result<DistinguishedName, AuthorityError> {
    let mut common_name = format!("Signet {} CA {}", profile.kind, profile.trust_domain);
    // Trust domains are ASCII, so this cuts no character; the serialNumber keeps the name unique.
    common_name.truncate(MAX_COMMON_NAME);
    let serial_number = id.to_string().try_into().map_err(|_| AuthorityError::Subject)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Signet");
    name.push(DnType::CommonName, common_name);
    name.push(
        DnType::CustomDnType(SERIAL_NUMBER_OID.to_vec()),
        DnValue::PrintableString(serial_number),
    );
    Ok(name)
}
