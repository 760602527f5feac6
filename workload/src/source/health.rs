//! Whether a source does what it is for. Pure: the time is an argument.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::svid::X509Svid;
use signet_certs::time::rfc3339;
use signet_certs::verify::{CrlPolicy, TrustRoots};
use thiserror::Error;

use super::error::SourceError;
use super::renewal;

/// What is wrong with a source, the worst that is.
#[derive(Clone, Debug, Error)]
pub enum Unhealthy {
    /// Nothing has come from the agent yet.
    #[error("nothing has come from the agent yet{}", colon(.0.as_deref()))]
    Nothing(Option<Arc<SourceError>>),
    /// Our certificate has ended and no other has come. Nothing is presented to peers.
    #[error("the certificate of {id} expired at {}{}", rfc3339(*.not_after), colon(.problem.as_deref()))]
    Expired {
        /// Who we are.
        id: SpiffeId,
        /// Its last second.
        not_after: SystemTime,
        /// The latest trouble.
        problem: Option<Arc<SourceError>>,
    },
    /// The agent is away, hangs, or sends what cannot be used. What was verified last stays in use.
    #[error("{0}")]
    Agent(Arc<SourceError>),
    /// The agent answers, but the renewal is late.
    #[error("the certificate of {id} should have been renewed by now; it ends at {}", rfc3339(*.not_after))]
    NotRenewed {
        /// Who we are.
        id: SpiffeId,
        /// Its last second.
        not_after: SystemTime,
    },
    /// There is an authority without a current revocation list in these trust domains.
    #[error("no current revocation list is at hand of every authority of {}: {}", names(.domains), lacking(*.refused))]
    NoLists {
        /// Which.
        domains: Vec<TrustDomain>,
        /// Whether all peers there are refused for it: so it is under [`CrlPolicy::Require`](crate::CrlPolicy::Require), and once
        /// a list of the domain was seen; and no other domain is left. Otherwise peers of some domain are accepted, revoked ones
        /// among them where its lists are not required.
        refused: bool,
    },
}

fn colon(problem: Option<&SourceError>) -> String {
    problem.map(|problem| format!(": {problem}")).unwrap_or_default()
}

fn names(domains: &[TrustDomain]) -> String {
    let names: Vec<&str> = domains.iter().map(TrustDomain::as_str).collect();
    names.join(", ")
}

fn lacking(refused: bool) -> &'static str {
    if refused {
        "all peers are refused"
    } else {
        "peers there are refused where lists are required, else revoked ones are accepted"
    }
}

impl Unhealthy {
    /// Whether new connections work all the same: a program that is asked whether it is ready says yes. An agent that is away
    /// or a renewal that is late is no reason to take a working program out of service, and all programs of its node with it.
    ///
    /// A probe of liveness asks something else: what is wrong outside the program no restart mends, and it forgets which domains
    /// have lists ([`CrlPolicy::Prefer`](crate::CrlPolicy::Prefer)).
    #[must_use]
    pub fn still_serves(&self) -> bool {
        match self {
            Self::Nothing(_) | Self::Expired { .. } => false,
            Self::Agent(problem) => !matches!(**problem, SourceError::Ended),
            Self::NotRenewed { .. } => true,
            Self::NoLists { refused, .. } => !refused,
        }
    }
}

/// Judges a source that has an identity.
pub(super) fn of_identity(
    svid: Option<&X509Svid>,
    roots: &TrustRoots,
    problem: Option<Arc<SourceError>>,
    now: SystemTime,
) -> Result<(), Unhealthy> {
    let Some(svid) = svid else {
        return Err(Unhealthy::Nothing(problem));
    };
    let (id, not_after) = (svid.spiffe_id().clone(), svid.not_after());
    if now > not_after {
        return Err(Unhealthy::Expired {
            id,
            not_after,
            problem,
        });
    }
    of_agent(problem)?;
    if renewal::is_late(svid, now) {
        return Err(Unhealthy::NotRenewed { id, not_after });
    }
    of_lists(roots, now)
}

/// Judges a source of bundles.
pub(super) fn of_bundles(
    roots: Option<&TrustRoots>,
    problem: Option<Arc<SourceError>>,
    now: SystemTime,
) -> Result<(), Unhealthy> {
    let Some(roots) = roots else {
        return Err(Unhealthy::Nothing(problem));
    };
    of_agent(problem)?;
    of_lists(roots, now)
}

fn of_agent(problem: Option<Arc<SourceError>>) -> Result<(), Unhealthy> {
    problem.map_or(Ok(()), |problem| Err(Unhealthy::Agent(problem)))
}

fn of_lists(roots: &TrustRoots, now: SystemTime) -> Result<(), Unhealthy> {
    let lacks = |domain: &&TrustDomain| {
        roots.authorities(domain).iter().any(|authority| {
            let current = authority.crl.as_ref().is_some_and(|crl| crl.is_current(now));
            authority.certificate.is_valid_at(now) && !current
        })
    };
    let mut domains: Vec<TrustDomain> = roots.trust_domains().filter(lacks).cloned().collect();
    if domains.is_empty() {
        return Ok(());
    }
    domains.sort();
    let refuses =
        |domain: &TrustDomain| domains.contains(domain) && roots.crl_policy(domain) == CrlPolicy::Require;
    let refused = roots.trust_domains().all(refuses);
    Err(Unhealthy::NoLists { domains, refused })
}
