//! Reads one message of the Workload API and verifies all of it before anything is used. Pure: the time is an argument.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use ring::rand::SystemRandom;
use rustls::pki_types::CertificateDer;
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::crl::{Crl, CrlError};
use signet_certs::id::{IdError, SpiffeId, TrustDomain};
use signet_certs::signer::{KeyError, LeafKey};
use signet_certs::split_certificates;
use signet_certs::svid::X509Svid;
use signet_certs::verify::{Role, TrustRoots, TrustedAuthority, VerifyError, verify_chain};
use signet_proto::workload::{X509svid, X509svidResponse};
use signet_runtime::error::excerpt;
use thiserror::Error;
use zeroize::Zeroizing;

/// Most elements of any list in a message: SVIDs, CRLs, federated domains, authorities of one domain.
pub const MAX_ELEMENTS: usize = 256;

/// Why a message, or its half about us, is not used.
#[derive(Debug, Error)]
pub enum MessageError {
    /// A bundle that cannot be used.
    #[error("the bundle of {trust_domain} is unusable: {problem}")]
    Bundle {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        problem: String,
    },
    /// A CRL that cannot be used; only [`whole`] minds.
    #[error("a revocation list is unusable: {0}")]
    Crl(#[source] CrlError),
    /// A name that is no SPIFFE ID.
    #[error("`{text}` in the message is no SPIFFE ID: {source}")]
    Id {
        /// The name.
        text: String,
        /// The rule it breaks.
        source: IdError,
    },
    /// A key that is no P-256 key.
    #[error("the private key of {id} is unusable: {source}")]
    Key {
        /// Whose key.
        id: SpiffeId,
        /// What is wrong with it.
        source: KeyError,
    },
    /// No SVID has the hint that the program asked for.
    #[error("no SVID carries the hint `{0}`")]
    NoHint(String),
    /// The message is empty, which the standard forbids.
    #[error("the message holds no SVID")]
    NoSvids,
    /// An SVID that does not verify.
    #[error("the SVID of {id} is unusable: {source}")]
    Svid {
        /// Whose SVID.
        id: SpiffeId,
        /// The rule it breaks.
        source: VerifyError,
    },
    /// More than [`MAX_ELEMENTS`].
    #[error("the message holds {found} {what}, at most {MAX_ELEMENTS} are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
    },
}

/// An identity that the agent granted.
#[derive(Clone, Debug)]
pub struct GrantedSvid {
    /// Chain and key.
    pub svid: Arc<X509Svid>,
    /// What the operator says it is for; empty where there is nothing to say. No two non-empty hints are equal.
    pub hint: String,
}

/// Verifies message after message. It remembers the newest CRL of each authority: a CRL that is left out, does not
/// verify or is older than that one changes nothing, and the one in force stays until its own end.
#[derive(Default)]
pub struct Reader {
    crls: HashMap<AuthorityId, Crl>,
}

