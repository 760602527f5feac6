//! A trust to believe in, and leaves of made-up bytes.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;
use signet_runtime::backoff::Backoff;
use signet_testkit::at;
use zeroize::Zeroizing;

use super::{Cache, Leaf, TrustView, WorkloadId};
use crate::context::{GrantedSvid, PrivateKey};
use crate::time::Moment;

/// So many seconds after the beginning, by both.
pub(super) fn m(seconds: u64) -> Moment {
    Moment {
        date: at(seconds),
        elapsed: Duration::from_secs(seconds),
    }
}

pub(super) fn pod(name: u8) -> WorkloadId {
    WorkloadId::Pod(format!("uid-{name}"))
}

pub(super) fn id(name: u8) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/ns/demo/sa/app-{name}")).unwrap()
}

pub(super) fn authority(name: u8) -> AuthorityId {
    AuthorityId::of_spki(&[name])
}

pub(super) fn leaf(spiffe_id: &SpiffeId, number: u32, signer: u8, not_before: SystemTime, life: u64) -> Leaf {
    let mut random = [0; 13];
    random[..4].copy_from_slice(&number.to_be_bytes());
    Leaf {
        svid: GrantedSvid {
            spiffe_id: spiffe_id.as_str().to_owned(),
            chain: Bytes::copy_from_slice(&number.to_be_bytes()),
            key: PrivateKey::from_pkcs8(Zeroizing::new(Vec::new())),
            not_before,
            not_after: not_before + Duration::from_secs(life),
            hint: String::new(),
        },
        serial: SerialNumber::generate(not_before, &random),
        authority: authority(signer),
        policy_revision: 1,
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct FakeTrust {
    pub(super) present: BTreeSet<AuthorityId>,
    pub(super) tainted: BTreeSet<AuthorityId>,
    pub(super) revoked: BTreeSet<SerialNumber>,
}

impl TrustView for FakeTrust {
    fn contains(&self, authority: &AuthorityId) -> bool {
        self.present.contains(authority)
    }
    fn is_tainted(&self, authority: &AuthorityId) -> bool {
        self.tainted.contains(authority)
    }
    fn is_revoked(&self, _authority: &AuthorityId, serial: &SerialNumber) -> bool {
        self.revoked.contains(serial)
    }
}

pub(super) fn new_cache() -> Cache {
    Cache::new(Backoff::between(Duration::from_secs(1), Duration::from_secs(30)).jittered(0.5))
}

pub(super) fn trusting(signers: &[u8]) -> FakeTrust {
    FakeTrust {
        present: signers.iter().map(|name| authority(*name)).collect(),
        ..FakeTrust::default()
    }
}
