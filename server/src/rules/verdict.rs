//! What rules give.

use std::collections::HashSet;
use std::time::Duration;

use signet_certs::id::SpiffeId;

/// What the rules say to some facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// At least one identity, all different; the first is the default.
    Identities(Vec<GrantedIdentity>),
    /// A deny rule matches.
    Denied {
        /// Its name.
        rule: String,
    },
    /// No rule gives an identity.
    NoMatch,
    /// It hangs on labels of the pod's namespace, which are not known.
    Undecided,
}

impl Verdict {
    /// What it gives, default first; nothing where it denies or is open.
    pub(crate) fn identities(&self) -> &[GrantedIdentity] {
        match self {
            Self::Identities(identities) => identities,
            Self::Denied { .. } | Self::NoMatch | Self::Undecided => &[],
        }
    }

    /// Whether whoever has this gets the same by the other, whichever rules give it.
    pub(crate) fn gives_as(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.identities(), other.identities());
        let same = |(ours, theirs): (&GrantedIdentity, &GrantedIdentity)| ours.gives_as(theirs);
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(same)
    }
}

/// One identity that a workload may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantedIdentity {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// Lifetime of its certificates, where the rule sets one.
    pub ttl: Option<Duration>,
    /// DNS names of its certificates.
    pub dns_names: Vec<String>,
    /// Tells identities of one workload apart; empty or unique among them.
    pub hint: String,
    /// Name of the rule that gives it.
    pub rule: String,
}

impl GrantedIdentity {
    /// Whether a certificate of the one is as good as one of the other.
    fn gives_as(&self, other: &Self) -> bool {
        self.spiffe_id == other.spiffe_id
            && self.ttl == other.ttl
            && self.dns_names == other.dns_names
            && self.hint == other.hint
    }
}

/// Clears a hint that an earlier identity has already: the identity itself stays.
pub(super) fn keep_first_of_equal_hints(identities: &mut [GrantedIdentity]) {
    let mut seen = HashSet::new();
    for identity in identities {
        if !identity.hint.is_empty() && !seen.insert(identity.hint.clone()) {
            identity.hint.clear();
        }
    }
}
