//! What the agent believes: authorities with their CRLs, judged before they are held ([`accept`]). Pure.

mod departed;
mod error;
mod judge;
mod kept;
mod left;
mod named;
mod said;
mod usable;

use std::sync::Arc;

use bytes::Bytes;
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::bundle::TrustBundle;
use signet_certs::crl::{Crl, CrlError};
use signet_certs::id::TrustDomain;
use signet_certs::serial::SerialNumber;
use signet_certs::verify::{TrustRoots, TrustedAuthority};

pub(crate) use self::departed::Departed;
pub(crate) use self::error::TrustError;
pub(crate) use self::judge::{Accepted, accept};
pub(crate) use self::kept::TrustFile;
pub(crate) use self::left::LeftLists;
pub(crate) use self::named::complete;
pub(crate) use self::said::{FileWord, Said};
pub(super) use self::usable::{of_domain, usable};
use super::{CrlReport, TrustReport};
use crate::cache::TrustView;

/// Most bytes of lists in one answer to the server: the most that it signs.
const MAX_HANDED_OVER: usize = 3 << 20;

/// Everything that was pushed and believed, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct TrustState {
    /// The workloads' authorities, as a bundle.
    pub bundle: TrustBundle,
    /// The bundle as the Workload API carries it; shared by all workloads.
    pub bundle_der: Bytes,
    /// The workloads' authorities with their CRLs, in the bundle's order.
    pub x509: Vec<HeldAuthority>,
    /// The control authorities with theirs.
    pub control: Vec<HeldAuthority>,
    /// The same as `x509`, for verifying chains.
    pub roots: Arc<TrustRoots>,
    /// The server's rules and denials at that moment.
    pub policy_revision: u64,
    /// Of the server's store, as last believed; 0 while no server has said.
    pub epoch: u64,
    /// Authorities that may not come back.
    pub departed: Departed,
    /// Numbers of the lists of authorities that were held in this epoch.
    pub left: LeftLists,
    /// Over whose connection bundle and numbers came.
    pub said: Said,
    /// Why the bundle that was pushed last is kept out; empty when it was believed.
    pub problem: String,
    /// Lists of the last push that are not believed.
    pub refused: Vec<(AuthorityId, CrlError)>,
}

/// An authority with the newest CRL that was believed.
#[derive(Clone, Debug)]
pub(crate) struct HeldAuthority {
    /// Its certificate.
    pub certificate: AuthorityCertificate,
    /// Its CRL; none where the first one was not believed, which holds up no rotation.
    pub crl: Option<Crl>,
    /// Its leaves are to be replaced.
    pub tainted: bool,
}

impl HeldAuthority {
    fn revokes(&self, serial: &SerialNumber) -> bool {
        self.crl.as_ref().is_some_and(|crl| crl.is_revoked(serial))
    }
}

/// Authorities with their CRLs as roots for verifying chains.
pub(crate) fn roots(trust_domain: &TrustDomain, authorities: &[HeldAuthority]) -> TrustRoots {
    let trusted = |held: &HeldAuthority| TrustedAuthority {
        certificate: held.certificate.clone(),
        crl: held.crl.clone(),
    };
    TrustRoots::new(vec![(
        trust_domain.clone(),
        authorities.iter().map(trusted).collect(),
    )])
}

impl TrustState {
    /// What the server is told about it; the rest of the report is the manager's.
    pub(crate) fn report(&self) -> TrustReport {
        let crl = |authority: &HeldAuthority| {
            authority.crl.as_ref().map(|crl| CrlReport {
                authority: authority.certificate.id(),
                number: crl.number().0,
                sha256: crl.sha256(),
            })
        };
        TrustReport {
            sequence_number: self.bundle.sequence_number,
            bundle_digest: Some(self.bundle.digest()),
            crls: self.x509.iter().chain(&self.control).filter_map(crl).collect(),
            problem: self.problems(),
            epoch: self.epoch,
            policy_revision: self.policy_revision,
            ..TrustReport::default()
        }
    }

    /// What of the last push is not believed, the bundle or lists; empty when all of it is.
    pub(crate) fn problems(&self) -> String {
        let list = |(id, error): &(AuthorityId, CrlError)| {
            let has_one = self.find(id).is_some_and(|held| held.crl.is_some());
            let stays = if has_one {
                "the older one stays"
            } else {
                "it has none"
            };
            format!("the list of authority {id} is not believed, {stays}: {error}")
        };
        let bundle = Some(self.problem.clone()).filter(|problem| !problem.is_empty());
        let all: Vec<_> = bundle.into_iter().chain(self.refused.iter().map(list)).collect();
        all.join("; ")
    }

    /// The lists of these authorities as DER, each once and no more than the server takes in one message.
    pub(crate) fn lists_of(&self, wanted: &[AuthorityId]) -> Vec<Bytes> {
        let all = self.x509.iter().chain(&self.control);
        let wanted = all.filter(|held| wanted.contains(&held.certificate.id()));
        let mut left = MAX_HANDED_OVER;
        let fits = |der: &Bytes| {
            left = left.checked_sub(der.len())?;
            Some(der.clone())
        };
        let lists = wanted.filter_map(|held| held.crl.as_ref());
        lists.map(Crl::der).map_while(fits).collect()
    }

    /// Workloads would see no difference between the two.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        let crls = |state: &Self| state.x509.iter().map(|held| held.crl.clone()).collect::<Vec<_>>();
        self.bundle_der == other.bundle_der && crls(self) == crls(other)
    }

    fn find(&self, id: &AuthorityId) -> Option<&HeldAuthority> {
        self.x509
            .iter()
            .chain(&self.control)
            .find(|authority| authority.certificate.id() == *id)
    }

    fn find_x509(&self, id: &AuthorityId) -> Option<&HeldAuthority> {
        self.x509
            .iter()
            .find(|authority| authority.certificate.id() == *id)
    }

    /// The agent's own certificate has to be replaced: revoked, or its authority tainted. An authority that is not
    /// held says nothing: the certificate may be newer than this state.
    pub(crate) fn speaks_against(&self, authority: &AuthorityId, serial: &SerialNumber) -> bool {
        let held = self.find_control(authority);
        held.is_some_and(|held| held.tainted || held.revokes(serial))
    }

    /// The agent's own certificate is on its authority's CRL.
    pub(crate) fn revoked(&self, authority: &AuthorityId, serial: &SerialNumber) -> bool {
        self.find_control(authority)
            .is_some_and(|held| held.revokes(serial))
    }

    fn find_control(&self, id: &AuthorityId) -> Option<&HeldAuthority> {
        self.control
            .iter()
            .find(|authority| authority.certificate.id() == *id)
    }
}

impl TrustView for TrustState {
    fn contains(&self, authority: &AuthorityId) -> bool {
        self.find_x509(authority).is_some()
    }

    fn is_tainted(&self, authority: &AuthorityId) -> bool {
        self.find_x509(authority).is_some_and(|held| held.tainted)
    }

    fn is_revoked(&self, authority: &AuthorityId, serial: &SerialNumber) -> bool {
        self.find_x509(authority).is_some_and(|held| held.revokes(serial))
    }
}

#[cfg(test)]
mod tests;
