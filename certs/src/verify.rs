//! Judges other parties' certificates: the SPIFFE rules on the leaf here, the path by webpki, revocation by
//! our own verified CRLs. It fails closed: an authority without a current CRL vouches for nobody.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::authority::{AuthorityCertificate, AuthorityId, OutsideLife};
use crate::certificate::Certificate;
use crate::crl::Crl;
use crate::dates::{OutsideDates, WhoseClock};
use crate::id::{SpiffeId, TrustDomain};
use crate::serial::SerialNumber;

mod error;
mod leaf;
#[cfg(test)]
mod tests;

pub use error::VerifyError;
use leaf::check_leaf;
pub use leaf::{LeafInfo, inspect_leaf};

/// Longest chain looked at.
const MAX_CHAIN: usize = 8;

/// An authority that is trusted, with its latest CRL.
#[derive(Clone, Debug)]
pub struct TrustedAuthority {
    /// Its certificate.
    pub certificate: AuthorityCertificate,
    /// Its CRL, verified. Without one nothing it signed is accepted.
    pub crl: Option<Crl>,
}

/// What happens to a peer whose authority has no CRL here, or one that has ended. Whoever a CRL lists is refused
/// under either, by a list that has ended too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrlPolicy {
    /// Refused.
    #[default]
    Require,
    /// Accepted. For an agent that verifies its server: the CRLs come over that very connection, so a list that
    /// ended during an outage would lock the agent out for ever. A CRL outlives every leaf it covers, so whoever it
    /// does not list when it ends has expired by then or was issued later. And for a trust domain that has never shown a
    /// list, where a workload chose to do without.
    Tolerate,
}

/// The trusted authorities of each trust domain. Domains are never merged. Share it in an `Arc`.
#[derive(Clone, Debug, Default)]
pub struct TrustRoots {
    domains: HashMap<TrustDomain, Domain>,
}

#[derive(Clone, Debug, Default)]
struct Domain {
    anchors: Vec<TrustAnchor<'static>>,
    authorities: Vec<TrustedAuthority>,
    crl_policy: CrlPolicy,
}

impl TrustRoots {
    /// Takes the authorities of each domain; a domain given twice gets both lists. A domain with none trusts
    /// nobody.
    #[must_use]
    pub fn new(domains: Vec<(TrustDomain, Vec<TrustedAuthority>)>) -> Self {
        let mut map: HashMap<TrustDomain, Domain> = HashMap::new();
        for (name, authorities) in domains {
            let domain = map.entry(name).or_default();
            domain.anchors.extend(
                authorities
                    .iter()
                    .map(|authority| authority.certificate.anchor().clone()),
            );
            domain.authorities.extend(authorities);
        }
        Self { domains: map }
    }

    /// The same roots under another policy, all domains of them.
    #[must_use]
    pub fn with_crl_policy(mut self, policy: CrlPolicy) -> Self {
        self.domains
            .values_mut()
            .for_each(|domain| domain.crl_policy = policy);
        self
    }

    /// The same roots with another policy for one domain, if it is among them.
    #[must_use]
    pub fn with_crl_policy_of(mut self, domain: &TrustDomain, policy: CrlPolicy) -> Self {
        if let Some(domain) = self.domains.get_mut(domain) {
            domain.crl_policy = policy;
        }
        self
    }

    /// The domains, in no order.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.domains.keys()
    }

    /// What holds for a domain's peers; the strict policy for an unknown one.
    #[must_use]
    pub fn crl_policy(&self, domain: &TrustDomain) -> CrlPolicy {
        (self.domains.get(domain)).map_or(CrlPolicy::Require, |domain| domain.crl_policy)
    }

    /// The authorities of a domain; none for an unknown one.
    #[must_use]
    pub fn authorities(&self, domain: &TrustDomain) -> &[TrustedAuthority] {
        self.domains.get(domain).map_or(&[], |domain| &domain.authorities)
    }

    /// The domain that an ID belongs to.
    fn domain(&self, id: &SpiffeId) -> Result<&Domain, VerifyError> {
        self.domains
            .get(id.trust_domain_name())
            .ok_or_else(|| VerifyError::UnknownTrustDomain(id.trust_domain()))
    }
}

/// The part that the peer plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It connected to us.
    Client,
    /// We connected to it.
    Server,
}

/// A peer whose chain was verified: only a verification makes one. Ask again with [`recheck`](Self::recheck) for as long
/// as the connection lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSvid {
    spiffe_id: SpiffeId,
    serial: SerialNumber,
    authority_id: AuthorityId,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Verifies a chain, leaf first, against the authorities of the leaf's own trust domain, at `now`.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    role: Role,
    roots: &TrustRoots,
    now: SystemTime,
) -> Result<VerifiedSvid, VerifyError> {
    verify_chain_at(chain, role, roots, now, now)
}

