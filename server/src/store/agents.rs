//! Node agents: what is known of each, and what a certificate of one is worth (design §4). The verdict is pure; adapters
//! keep what it is made of.

use std::fmt;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::StoreFuture;

/// What a store keeps of node agents. They come into it with the first certificate that
/// [`Ledger::issue`](super::Ledger::issue) records for one.
pub(crate) trait AttestedAgents: Send + Sync {
    /// Judges a certificate that an agent presents. Where it is newer than what the agent has used before, that is durable
    /// when this returns, and from then on what is older counts no more. A certificate that has expired is judged, and uses
    /// nothing.
    fn present(&self, certificate: PresentedCertificate, now: SystemTime) -> StoreFuture<'_, Presented>;

    /// The agents that hold a certificate which is neither expired nor revoked and are not denied, connected or not, by SPIFFE
    /// ID.
    fn live_agents(&self, now: SystemTime) -> StoreFuture<'_, Vec<LiveAgent>>;

    /// Keeps, for each of these agents, the sequence of the bundle that it says it holds: all in one transaction. Agents that are
    /// not known are passed over.
    fn record_reports(&self, reports: Vec<(SpiffeId, u64)>) -> StoreFuture<'_, ()>;

    /// The agent of this name, as [`agents`](Self::agents) has it.
    fn agent(&self, agent: &SpiffeId) -> StoreFuture<'_, Option<AgentRow>>;

    /// Every agent whose newest certificate has not been expired for more than eight days, by SPIFFE ID.
    fn agents(&self) -> StoreFuture<'_, Vec<AgentRow>>;
}

/// A node agent as last attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentRow {
    /// `spiffe://<td>/signet/agent/<cluster>/<node-uid>`.
    pub spiffe_id: SpiffeId,
    /// Name of the cluster in the configuration.
    pub cluster: String,
    /// The node's name in its cluster.
    pub node_name: String,
    /// The node's UID in its cluster.
    pub node_uid: String,
    /// Serial of the agent's newest certificate.
    pub serial: SerialNumber,
    /// Authority that signed it.
    pub authority: AuthorityId,
    /// When the node was last attested.
    pub attested_at: SystemTime,
    /// When the newest certificate expires.
    pub expires_at: SystemTime,
    /// UID of the pod that it attested by.
    pub pod_uid: String,
    /// Sequence of the bundle that it said it holds; 0 before its first report.
    pub reported: u64,
    /// Which of its certificates count.
    pub generations: Generations,
}

impl AgentRow {
    /// As one that is waited for before an authority signs; `None` where it holds no certificate that counts.
    pub(super) fn live(self, now: SystemTime) -> Option<LiveAgent> {
        let counts = self.expires_at > now && self.generations.issued > self.generations.revoked_up_to;
        counts.then_some(LiveAgent {
            spiffe_id: self.spiffe_id,
            cluster: self.cluster,
            pod_uid: self.pod_uid,
            attested_at: self.attested_at,
            reported: self.reported,
            authority: (self.generations.used == self.generations.issued).then_some(self.authority),
        })
    }
}

/// An agent that holds a certificate which counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveAgent {
    /// Who.
    pub spiffe_id: SpiffeId,
    /// Name of its cluster in the configuration.
    pub cluster: String,
    /// UID of its pod; empty where none is known.
    pub pod_uid: String,
    /// When its node was last attested.
    pub attested_at: SystemTime,
    /// Sequence of the bundle that it said it holds; 0 before its first report.
    pub reported: u64,
    /// Who signed the certificate that it uses; nothing while that is not the newest that it was given.
    pub authority: Option<AuthorityId>,
}

/// What the ledger is told of an agent beside its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attestation {
    /// Name of the cluster in the configuration.
    pub cluster: String,
    /// When the node was last attested.
    pub attested_at: SystemTime,
    /// UID of the agent's pod; empty where the certificate alone stood in.
    pub pod_uid: String,
}

/// The place of a certificate among those of its agent: the store's epoch, then a number that its row counts. Clocks have no
/// part in it. The least one is that of no certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation {
    /// The store's epoch when it was issued.
    pub epoch: u64,
    /// Grows with every certificate of the agent.
    pub number: u64,
}

/// What decides which certificates of an agent count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generations {
    /// The newest that was issued.
    pub issued: Generation,
    /// The newest that was used.
    pub used: Generation,
    /// This one and all before it are revoked, whatever becomes of their entries on a list.
    pub revoked_up_to: Generation,
}

