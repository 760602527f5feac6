//! Reads and verifies a CRL.

use bytes::Bytes;
use ring::digest;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::prelude::{FromDer, X509Version};
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{CrlError, CrlNumber, Inner, RevocationReason, RevokedEntry, check_period};
use crate::authority::{AuthorityCertificate, AuthorityError};
use crate::certificate::MAX_EXTENSIONS;
use crate::der;
use crate::serial::SerialNumber;
use crate::time::from_unix_seconds;

/// sha1WithRSAEncryption in its two spellings, which the verifier underneath would accept.
const SHA1_SIGNATURES: [&str; 2] = ["1.2.840.113549.1.1.5", "1.3.14.3.2.29"];
/// removeFromCRL belongs in delta CRLs only.
const REMOVE_FROM_CRL: u8 = 8;

pub(super) fn verify(der: Bytes, issuer: &AuthorityCertificate) -> Result<Inner, CrlError> {
    let parts = der::signed(&der)?;
    let (_, list) =
        CertificateRevocationList::from_der(&der).map_err(|error| CrlError::Malformed(error.to_string()))?;
    if list.tbs_cert_list.as_ref().len() != parts.tbs.len() {
        return Err(CrlError::Malformed(
            "unexpected fields after the extensions".to_owned(),
        ));
    }
    // After the version, without which a list is refused below.
    if !parts.has_inner_algorithm_at(1) && list.version().is_some() {
        return Err(unacceptable("the inner and outer signature algorithms differ"));
    }
    check_issuer(&list, issuer)?;
    let number = read_extensions(list.extensions(), issuer)?;
    let this_update = from_unix_seconds(list.last_update().timestamp());
    let next_update = list
        .next_update()
        .ok_or_else(|| unacceptable("it has no nextUpdate"))?;
    let next_update = from_unix_seconds(next_update.timestamp());
    check_period(this_update, next_update)?;
    check_signature(&list, issuer)?;
    let entries = read_entries(&list)?;
    drop(list);
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest::digest(&digest::SHA256, &der).as_ref());
    Ok(Inner {
        sha256,
        authority_id: issuer.id(),
        number,
        this_update,
        next_update,
        entries,
        der,
    })
}

fn unacceptable(why: impl Into<String>) -> CrlError {
    CrlError::Unacceptable(why.into())
}

fn check_issuer(list: &CertificateRevocationList<'_>, issuer: &AuthorityCertificate) -> Result<(), CrlError> {
    if list.version() != Some(X509Version::V2) {
        return Err(unacceptable("it is not version 2"));
    }
    if list.issuer().as_raw() != issuer.subject_der() {
        return Err(CrlError::Issuer(issuer.id()));
    }
    if !issuer.signs_crls() {
        return Err(AuthorityError::NotAnAuthority("cRLSign is not set").into());
    }
    Ok(())
}

/// Checks the list's extensions and returns the number.
fn read_extensions(
    extensions: &[X509Extension<'_>],
    issuer: &AuthorityCertificate,
) -> Result<CrlNumber, CrlError> {
    if extensions.len() > MAX_EXTENSIONS {
        return Err(unacceptable(format!(
            "it has more than {MAX_EXTENSIONS} extensions"
        )));
    }
    let (mut number, mut key_id) = (None, None);
    for (index, extension) in extensions.iter().enumerate() {
        if extensions
            .iter()
            .take(index)
            .any(|earlier| earlier.oid == extension.oid)
        {
            return Err(unacceptable(format!("extension {} occurs twice", extension.oid)));
        }
        match extension.parsed_extension() {
            ParsedExtension::CRLNumber(value) => {
                let value =
                    u64::try_from(value).map_err(|_| unacceptable("its number does not fit 64 bits"))?;
                number = Some(CrlNumber(value));
            }
            ParsedExtension::AuthorityKeyIdentifier(id) => key_id = id.key_identifier.as_ref().map(|id| id.0),
            // A scope or a delta would be critical: the list would not be the complete one we take it for.
            _ if extension.critical => {
                return Err(unacceptable(format!(
                    "critical extension {} is not known",
                    extension.oid
                )));
            }
            _ => {}
        }
    }
    match key_id {
        Some(id) if id == issuer.key_id() => {}
        Some(_) => return Err(CrlError::Issuer(issuer.id())),
        None => return Err(unacceptable("it has no AuthorityKeyIdentifier")),
    }
    number.ok_or_else(|| unacceptable("it has no CRL number"))
}

fn check_signature(
    list: &CertificateRevocationList<'_>,
    issuer: &AuthorityCertificate,
) -> Result<(), CrlError> {
    if SHA1_SIGNATURES.contains(&list.signature_algorithm.algorithm.to_id_string().as_str()) {
        return Err(unacceptable("it is signed with SHA-1"));
    }
    let (_, key) =
        SubjectPublicKeyInfo::from_der(issuer.spki()).map_err(|_| CrlError::Signature(issuer.id()))?;
    list.verify_signature(&key)
        .map_err(|_| CrlError::Signature(issuer.id()))
}

fn read_entries(list: &CertificateRevocationList<'_>) -> Result<Vec<RevokedEntry>, CrlError> {
    let mut entries = list
        .iter_revoked_certificates()
        .map(read_entry)
        .collect::<Result<Vec<_>, _>>()?;
    if !entries.is_sorted_by_key(|entry| entry.serial) {
        entries.sort_unstable_by_key(|entry| entry.serial);
    }
    match entries
        .array_windows()
        .find(|[one, next]| one.serial == next.serial)
    {
        Some([double, _]) => Err(unacceptable(format!("serial {} is listed twice", double.serial))),
        None => Ok(entries),
    }
}

fn read_entry(entry: &RevokedCertificate<'_>) -> Result<RevokedEntry, CrlError> {
    let (mut reason, mut invalid_since) = (RevocationReason::Unspecified, None);
    for extension in entry.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::ReasonCode(code) if code.0 == REMOVE_FROM_CRL => {
                return Err(unacceptable("an entry says removeFromCRL, which only deltas may"));
            }
            // A reason that we do not offer still revokes.
            ParsedExtension::ReasonCode(code) => {
                reason = RevocationReason::from_code(code.0).unwrap_or(RevocationReason::Unspecified);
            }
            ParsedExtension::InvalidityDate(date) => {
                invalid_since = Some(from_unix_seconds(date.timestamp()));
            }
            _ if extension.critical => {
                return Err(unacceptable(format!(
                    "an entry has the unknown critical extension {}",
                    extension.oid
                )));
            }
            _ => {}
        }
    }
    Ok(RevokedEntry {
        serial: SerialNumber::from_der_integer(entry.raw_serial())?,
        revoked_at: from_unix_seconds(entry.revocation_date.timestamp()),
        reason,
        invalid_since,
    })
}
