//! What a program asks of its peers beside the rule on their names.

use signet_certs::id::TrustDomain;

/// What happens to a peer whose authority has no current CRL here. A peer that a CRL lists is refused in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrlPolicy {
    /// Refused: it fails closed.
    #[default]
    Require,
    /// Accepted for as long as no CRL of its trust domain has ever been seen by this source, which is how agents look that
    /// know nothing of revocation. From the first list on that domain is under [`Require`](Self::Require), across lost
    /// connections and restarts of the agent, so that leaving lists out hides no revocation.
    Prefer,
}

/// Which trust domains count beside those of our own SVIDs, of all that the agent passes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Federated {
    /// All of them: the operator has chosen.
    #[default]
    All,
    /// These. A [`PeerRule`](crate::PeerRule) of any kind then accepts nobody else's members.
    Only(Vec<TrustDomain>),
    /// None: peers are of our own trust domain.
    None,
}

impl Federated {
    /// Whether the domain counts.
    pub(crate) fn takes(&self, domain: &TrustDomain) -> bool {
        match self {
            Self::All => true,
            Self::Only(domains) => domains.contains(domain),
            Self::None => false,
        }
    }
}
