//! Certificates that may be authorities of this trust domain. Pure.

use signet_certs::authority::{AuthorityCertificate, AuthorityError};
use signet_certs::id::TrustDomain;

use super::error::TrustError;

/// An authority certificate of this trust domain.
pub(in crate::server_client) fn usable(
    der: &[u8],
    trust_domain: &TrustDomain,
) -> Result<AuthorityCertificate, TrustError> {
    let certificate = AuthorityCertificate::from_der(der)
        .map_err(|error: AuthorityError| TrustError::Authority(error.to_string()))?;
    of_domain(&certificate, trust_domain)?;
    Ok(certificate)
}

/// It says no other trust domain.
pub(in crate::server_client) fn of_domain(
    certificate: &AuthorityCertificate,
    trust_domain: &TrustDomain,
) -> Result<(), TrustError> {
    match certificate.trust_domain() {
        Some(other) if other != trust_domain => Err(TrustError::Authority(format!(
            "it belongs to trust domain {other}, not {trust_domain}"
        ))),
        _ => Ok(()),
    }
}