impl Generations {
    /// These, with another certificate issued.
    pub(super) fn with_another(self, epoch: u64) -> Self {
        let issued = Generation {
            epoch,
            number: self.issued.number + 1,
        };
        Self { issued, ..self }
    }

    /// What a certificate is worth: `None` for one of which there is no row. `denied` is the denial in force against the agent.
    pub(super) fn standing(&self, certificate: Option<Generation>, denied: Option<&str>) -> Standing {
        let was_revoked = self.revoked_up_to > Generation::default();
        if let Some(denial) = denied {
            return Standing::Denied(denial.to_owned());
        }
        match certificate {
            // Its row is gone, so nobody can say any more that it is not among the revoked ones.
            None if was_revoked => Standing::Revoked,
            None => Standing::Unknown,
            Some(generation) if generation <= self.revoked_up_to => Standing::Revoked,
            Some(generation) if generation < self.used => Standing::Superseded,
            Some(_) => Standing::Counts,
        }
    }
}

/// A certificate as it was presented, verified but for what a store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PresentedCertificate {
    /// Whose.
    pub spiffe_id: SpiffeId,
    /// Who signed it.
    pub authority: AuthorityId,
    /// Its serial.
    pub serial: SerialNumber,
    /// Its end.
    pub not_after: SystemTime,
    /// The earliest time it may be: by this, a denial of its agent ends.
    pub earliest: SystemTime,
}

/// What became of a certificate that was presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Presented {
    /// What it is worth.
    pub standing: Standing,
    /// Its place among those of its agent.
    pub generation: Generation,
    /// It was used for the first time, and another one counts no more for it.
    pub supersedes: bool,
}

/// What an agent's certificate is worth, its end aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the newest that is used, or newer.
    Counts,
    /// A newer one of the agent is in use.
    Superseded,
    /// It is revoked.
    Revoked,
    /// Its agent is denied: by the denial with this id.
    Denied(String),
    /// The ledger lacks it: an older store was restored, or it is long over.
    Unknown,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counts => f.write_str("nothing is wrong with it"),
            Self::Superseded => f.write_str("a newer certificate of this agent is in use"),
            Self::Revoked => f.write_str("it is revoked"),
            Self::Denied(denial) => write!(f, "the agent is denied by {denial}"),
            Self::Unknown => f.write_str("this server has no record of it: attest the node again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn generation() -> impl Strategy<Value = Generation> {
        (1..3u64, 1..6u64).prop_map(|(epoch, number)| Generation { epoch, number })
    }

    proptest! {
        /// Nothing gives a certificate back what it has lost: neither use, nor a revocation, nor a new certificate.
        #[test]
        fn a_certificate_only_ever_loses(one in generation(), used in generation(), revoked_up_to in generation()) {
            let before = Generations { issued: used, used, revoked_up_to };
            let after = before.with_another(2);
            let standing = |generations: Generations| generations.standing(Some(one), None);
            prop_assert_eq!(standing(before), standing(after));
            prop_assert_eq!(after.issued.number, used.number + 1);
            let used_later = Generations { used: after.issued.max(used), ..after };
            if standing(before) != Standing::Counts {
                prop_assert_ne!(standing(used_later), Standing::Counts);
            }
            let counts = one > revoked_up_to && one >= used;
            prop_assert_eq!(standing(before) == Standing::Counts, counts);
        }
    }

    #[test]
    fn a_certificate_without_a_row_is_unknown_and_refused_where_the_agent_had_one_revoked() {
        let first = Generation { epoch: 1, number: 1 };
        let mut agent = Generations {
            issued: first,
            used: first,
            ..Generations::default()
        };
        assert_eq!(agent.standing(None, None), Standing::Unknown);
        agent.revoked_up_to = first;
        assert_eq!(agent.standing(None, None), Standing::Revoked);
        assert_eq!(
            Generations::default().standing(None, Some("d1-1")),
            Standing::Denied("d1-1".to_owned())
        );
    }

    #[test]
    fn a_restored_store_counts_on_in_its_epoch() {
        let before = Generations {
            issued: Generation { epoch: 1, number: 9 },
            ..Generations::default()
        };
        let restored = Generations::default().with_another(2);
        assert!(restored.issued > before.issued);
    }
}
