//! What an agent says, what it is told, and what an admin sees of it.

use std::collections::HashSet;
use std::time::Duration;

use signet_certs::{authority::AuthorityId, crl::CrlNumber, tls::KeyExchange};

/// More affected pods than this are told as "all".
const MAX_AFFECTED: usize = 1024;
/// A clock that is further off than this is worth a warning.
const SKEW_WARNING: Duration = Duration::from_secs(60);

/// What an agent says it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Sequence number of its bundle.
    pub sequence: u64,
    /// The same, where it is a bundle of this server: 0 where the number stands for another content, or for none.
    pub confirmed: u64,
    /// CRLs by authority.
    pub crls: Vec<(AuthorityId, CrlNumber, [u8; 32])>,
    /// Current SVIDs by the authority that signed them; nothing while the agent does not know.
    pub in_use: Option<Vec<(AuthorityId, u32)>>,
    /// Pods with a volume on its node.
    pub pod_uids: HashSet<String>,
    /// Its clock minus ours, in milliseconds.
    pub clock_skew_ms: i64,
    /// Why it does not believe the bundle that it was sent; empty when it does.
    pub problem: String,
    /// Which list it says it holds and does not prove; empty when none.
    pub unproven: String,
}

impl Report {
    /// Whether the agent's clock is worth a warning.
    pub(super) fn clock_is_off(&self) -> bool {
        Duration::from_millis(self.clock_skew_ms.unsigned_abs()) > SKEW_WARNING
    }
}

/// Which workloads an agent shall ask about again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Affected {
    /// None.
    #[default]
    Nothing,
    /// These pods.
    Pods(HashSet<String>),
    /// Every one.
    All,
}

impl Affected {
    pub(super) fn add(&mut self, pod_uid: &str) {
        match self {
            Self::All => {}
            Self::Nothing => *self = Self::Pods(HashSet::from([pod_uid.to_owned()])),
            Self::Pods(pods) if pods.len() >= MAX_AFFECTED => *self = Self::All,
            Self::Pods(pods) => {
                pods.insert(pod_uid.to_owned());
            }
        }
    }
}

/// One agent as an admin sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentStatus {
    /// Whether its trust stream is open.
    pub connected: bool,
    /// The key exchange of the connection that carries it, while it is open.
    pub key_exchange: Option<KeyExchange>,
    /// Its last report.
    pub report: Report,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_affected_pods_become_all() {
        let mut affected = Affected::default();
        for pod in 0..=MAX_AFFECTED {
            affected.add(&pod.to_string());
        }
        assert_eq!(affected, Affected::All);
    }
}
