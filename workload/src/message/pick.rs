//! One of several identities.

use std::fmt;
use std::sync::Arc;

use super::{GrantedSvid, MessageError};

/// A program's own choice: the index of the SVID to present.
pub type Picker = Arc<dyn Fn(&[GrantedSvid]) -> Option<usize> + Send + Sync>;

/// Which of several SVIDs is presented to peers.
#[derive(Clone, Default)]
pub enum Pick {
    /// The first, which the agent means as the default.
    #[default]
    Default,
    /// The one with this hint.
    Hint(String),
    /// The one at the index that the function gives; with none the message is not used. It is asked for each message, so it
    /// should decide by what stays: IDs and hints.
    By(Picker),
}

impl Pick {
    /// The index of the one to present.
    pub(crate) fn choose(&self, svids: &[GrantedSvid]) -> Result<usize, MessageError> {
        let chosen = match self {
            Self::Default => Some(0),
            Self::Hint(hint) => {
                let found = svids.iter().position(|granted| granted.hint == *hint);
                return found.ok_or_else(|| MessageError::NoHint(hint.clone()));
            }
            Self::By(pick) => pick(svids),
        };
        chosen
            .filter(|index| *index < svids.len())
            .ok_or(MessageError::NotPicked(svids.len()))
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("Default"),
            Self::Hint(hint) => f.debug_tuple("Hint").field(hint).finish(),
            Self::By(_) => f.write_str("By"),
        }
    }
}
