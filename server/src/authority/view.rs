//! What the rest of the server sees of the authorities: keys ready to sign, and where each stands.

use std::fmt;
use std::time::{Duration, SystemTime};

use signet_certs::authority::{AuthorityCertificate, AuthorityId, AuthorityKind, X509Authority};

use super::links::{Link, Links};
use super::state::AuthorityState;

/// One authority with its key.
#[derive(Clone)]
pub(crate) struct ViewedAuthority {
    /// Certificate and signer. Only an Active one may sign leaves; every one signs its CRL.
    pub authority: X509Authority,
    /// Where it stands.
    pub state: AuthorityState,
    /// The longest leaf TTL ever in use under it.
    pub longest_leaf_ttl: Duration,
}

impl ViewedAuthority {
    /// Names the key.
    pub(crate) fn id(&self) -> AuthorityId {
        self.authority.certificate().id()
    }

    /// The certificate.
    pub(crate) fn certificate(&self) -> &AuthorityCertificate {
        self.authority.certificate()
    }

    /// The authority's last CRL must have a `thisUpdate` at or after this; `None` while its leaves may live.
    pub(crate) fn last_crl_from(&self) -> Option<SystemTime> {
        match self.state {
            AuthorityState::Old { drained_at, .. } => drained_at,
            _ => None,
        }
    }
}

impl fmt::Debug for ViewedAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewedAuthority")
            .field("id", &self.id())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// The authorities of one kind, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct KindView {
    /// All that are in the bundle, or about to be.
    pub authorities: Vec<ViewedAuthority>,
    /// What leads to them from earlier ones.
    pub links: Links,
}

impl KindView {
    /// What leads a reader that knows only an earlier authority to this one at `now`.
    pub(crate) fn links_to(&self, authority: AuthorityId, now: SystemTime) -> Vec<AuthorityCertificate> {
        let way = self.links.leading_to(authority, now);
        way.into_iter().filter_map(Link::certificate).collect()
    }

    /// The authority that signs leaves. It may be past its end.
    pub(crate) fn active(&self) -> Option<&ViewedAuthority> {
        self.authorities
            .iter()
            .find(|viewed| viewed.state == AuthorityState::Active)
    }
}

/// The authorities of all kinds at one moment, as journalled.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuthorityView {
    /// Those that sign workloads' SVIDs.
    pub x509: KindView,
    /// Those that sign the server's and the agents' own.
    pub control: KindView,
}

impl AuthorityView {
    /// Whether an authority waits to sign.
    pub(crate) fn has_prepared(&self) -> bool {
        let mut all = self.all();
        all.any(|(_, viewed)| matches!(viewed.state, AuthorityState::Prepared { .. }))
    }

    /// The authorities of one kind.
    pub(crate) fn kind(&self, kind: AuthorityKind) -> &KindView {
        match kind {
            AuthorityKind::X509 => &self.x509,
            AuthorityKind::Control => &self.control,
        }
    }

    /// All authorities with their kind.
    pub(crate) fn all(&self) -> impl Iterator<Item = (AuthorityKind, &ViewedAuthority)> {
        let x509 = self
            .x509
            .authorities
            .iter()
            .map(|viewed| (AuthorityKind::X509, viewed));
        x509.chain(
            self.control
                .authorities
                .iter()
                .map(|viewed| (AuthorityKind::Control, viewed)),
        )
    }

    /// Whether every kind has an authority that signs.
    pub(crate) fn is_complete(&self) -> bool {
        self.x509.active().is_some() && self.control.active().is_some()
    }
}