/// As [`verify_chain`], with a time of its own for the validity of certificates: `path_time` may lie before
/// `now` where an expired certificate is still let in. The CRL must be current at `now` in any case.
pub(crate) fn verify_chain_at(
    chain: &[CertificateDer<'_>],
    role: Role,
    roots: &TrustRoots,
    path_time: SystemTime,
    now: SystemTime,
) -> Result<VerifiedSvid, VerifyError> {
    let (leaf, above) = chain.split_first().ok_or(VerifyError::EmptyChain)?;
    if chain.len() > MAX_CHAIN {
        return Err(VerifyError::Chain(format!(
            "{} certificates; the limit is {MAX_CHAIN}",
            chain.len()
        )));
    }
    let parsed = Certificate::parse(leaf)?;
    let spiffe_id = check_leaf(&parsed)?;
    let domain = roots.domain(&spiffe_id)?;
    // The path is judged within the leaf's dates, and these by themselves: dates are worth a word only where they are true.
    let within = path_time.clamp(parsed.not_before(), parsed.not_after().max(parsed.not_before()));
    let authority =
        build_path(leaf, above, role, domain, within).map_err(|reason| VerifyError::Untrusted {
            id: spiffe_id.clone(),
            reason,
        })?;
    OutsideDates::check(parsed.not_before(), parsed.not_after(), path_time)?;
    let verified = VerifiedSvid {
        spiffe_id,
        serial: parsed.serial,
        authority_id: authority.certificate.id(),
        not_before: parsed.not_before(),
        not_after: parsed.not_after(),
    };
    authority.certificate.check_valid_at(path_time)?;
    verified.check_revocation(authority, domain.crl_policy, now)?;
    Ok(verified)
}

/// The authority that signed the leaf. An intermediate that is not itself in the bundle is refused: nobody
/// could say whether what it signed is revoked. webpki's own CRL check is not used, because it hashes the
/// whole list each time.
fn build_path<'d>(
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
    role: Role,
    domain: &'d Domain,
    time: SystemTime,
) -> Result<&'d TrustedAuthority, String> {
    let leaf = EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    let purpose = match role {
        Role::Client => KeyUsage::client_auth(),
        Role::Server => KeyUsage::server_auth(),
    };
    let time = UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default());
    let path = leaf
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &domain.anchors,
            above,
            time,
            purpose,
            None,
            None,
        )
        .map_err(|error| error.to_string())?;
    if path.intermediate_certificates().next().is_some() {
        return Err("its issuer is not in the bundle, and no CRL of that issuer is known".to_owned());
    }
    let anchor = path.anchor();
    let signer = domain.anchors.iter().position(|candidate| candidate == anchor);
    signer
        .and_then(|at| domain.authorities.get(at))
        .ok_or_else(|| "its authority is unknown".to_owned())
}

impl VerifiedSvid {
    /// For a leaf that a [`SpiffeVerifier`](crate::tls::SpiffeVerifier) has judged in the handshake that brought it.
    pub(crate) fn of_verified_leaf(leaf: LeafInfo) -> Self {
        Self {
            spiffe_id: leaf.spiffe_id,
            serial: leaf.serial,
            authority_id: leaf.authority_id,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        }
    }

    /// Who it is.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// Its certificate's serial.
    #[must_use]
    pub fn serial(&self) -> SerialNumber {
        self.serial
    }

    /// The authority that issued it.
    #[must_use]
    pub fn authority_id(&self) -> AuthorityId {
        self.authority_id
    }

    /// Last second of its certificate.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Says that its certificate has ended by `now`.
    #[must_use]
    pub fn over_at(&self, now: SystemTime) -> OutsideDates {
        OutsideDates {
            not_before: self.not_before,
            not_after: self.not_after,
            now,
            clock: WhoseClock::Here,
        }
    }

    /// Whether the peer would still be accepted: its authority still trusted, its CRL current and silent
    /// about it, and the certificate not expired. No signature is verified again.
    pub fn recheck(&self, roots: &TrustRoots, now: SystemTime) -> Result<(), VerifyError> {
        if now > self.not_after {
            return Err(VerifyError::Expired(self.over_at(now)));
        }
        self.recheck_revocation(roots, now)
    }

    /// As [`recheck`](Self::recheck) for a peer whose certificate may have expired since.
    pub fn recheck_revocation(&self, roots: &TrustRoots, now: SystemTime) -> Result<(), VerifyError> {
        let domain = roots.domain(&self.spiffe_id)?;
        let mut candidates = domain
            .authorities
            .iter()
            .filter(|known| known.certificate.id() == self.authority_id);
        let authority = candidates
            .next()
            .ok_or(VerifyError::AuthorityGone(self.authority_id))?;
        self.check_revocation(authority, domain.crl_policy, now)
    }

    fn check_revocation(
        &self,
        authority: &TrustedAuthority,
        policy: CrlPolicy,
        now: SystemTime,
    ) -> Result<(), VerifyError> {
        let own = |crl: &&Crl| crl.authority_id() == self.authority_id;
        let crl = authority.crl.as_ref().filter(own);
        // Whoever is listed is refused even by a list that has ended.
        if crl.is_some_and(|crl| crl.is_revoked(&self.serial)) {
            return Err(VerifyError::Revoked {
                id: self.spiffe_id.clone(),
                serial: self.serial,
            });
        }
        match (crl, policy) {
            (_, CrlPolicy::Tolerate) => Ok(()),
            (None, CrlPolicy::Require) => Err(VerifyError::CrlMissing(self.authority_id)),
            (Some(crl), CrlPolicy::Require) if crl.is_current(now) => Ok(()),
            (Some(crl), CrlPolicy::Require) => Err(VerifyError::CrlStale(OutsideLife {
                authority: self.authority_id,
                dates: OutsideDates {
                    not_before: crl.this_update(),
                    not_after: crl.next_update(),
                    now,
                    clock: WhoseClock::Here,
                },
            })),
        }
    }
}
