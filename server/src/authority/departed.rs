//! Authorities that left because they are not to be trusted any more, pure. Agents are told which, so that none of them takes one back
//! from a file, a link or an older server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::link::WALK_AFTER_END;

/// Most that are kept of each kind: agents remember so many of all kinds together.
const MOST: usize = 1024 / AuthorityKind::ALL.len();

/// How a tainted authority left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It was revoked.
    Revoked,
    /// Its last certificate had ended before.
    Expired,
    /// Its key is taken to be stolen.
    Emergency,
}

impl Left {
    /// Its name in journals and tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Emergency => "emergency",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Revoked, Self::Expired, Self::Emergency]
            .into_iter()
            .find(|left| left.name() == name)
    }
}

/// One that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DepartedAuthority {
    /// Which.
    pub id: AuthorityId,
    /// When.
    pub at: SystemTime,
    /// `notAfter` of its certificate.
    pub not_after: SystemTime,
    /// Who wanted it.
    pub author: Arc<str>,
    /// How.
    pub left: Left,
    /// Though certificates of it were in use, or nobody could say.
    pub forced: bool,
    /// Its key is kept, and signs nothing: what is destroyed by a wrong clock does not come back.
    pub has_key: bool,
    /// Sequence of the first bundle that was published without it.
    pub shown: Option<u64>,
}

/// In order of leaving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Departed(Vec<DepartedAuthority>);

impl Departed {
    /// Those that were kept.
    pub(super) const fn of(kept: Vec<DepartedAuthority>) -> Self {
        Self(kept)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &DepartedAuthority> {
        self.0.iter()
    }

    pub(crate) fn get(&self, id: AuthorityId) -> Option<&DepartedAuthority> {
        self.0.iter().find(|departed| departed.id == id)
    }

    /// With one more; the oldest without a key give way.
    pub(super) fn add(&mut self, departed: DepartedAuthority) {
        self.0.push(departed);
        let mut excess = self.0.len().saturating_sub(MOST);
        self.0.retain(|departed| {
            let goes = excess > 0 && !departed.has_key;
            excess -= usize::from(goes);
            !goes
        });
    }

    /// A bundle was published that names these as departed.
    pub(super) fn note_shown(&mut self, sequence: u64, named: &[AuthorityId]) {
        for departed in &mut self.0 {
            if named.contains(&departed.id) {
                departed.shown.get_or_insert(sequence);
            }
        }
    }

    /// Whose keys wait for a settled time.
    pub(super) fn has_keys(&self) -> bool {
        self.0.iter().any(|departed| departed.has_key)
    }

    /// Their keys may go.
    pub(super) fn take_keys(&mut self) -> Vec<AuthorityId> {
        let with_keys = self.0.iter_mut().filter(|departed| departed.has_key);
        with_keys
            .map(|departed| {
                departed.has_key = false;
                departed.id
            })
            .collect()
    }

    /// Without those that no reader could take back any more, for neither its certificate nor a link to it is valid.
    pub(super) fn let_go(&mut self, settled: SystemTime) {
        self.0
            .retain(|departed| departed.has_key || end(departed) > settled);
    }

    /// When the next one goes.
    pub(super) fn next_end(&self) -> Option<SystemTime> {
        self.0.iter().map(end).min()
    }
}

fn end(departed: &DepartedAuthority) -> SystemTime {
    departed.not_after + WALK_AFTER_END + Duration::from_secs(1)
}