impl Reader {
    /// A reader that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whom to trust according to a message. Faults in our own domains' bundles refuse it; a faulty CRL or foreign
    /// bundle is left out with a warning, for others must not be able to stop our updates.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn trust(&mut self, message: &X509svidResponse, now: SystemTime) -> Result<TrustRoots, MessageError> {
        let unused = |error| tracing::warn!(%error, "a CRL is not used");
        self.read(message, now, unused)
    }

    /// As [`trust`](Self::trust); `unused` hears why a CRL is left out.
    fn read(
        &mut self,
        message: &X509svidResponse,
        now: SystemTime,
        unused: impl FnMut(CrlError),
    ) -> Result<TrustRoots, MessageError> {
        check_sizes(message)?;
        let mut domains: Vec<(TrustDomain, Vec<AuthorityCertificate>)> = Vec::new();
        for (domain, bundle) in own_bundles(message)? {
            let authorities = authorities(&domain, bundle).map_err(|problem| MessageError::Bundle {
                trust_domain: domain.clone(),
                problem,
            })?;
            domains.push((domain, authorities));
        }
        domains.extend(foreign_bundles(message, &domains));
        let known: Vec<&AuthorityCertificate> = domains.iter().flat_map(|(_, known)| known).collect();
        message
            .crl
            .iter()
            .filter_map(|der| self.take_crl(der, &known, now).err())
            .for_each(unused);
        self.forget(&known, now);
        let with_crl = |certificate: AuthorityCertificate| TrustedAuthority {
            crl: self.crls.get(&certificate.id()).cloned(),
            certificate,
        };
        let with_crls = domains
            .into_iter()
            .map(|(domain, known)| (domain, known.into_iter().map(with_crl).collect()));
        Ok(TrustRoots::new(with_crls.collect()))
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

/// All of a message, for whoever reads this one only: no older CRL is in force, so one that cannot be used refuses it.
///
/// # Errors
/// See [`MessageError`].
pub fn whole(
    message: &X509svidResponse,
    rng: &SystemRandom,
    now: SystemTime,
) -> Result<(Vec<GrantedSvid>, TrustRoots), MessageError> {
    let mut unused = None;
    let roots = Reader::new().read(message, now, |error| unused = unused.take().or(Some(error)))?;
    match unused {
        Some(error) => Err(MessageError::Crl(error)),
        None => Ok((svids(message, &roots, rng, now)?, roots)),
    }
}

/// The identities that a message grants, each verified as a peer would under `roots`. That one is revoked or that CRLs
/// are missing is no reason to refuse: the others' CRLs are needed all the same, and peers will say so.
///
/// # Errors
/// See [`MessageError`]; one bad SVID refuses all.
pub fn svids(
    message: &X509svidResponse,
    roots: &TrustRoots,
    rng: &SystemRandom,
    now: SystemTime,
) -> Result<Vec<GrantedSvid>, MessageError> {
    let mut hints = HashSet::new();
    let mut granted = Vec::with_capacity(message.svids.len());
    for entry in &message.svids {
        let svid = Arc::new(svid(entry, roots, rng, now)?);
        // The standard forbids a hint given twice; the first entry has it.
        if entry.hint.is_empty() || hints.insert(entry.hint.as_str()) {
            granted.push(GrantedSvid {
                svid,
                hint: entry.hint.clone(),
            });
        }
    }
    Ok(granted)
}

fn svid(
    entry: &X509svid,
    roots: &TrustRoots,
    rng: &SystemRandom,
    now: SystemTime,
) -> Result<X509Svid, MessageError> {
    let id = parse_id(&entry.spiffe_id)?;
    let bad = |source: VerifyError| MessageError::Svid {
        id: id.clone(),
        source,
    };
    let key = LeafKey::from_pkcs8(Zeroizing::new(entry.x509_svid_key.to_vec()), rng).map_err(|source| {
        MessageError::Key {
            id: id.clone(),
            source,
        }
    })?;
    let chain =
        split_certificates(&entry.x509_svid).map_err(|error| bad(VerifyError::Chain(error.to_string())))?;
    let svid = X509Svid::new(chain.iter().map(|der| der.to_vec()).collect(), key).map_err(bad)?;
    if *svid.spiffe_id() != id {
        return Err(bad(VerifyError::NotAnSvid(
            "its URI name differs from the ID in the message",
        )));
    }
    let chain: Vec<CertificateDer<'_>> = chain.into_iter().map(CertificateDer::from).collect();
    match verify_chain(&chain, Role::Server, roots, now) {
        Ok(_) => {}
        Err(
            status @ (VerifyError::Revoked { .. } | VerifyError::CrlMissing(_) | VerifyError::CrlStale(_)),
        ) => tracing::warn!(spiffe_id = %id, serial = %svid.serial(), %status, "peers will refuse this SVID"),
        Err(error) => return Err(bad(error)),
    }
    Ok(svid)
}

fn check_sizes(message: &X509svidResponse) -> Result<(), MessageError> {
    if message.svids.is_empty() {
        return Err(MessageError::NoSvids);
    }
    let sizes = [
        ("SVIDs", message.svids.len()),
        ("CRLs", message.crl.len()),
        ("federated bundles", message.federated_bundles.len()),
    ];
    match sizes.into_iter().find(|(_, found)| *found > MAX_ELEMENTS) {
        Some((what, found)) => Err(MessageError::TooMany { what, found }),
        None => Ok(()),
    }
}

fn parse_id(text: &str) -> Result<SpiffeId, MessageError> {
    SpiffeId::parse(text).map_err(|source| MessageError::Id {
        text: excerpt(text, 160),
        source,
    })
}

/// The bundles that come with our SVIDs, one for each trust domain.
fn own_bundles(message: &X509svidResponse) -> Result<Vec<(TrustDomain, &[u8])>, MessageError> {
    let mut bundles: Vec<(TrustDomain, &[u8])> = Vec::new();
    for entry in &message.svids {
        let domain = parse_id(&entry.spiffe_id)?.trust_domain();
        match bundles.iter().find(|(known, _)| *known == domain) {
            None => bundles.push((domain, &entry.bundle)),
            Some((_, bundle)) if *bundle == entry.bundle => {}
            Some(_) => {
                let problem = "two SVIDs bring different ones".to_owned();
                return Err(MessageError::Bundle {
                    trust_domain: domain,
                    problem,
                });
            }
        }
    }
    Ok(bundles)
}

/// Foreign domains' bundles; unusable ones are left out, so that their peers are refused. Our own domain never counts as
/// foreign, or its entry could replace the real one.
fn foreign_bundles(
    message: &X509svidResponse,
    own: &[(TrustDomain, Vec<AuthorityCertificate>)],
) -> Vec<(TrustDomain, Vec<AuthorityCertificate>)> {
    let mut foreign: Vec<(TrustDomain, Vec<AuthorityCertificate>)> = Vec::new();
    for (name, bundle) in &message.federated_bundles {
        let read = TrustDomain::parse_lenient(name)
            .map_err(|error| error.to_string())
            .and_then(|domain| Ok((authorities(&domain, bundle)?, domain)));
        match read {
            Ok((_, domain)) if own.iter().chain(&foreign).any(|(known, _)| *known == domain) => {
                tracing::warn!(trust_domain = %domain, "a second bundle of this trust domain is not used");
            }
            Ok((authorities, domain)) => foreign.push((domain, authorities)),
            Err(error) => tracing::warn!(trust_domain = name, error, "a federated bundle is not used"),
        }
    }
    foreign
}

fn authorities(domain: &TrustDomain, bundle: &[u8]) -> Result<Vec<AuthorityCertificate>, String> {
    let certificates = split_certificates(bundle).map_err(|error| error.to_string())?;
    if certificates.is_empty() || certificates.len() > MAX_ELEMENTS {
        return Err(format!(
            "it holds {} authorities, not 1 to {MAX_ELEMENTS}",
            certificates.len()
        ));
    }
    let read = |der: &[u8]| {
        let certificate = AuthorityCertificate::from_der(der).map_err(|error| error.to_string())?;
        match certificate.trust_domain() {
            Some(stated) if stated != domain => Err(format!("an authority in it belongs to {stated}")),
            _ => Ok(certificate),
        }
    };
    certificates.into_iter().map(read).collect()
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
