//! Whom to trust, message after message.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::crl::{Crl, CrlError};
use signet_certs::id::TrustDomain;
use signet_certs::verify::{self, TrustRoots, TrustedAuthority};
use signet_proto::workload::{X509BundlesResponse, X509svidResponse};

use super::bundles::{Domains, authorities, foreign_bundles, own_bundles};
use super::{MAX_ELEMENTS, MessageError};
use crate::policy::{CrlPolicy, Federated};

/// Verifies message after message. It remembers the newest CRL of each authority: a CRL that is left out, does not
/// verify or is older than that one changes nothing, and the one in force stays until its own end.
#[derive(Default)]
pub(crate) struct Reader {
    crls: HashMap<AuthorityId, Crl>,
    policy: CrlPolicy,
    federated: Federated,
    /// Trust domains of which a list was ever seen.
    listed: HashSet<TrustDomain>,
}

impl Reader {
    /// A reader that has seen nothing.
    pub(crate) fn new(policy: CrlPolicy, federated: Federated) -> Self {
        Self {
            policy,
            federated,
            ..Self::default()
        }
    }

    /// Whom to trust according to a message. Faults in our own domains' bundles refuse it; a faulty CRL or foreign
    /// bundle is left out with a warning, for others must not be able to stop our updates.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub(crate) fn trust(
        &mut self,
        message: &X509svidResponse,
        now: SystemTime,
    ) -> Result<TrustRoots, MessageError> {
        self.read(message, now, warn_unused)
    }

    /// As [`trust`](Self::trust), of a message that has bundles only. None of them is ours, so each stands for itself.
    pub(crate) fn trust_bundles(
        &mut self,
        message: &X509BundlesResponse,
        now: SystemTime,
    ) -> Result<TrustRoots, MessageError> {
        check_sizes([("CRLs", message.crl.len()), ("bundles", message.bundles.len())])?;
        let domains = foreign_bundles(&message.bundles, &Vec::new(), &self.federated);
        if domains.is_empty() {
            return Err(MessageError::NoBundles);
        }
        Ok(self.with_lists(domains, &message.crl, now, warn_unused))
    }

    /// As [`trust`](Self::trust); `unused` hears why a CRL is left out.
    pub(super) fn read(
        &mut self,
        message: &X509svidResponse,
        now: SystemTime,
        unused: impl FnMut(CrlError),
    ) -> Result<TrustRoots, MessageError> {
        if message.svids.is_empty() {
            return Err(MessageError::NoSvids);
        }
        check_sizes([
            ("SVIDs", message.svids.len()),
            ("CRLs", message.crl.len()),
            ("federated bundles", message.federated_bundles.len()),
        ])?;
        let mut domains: Domains = Vec::new();
        for (domain, bundle) in own_bundles(message)? {
            let authorities = authorities(&domain, bundle).map_err(|problem| MessageError::Bundle {
                trust_domain: domain.clone(),
                problem,
            })?;
            domains.push((domain, authorities));
        }
        domains.extend(foreign_bundles(
            &message.federated_bundles,
            &domains,
            &self.federated,
        ));
        Ok(self.with_lists(domains, &message.crl, now, unused))
    }

    /// Joins each authority with its newest list.
    fn with_lists(
        &mut self,
        domains: Domains,
        lists: &[Bytes],
        now: SystemTime,
        unused: impl FnMut(CrlError),
    ) -> TrustRoots {
        let known: Vec<&AuthorityCertificate> = domains.iter().flat_map(|(_, known)| known).collect();
        lists
            .iter()
            .filter_map(|der| self.take_crl(der, &known, now).err())
            .for_each(unused);
        self.forget(&known, now);
        self.remember_listed(&domains);
        let lenient: Vec<TrustDomain> = match self.policy {
            CrlPolicy::Require => Vec::new(),
            CrlPolicy::Prefer => {
                let names = domains.iter().map(|(domain, _)| domain);
                names
                    .filter(|domain| !self.listed.contains(*domain))
                    .cloned()
                    .collect()
            }
        };
        let with_crl = |certificate: AuthorityCertificate| TrustedAuthority {
            crl: self.crls.get(&certificate.id()).cloned(),
            certificate,
        };
        let with_crls = domains
            .into_iter()
            .map(|(domain, known)| (domain, known.into_iter().map(with_crl).collect()));
        lenient
            .iter()
            .fold(TrustRoots::new(with_crls.collect()), |roots, domain| {
                roots.with_crl_policy_of(domain, verify::CrlPolicy::Tolerate)
            })
    }

    /// Notes the domains one of whose authorities has a list here.
    fn remember_listed(&mut self, domains: &Domains) {
        let has_list =
            |known: &[AuthorityCertificate]| known.iter().any(|known| self.crls.contains_key(&known.id()));
        let listed: Vec<TrustDomain> = domains
            .iter()
            .filter(|(_, known)| has_list(known))
            .map(|(domain, _)| domain.clone())
            .collect();
        self.listed.extend(listed);
    }

    fn take_crl(
        &mut self,
        der: &[u8],
        known: &[&AuthorityCertificate],
        now: SystemTime,
    ) -> Result<(), CrlError> {
        if self.crls.values().any(|crl| crl.der() == der) {
            return Ok(());
        }
        let crl = verified_crl(der, known).and_then(|crl| self.newer(crl, now))?;
        tracing::debug!(authority_id = %crl.authority_id(), number = %crl.number(), "a CRL is in force");
        self.crls.insert(crl.authority_id(), crl);
        Ok(())
    }

    fn newer(&self, crl: Crl, now: SystemTime) -> Result<Crl, CrlError> {
        match self.crls.get(&crl.authority_id()) {
            Some(held) => crl.may_replace(held, now)?,
            None => crl.check_not_ahead(now)?,
        }
        Ok(crl)
    }

    /// Drops what can play no part any more. A current CRL is kept even when its authority has left the bundle, or
    /// leaving and coming back would bring an older list in.
    fn forget(&mut self, known: &[&AuthorityCertificate], now: SystemTime) {
        self.crls
            .retain(|id, crl| crl.is_current(now) || known.iter().any(|certificate| certificate.id() == *id));
    }
}

fn warn_unused(error: CrlError) {
    tracing::warn!(%error, "a CRL is not used");
}

fn check_sizes<const N: usize>(sizes: [(&'static str, usize); N]) -> Result<(), MessageError> {
    match sizes.into_iter().find(|(_, found)| *found > MAX_ELEMENTS) {
        Some((what, found)) => Err(MessageError::TooMany { what, found }),
        None => Ok(()),
    }
}

/// Finds who signed a CRL among the authorities.
fn verified_crl(der: &[u8], known: &[&AuthorityCertificate]) -> Result<Crl, CrlError> {
    for certificate in known {
        match Crl::verify(der, certificate) {
            Err(CrlError::Issuer(_)) => {}
            outcome => return outcome,
        }
    }
    Err(CrlError::Unacceptable(
        "none of the authorities in the message signed it".to_owned(),
    ))
}
