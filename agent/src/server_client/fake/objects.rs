//! What the fake server hands out and remembers.

use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::{AuthorityId, X509Authority};
use signet_certs::crl::CrlNumber;
use signet_certs::csr::verify_csr;
use signet_certs::serial::SerialNumber;
use signet_certs::time::unix_millis;
use signet_testkit::{DAY, crl_at};

use super::{Asked, State};
use crate::server_client::{IssueEvidence, IssueItem, OfferedAuthority};

/// An authority as the trust stream carries it, with a CRL numbered after its time.
pub(crate) fn offered(
    authority: &X509Authority,
    revoked: &[SerialNumber],
    now: SystemTime,
) -> OfferedAuthority {
    let number = CrlNumber(u64::try_from(unix_millis(now)).unwrap());
    OfferedAuthority {
        certificate: Bytes::copy_from_slice(authority.certificate().der()),
        crl: crl_at(authority, number.0, revoked, now, now + 7 * DAY)
            .der()
            .clone(),
        named: None,
        tainted: false,
    }
}

pub(super) fn remember(item: &IssueItem) -> Asked {
    Asked {
        spiffe_id: item.spiffe_id.clone(),
        evidence: match &item.evidence {
            IssueEvidence::PodToken { token, .. } => token.secret().to_owned(),
            IssueEvidence::Unix(facts) => format!("uid:{}", facts.uid),
        },
        key: verify_csr(&item.csr).unwrap().spki_sha256(),
        csr: item.csr.clone(),
    }
}

/// The authority of a leaf, for assertions.
pub(crate) fn signer_of(leaf: &[u8]) -> AuthorityId {
    signet_certs::verify::inspect_leaf(leaf).unwrap().authority_id
}

impl State {
    pub(super) fn offered(
        &mut self,
        authority: &X509Authority,
        revoked: &[SerialNumber],
        now: SystemTime,
    ) -> OfferedAuthority {
        let of = (authority.certificate().id(), revoked.to_vec(), now);
        if let Some((_, made)) = self.offered.iter().find(|(known, _)| *known == of) {
            return made.clone();
        }
        let made = offered(authority, revoked, now);
        self.offered.push((of, made.clone()));
        made
    }
}
