//! Real authorities, certificates and CRLs for tests, minted at the test's own time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ring::rand::SystemRandom;
use rustls_pki_types::CertificateDer;
use signet_certs::authority::{
    AuthorityId, AuthorityKind, AuthorityProfile, X509Authority, create_authority,
};
use signet_certs::crl::{CrlNumber, RevocationReason, RevokedEntry, sign_crl};
use signet_certs::csr::{WorkloadPublicKey, create_csr, verify_csr};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use signet_certs::signer::{LeafKey, LocalSigner};
use signet_certs::svid::{Purpose, SvidProfile, X509Svid, sign, template};
use signet_certs::time::unix_millis;

use super::OfferedAuthority;

/// Seconds after a fixed moment; authorities are valid from an hour before to 30 days after it.
pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

/// An authority with its key.
#[derive(Clone)]
pub(crate) struct Authority(pub(crate) X509Authority);

impl Authority {
    pub(crate) fn x509() -> Self {
        Self::new(AuthorityKind::X509, at(0))
    }

    pub(crate) fn control() -> Self {
        Self::new(AuthorityKind::Control, at(0))
    }

    /// One valid around `middle`.
    pub(crate) fn new(kind: AuthorityKind, middle: SystemTime) -> Self {
        let (signer, _) = LocalSigner::generate(&SystemRandom::new()).unwrap();
        let profile = AuthorityProfile {
            trust_domain: trust_domain(),
            kind,
            not_before: middle - Duration::from_secs(3600),
            not_after: middle + Duration::from_secs(30 * 86_400),
            serial: next_serial(middle),
        };
        let certificate = create_authority(&profile, &signer).unwrap();
        Self(X509Authority::new(certificate, Arc::new(signer)).unwrap())
    }

    pub(crate) fn id(&self) -> AuthorityId {
        self.0.certificate.id()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.certificate.pem()
    }

    /// A serial that this authority could have given.
    pub(crate) fn serial(&self, number: u8) -> SerialNumber {
        SerialNumber::generate(at(0), &[number; 13])
    }

    /// As the trust stream carries it, with a CRL numbered after its time.
    pub(crate) fn offered(&self, revoked: &[SerialNumber], now: SystemTime) -> OfferedAuthority {
        let entry = |serial: &SerialNumber| RevokedEntry {
            serial: *serial,
            revoked_at: now,
            reason: RevocationReason::Unspecified,
        };
        let entries: Vec<_> = revoked.iter().map(entry).collect();
        let number = CrlNumber(u64::try_from(unix_millis(now)).unwrap());
        let next = now + Duration::from_secs(7 * 86_400);
        let crl = sign_crl(&self.0, &entries, number, now, next).unwrap();
        OfferedAuthority {
            certificate: Bytes::copy_from_slice(self.0.certificate.der()),
            crl: crl.der().clone(),
            tainted: false,
        }
    }

    /// A leaf for a key.
    pub(crate) fn leaf(
        &self,
        spiffe_id: &SpiffeId,
        key: &WorkloadPublicKey,
        now: SystemTime,
        ttl: Duration,
    ) -> CertificateDer<'static> {
        let profile = SvidProfile {
            ttl,
            clock_skew: Duration::from_secs(120),
            crl_base_url: None,
        };
        let purpose = if spiffe_id.is_reserved() {
            Purpose::Control
        } else {
            Purpose::Workload
        };
        let certificate = &self.0.certificate;
        let template = template(
            &profile,
            purpose,
            spiffe_id.clone(),
            Vec::new(),
            next_serial(now),
            certificate,
            now,
        )
        .unwrap();
        sign(&template, key, &self.0).unwrap().into()
    }

    /// A leaf with a key of its own.
    pub(crate) fn svid(&self, spiffe_id: &SpiffeId, now: SystemTime, ttl: Duration) -> X509Svid {
        let key = LeafKey::generate(&SystemRandom::new()).unwrap();
        let public = verify_csr(&create_csr(&key).unwrap()).unwrap();
        X509Svid::new(vec![self.leaf(spiffe_id, &public, now, ttl).to_vec()], key).unwrap()
    }
}

/// Serials are counted, so that tests are reproducible.
fn next_serial(now: SystemTime) -> SerialNumber {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [7; 13];
    random[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    SerialNumber::generate(now, &random)
}
