//! Authorities, their lists, and who trusts them.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::{AuthorityKind, AuthorityProfile, X509Authority, create_authority};
use signet_certs::crl::{Crl, CrlNumber, RevocationReason, RevokedEntry, sign_crl};
use signet_certs::serial::SerialNumber;
use signet_certs::signer::{LocalSigner, SignatureAlgorithm};
use signet_certs::verify::{TrustRoots, TrustedAuthority};

use super::crl::check_der;
use super::leaf::next_serial;
use super::{DAY, HOUR, SKEW, now, rng, td};

/// A new authority for workloads.
pub fn authority(domain: &str) -> X509Authority {
    new_authority(authority_profile(domain))
}

/// A new authority for servers and agents.
pub fn control_authority(domain: &str) -> X509Authority {
    new_authority(AuthorityProfile {
        kind: AuthorityKind::Control,
        ..authority_profile(domain)
    })
}

/// A new authority for workloads with another life.
pub fn authority_between(domain: &str, not_before: SystemTime, not_after: SystemTime) -> X509Authority {
    new_authority(AuthorityProfile {
        not_before,
        not_after,
        ..authority_profile(domain)
    })
}

/// The usual: for workloads, from an hour before [`now`] to 30 days after.
pub fn authority_profile(domain: &str) -> AuthorityProfile {
    AuthorityProfile {
        trust_domain: td(domain),
        kind: AuthorityKind::X509,
        not_before: now() - HOUR,
        not_after: now() + 30 * DAY,
        serial: next_serial(now()),
    }
}

/// An authority with a key of its own.
pub fn new_authority(profile: AuthorityProfile) -> X509Authority {
    authority_by(SignatureAlgorithm::P256, profile)
}

/// An authority with a key of its own, for this algorithm.
pub fn authority_by(algorithm: SignatureAlgorithm, profile: AuthorityProfile) -> X509Authority {
    let (signer, _) = LocalSigner::generate(algorithm, &rng()).unwrap();
    authority_over(profile, signer)
}

/// An authority over a known key.
pub fn authority_over(profile: AuthorityProfile, signer: LocalSigner) -> X509Authority {
    let certificate = create_authority(&profile, &signer).unwrap();
    X509Authority::new(certificate, Arc::new(signer)).unwrap()
}

/// A CRL of [`now`], good for two hours.
pub fn crl(authority: &X509Authority, number: u64, revoked: &[SerialNumber]) -> Crl {
    crl_at(authority, number, revoked, now() - SKEW, now() + 2 * HOUR)
}

/// A CRL with these times.
pub fn crl_at(
    authority: &X509Authority,
    number: u64,
    revoked: &[SerialNumber],
    this_update: SystemTime,
    next_update: SystemTime,
) -> Crl {
    let entry = |serial: &SerialNumber| RevokedEntry {
        serial: *serial,
        revoked_at: this_update,
        reason: RevocationReason::KeyCompromise,
        invalid_since: None,
    };
    let entries: Vec<_> = revoked.iter().map(entry).collect();
    let crl = sign_crl(authority, &entries, CrlNumber(number), this_update, next_update).unwrap();
    check_der(crl.der(), authority.certificate().der(), None).unwrap();
    crl
}

/// Each authority trusted for its own trust domain, with its list where there is one.
pub fn roots(authorities: &[(&X509Authority, Option<&Crl>)]) -> TrustRoots {
    let trusted = |(authority, crl): &(&X509Authority, Option<&Crl>)| {
        let certificate = authority.certificate().clone();
        let domain = certificate.trust_domain().unwrap().clone();
        let crl = crl.cloned();
        (domain, vec![TrustedAuthority { certificate, crl }])
    };
    TrustRoots::new(authorities.iter().map(trusted).collect())
}
