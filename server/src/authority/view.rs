//! What the rest of the server sees of the authorities: keys ready to sign, and where each stands.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use signet_certs::authority::{AuthorityCertificate, AuthorityId, AuthorityKind, X509Authority};

use super::departed::DepartedAuthority;
use super::links::{Link, Links};
use super::material::Held;
use super::state::{AuthorityState, Turn};

/// One authority with its key.
#[derive(Clone)]
pub(crate) struct ViewedAuthority {
    /// What signs. Only an Active one may sign leaves; every one signs its CRL.
    pub held: Held,
    /// Where it stands.
    pub state: AuthorityState,
    /// The longest leaf TTL ever in use under it.
    pub longest_leaf_ttl: Duration,
    /// Who wanted it last.
    pub author: Arc<str>,
    /// How it came to stand where it does.
    pub history: Vec<Turn>,
}

impl ViewedAuthority {
    /// Names the key.
    pub(crate) fn id(&self) -> AuthorityId {
        self.certificate().id()
    }

    /// What signs certificates and lists.
    pub(crate) fn x509(&self) -> &X509Authority {
        self.held.x509()
    }

    /// The certificate.
    pub(crate) fn certificate(&self) -> &AuthorityCertificate {
        self.x509().certificate()
    }

    /// The authority's last CRL must have a `thisUpdate` at or after this; `None` while its leaves may live.
    pub(crate) fn last_crl_from(&self) -> Option<SystemTime> {
        self.state.end().and_then(|(_, drained_at)| drained_at)
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
    /// What left for good.
    pub departed: Arc<[DepartedAuthority]>,
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
pub(crate) struct AuthorityView(BTreeMap<AuthorityKind, KindView>);

/// Of a kind that there is not.
static NONE: LazyLock<KindView> = LazyLock::new(KindView::default);

impl FromIterator<(AuthorityKind, KindView)> for AuthorityView {
    fn from_iter<I: IntoIterator<Item = (AuthorityKind, KindView)>>(kinds: I) -> Self {
        Self(kinds.into_iter().collect())
    }
}

impl AuthorityView {
    /// Whether an authority waits to sign.
    pub(crate) fn has_prepared(&self) -> bool {
        let mut all = self.all();
        all.any(|(_, viewed)| matches!(viewed.state, AuthorityState::Prepared { .. }))
    }

    /// Whether one of this kind does.
    pub(crate) fn has_prepared_of(&self, kind: AuthorityKind) -> bool {
        let mut all = self.kind(kind).authorities.iter();
        all.any(|viewed| matches!(viewed.state, AuthorityState::Prepared { .. }))
    }

    /// The authorities of one kind.
    pub(crate) fn kind(&self, kind: AuthorityKind) -> &KindView {
        self.0.get(&kind).unwrap_or(&NONE)
    }

    /// To change it.
    #[cfg(test)]
    pub(crate) fn kind_mut(&mut self, kind: AuthorityKind) -> &mut KindView {
        self.0.entry(kind).or_default()
    }

    /// The kinds there are, each with its authorities.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (AuthorityKind, &KindView)> {
        self.0.iter().map(|(kind, view)| (*kind, view))
    }

    /// All authorities with their kind.
    pub(crate) fn all(&self) -> impl Iterator<Item = (AuthorityKind, &ViewedAuthority)> {
        self.kinds()
            .flat_map(|(kind, view)| view.authorities.iter().map(move |viewed| (kind, viewed)))
    }

    /// Those that left for good, of every kind.
    pub(crate) fn departed(&self) -> impl Iterator<Item = AuthorityId> {
        let kinds = self.0.values();
        kinds.flat_map(|view| view.departed.iter().map(|departed| departed.id))
    }

    /// Whether there is a kind, and every one has an authority that signs.
    pub(crate) fn is_complete(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|view| view.active().is_some())
    }
}
