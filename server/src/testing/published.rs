//! For tests: authorities and snapshots without a store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use signet_certs::authority::{AuthorityKind, AuthorityProfile, X509Authority, create_authority};
use signet_certs::crl::{CrlNumber, RevokedEntry, sign_crl};
use signet_certs::signer::LocalSigner;

use super::{PublishedAuthority, TrustSnapshot};
use crate::authority::testing::{HOUR, MINUTE, SKEW, serial, trust_domain};

/// A fresh authority that began to live at `now`.
pub(crate) fn authority(kind: AuthorityKind, now: SystemTime) -> X509Authority {
    let (signer, _) = LocalSigner::generate(&SystemRandom::new()).unwrap();
    let profile = AuthorityProfile {
        trust_domain: trust_domain(),
        kind,
        not_before: now - SKEW,
        not_after: now + 12 * HOUR,
        serial: serial(200),
    };
    let certificate = create_authority(&profile, &signer).unwrap();
    X509Authority::new(certificate, Arc::new(signer)).unwrap()
}

/// An authority as published at `now` with a list of these entries.
pub(crate) fn published(
    authority: &X509Authority,
    entries: &[RevokedEntry],
    number: u64,
    now: SystemTime,
) -> PublishedAuthority {
    PublishedAuthority {
        certificate: authority.certificate().clone(),
        crl: sign_crl(authority, entries, CrlNumber(number), now - SKEW, now + HOUR).unwrap(),
        crl_revision: number,
    }
}

/// A snapshot of these authorities.
pub(crate) fn snapshot(
    sequence: u64,
    x509: Vec<PublishedAuthority>,
    control: Vec<PublishedAuthority>,
) -> Arc<TrustSnapshot> {
    let refresh_hint: Duration = 5 * MINUTE;
    Arc::new(TrustSnapshot {
        trust_domain: trust_domain(),
        sequence,
        refresh_hint,
        x509,
        control,
    })
}
