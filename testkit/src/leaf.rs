//! Leaves and their keys.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use signet_certs::authority::X509Authority;
use signet_certs::csr::{WorkloadPublicKey, create_csr, verify_csr};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;
use signet_certs::signer::LeafKey;
use signet_certs::svid::{Purpose, SvidProfile, SvidTemplate, X509Svid, sign, template};

use super::{HOUR, SKEW, id_in, now, rng};

/// A leaf for an hour from [`now`]: a whole SPIFFE ID, or a path in the authority's trust domain.
pub fn svid(authority: &X509Authority, id: &str) -> X509Svid {
    leaf(authority, id).svid()
}

/// As [`svid`], to be changed before it is signed.
pub fn leaf<'a>(authority: &'a X509Authority, id: &str) -> Leaf<'a> {
    let domain = authority.certificate().trust_domain().unwrap();
    Leaf {
        authority,
        spiffe_id: id_in(domain.as_str(), id),
        serial: None,
        now: now(),
        ttl: HOUR,
    }
}

/// What a leaf is to be.
pub struct Leaf<'a> {
    authority: &'a X509Authority,
    spiffe_id: SpiffeId,
    serial: Option<SerialNumber>,
    now: SystemTime,
    ttl: Duration,
}

impl Leaf<'_> {
    /// With this serial instead of a fresh one.
    #[must_use]
    pub fn serial(mut self, serial: SerialNumber) -> Self {
        self.serial = Some(serial);
        self
    }

    /// Issued at another time.
    #[must_use]
    pub fn at(mut self, now: SystemTime) -> Self {
        self.now = now;
        self
    }

    /// With another life.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// What is decided before a key is known.
    pub fn template(self) -> SvidTemplate {
        let profile = SvidProfile {
            ttl: self.ttl,
            clock_skew: SKEW,
            crl_base_url: None,
        };
        let purpose = if self.spiffe_id.is_reserved() {
            Purpose::Control
        } else {
            Purpose::Workload
        };
        let serial = self.serial.unwrap_or_else(|| next_serial(self.now));
        let authority = self.authority.certificate();
        template(
            &profile,
            purpose,
            self.spiffe_id,
            Vec::new(),
            serial,
            authority,
            self.now,
        )
        .unwrap()
    }

    /// For somebody's key, DER.
    pub fn signed(self, key: &WorkloadPublicKey) -> Vec<u8> {
        let authority = self.authority;
        sign(&self.template(), key, authority).unwrap()
    }

    /// With a key of its own.
    pub fn svid(self) -> X509Svid {
        let key = leaf_key();
        X509Svid::new(vec![self.signed(&public_key(&key))], key).unwrap()
    }
}

/// What a peer presents in a handshake.
pub fn chain(svid: &X509Svid) -> Vec<CertificateDer<'static>> {
    svid.chain().iter().cloned().map(CertificateDer::from).collect()
}

/// A workload's key.
pub fn leaf_key() -> LeafKey {
    LeafKey::generate(&rng()).unwrap()
}

/// Its public half, as a request brings it.
pub fn public_key(key: &LeafKey) -> WorkloadPublicKey {
    verify_csr(&create_csr(key).unwrap()).unwrap()
}

/// Serials are counted, so that no two are equal.
pub(crate) fn next_serial(now: SystemTime) -> SerialNumber {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [7; 13];
    random[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    SerialNumber::generate(now, &random)
}
