//! Which of several identities is written.

use std::fmt;
use std::sync::Arc;

use signet_workload::{GrantedSvid, Pick, SpiffeId, X509Svid};

/// Which of several identities is written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Which {
    /// The first, which the agent means as the default.
    #[default]
    Default,
    /// The one of this name.
    Id(SpiffeId),
    /// The one with this hint.
    Hint(String),
}

impl Which {
    /// For the source, which asks for each message.
    pub(super) fn pick(&self) -> Pick {
        match self {
            Self::Default => Pick::Default,
            Self::Hint(hint) => Pick::Hint(hint.clone()),
            Self::Id(_) => {
                let which = self.clone();
                Pick::By(Arc::new(move |svids| {
                    svids.iter().position(|granted| which.is(granted))
                }))
            }
        }
    }

    fn is(&self, granted: &GrantedSvid) -> bool {
        match self {
            Self::Default => true,
            Self::Id(id) => granted.svid.spiffe_id() == id,
            Self::Hint(hint) => granted.hint == *hint,
        }
    }

    /// The one that is meant.
    pub(crate) fn choose<'a>(&self, svids: &'a [GrantedSvid]) -> Option<&'a Arc<X509Svid>> {
        let granted = svids.iter().find(|granted| self.is(granted))?;
        Some(&granted.svid)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default identity"),
            Self::Id(id) => id.fmt(f),
            Self::Hint(hint) => write!(f, "the identity with the hint `{hint}`"),
        }
    }
}
