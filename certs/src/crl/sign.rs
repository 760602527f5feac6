//! Signs CRLs.

use std::time::SystemTime;

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, RevokedCertParams};

use super::{Crl, CrlError, CrlNumber, RevocationReason, RevokedEntry, check_period};
use crate::authority::{AuthorityError, X509Authority};
use crate::signer::RcgenSigner;
use crate::time::{to_datetime, whole_seconds};

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
    let certificate = authority.certificate();
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
        RcgenSigner(authority.signer().as_ref()),
    );
    let signed = params
        .signed_by(&issuer)
        .map_err(|error| CrlError::Sign(error.to_string()))?;
    Crl::verify(signed.der(), certificate)
}

fn revoked_params(entries: &[RevokedEntry], this_update: SystemTime) -> Vec<RevokedCertParams> {
    let mut sorted: Vec<&RevokedEntry> = entries.iter().collect();
    sorted.sort_unstable_by_key(|entry| (entry.serial, entry.revoked_at));
    sorted.dedup_by_key(|entry| entry.serial);
    let to_params = |entry: &RevokedEntry| RevokedCertParams {
        serial_number: entry.serial.as_bytes().to_vec().into(),
        revocation_time: to_datetime(entry.revoked_at.min(this_update)),
        reason_code: reason_code(entry.reason),
        invalidity_date: entry.invalid_since.map(|since| to_datetime(whole_seconds(since))),
    };
    sorted.into_iter().map(to_params).collect()
}

/// Unspecified is written by leaving the extension out.
fn reason_code(reason: RevocationReason) -> Option<rcgen::RevocationReason> {
    use rcgen::RevocationReason as Rcgen;
    match reason {
        RevocationReason::Unspecified => None,
        RevocationReason::KeyCompromise => Some(Rcgen::KeyCompromise),
        RevocationReason::CaCompromise => Some(Rcgen::CaCompromise),
        RevocationReason::AffiliationChanged => Some(Rcgen::AffiliationChanged),
        RevocationReason::Superseded => Some(Rcgen::Superseded),
        RevocationReason::CessationOfOperation => Some(Rcgen::CessationOfOperation),
        RevocationReason::PrivilegeWithdrawn => Some(Rcgen::PrivilegeWithdrawn),
    }
}
