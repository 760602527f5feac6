//! What was issued while a cluster was away is looked at again when it is back: whose pod or node is gone is revoked, of all
//! others the mark goes. The marks are in the ledger, so a restart forgets none.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use signet_certs::serial::SerialNumber;
use signet_runtime::drain::Drain;
use tokio::time::interval;

use crate::{
    attest::{Attestor, Place},
    store::{LedgerRow, StoreError},
    unasked::Unasked,
};

/// How often it is looked whether something waits and its cluster is back.
const LOOK: Duration = Duration::from_secs(5);
/// Rows in one slice: between two of them everybody else gets at the store.
const SLICE: usize = 128;

/// Reviews what rests on an outage.
pub(crate) struct LateReview {
    /// Revokes; its store has the marks.
    pub unasked: Unasked,
    /// Says what is there.
    pub attestor: Arc<dyn Attestor>,
}

/// What became of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    /// Still there, or over by itself.
    kept: usize,
    revoked: usize,
}

impl LateReview {
    /// Looks whenever a cluster is back; ends with the drain.
    pub(crate) async fn run(self, drain: Drain) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = drain.signalled() => return,
                _ = look.tick() => {}
            }
            if self.is_everything_away() {
                continue;
            }
            let round = tokio::select! {
                () = drain.signalled() => return,
                round = self.round() => round,
            };
            match round {
                Ok(Round { kept: 0, revoked: 0 }) => {}
                Ok(Round { kept, revoked }) => {
                    tracing::info!(
                        kept,
                        revoked,
                        "what was issued while a cluster was away is reviewed"
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "what was issued while a cluster was away waits for its review");
                }
            }
        }
    }

    fn is_everything_away(&self) -> bool {
        let clusters = self.attestor.clusters();
        clusters.iter().all(|cluster| cluster.unreachable_since.is_some())
    }

    /// Everything that waits, once, slice by slice. What nobody can tell of yet goes on waiting.
    async fn round(&self) -> Result<Round, StoreError> {
        let (mut round, mut after) = (Round::default(), None);
        loop {
            let rows = self.unasked.store.unreviewed(after, SLICE).await?;
            let Some(last) = rows.last() else { return Ok(round) };
            after = Some(last.serial);
            let done = self.slice(&rows, &mut round).await?;
            if !done.is_empty() {
                self.unasked.store.reviewed(done).await?;
            }
        }
    }

    /// The serials of which the mark may go. Whoever is gone is revoked first: after a crash in between it is so again.
    async fn slice(&self, rows: &[LedgerRow], round: &mut Round) -> Result<Vec<SerialNumber>, StoreError> {
        let earliest = self.unasked.clock.time().earliest;
        let mut done = Vec::with_capacity(rows.len());
        for row in rows {
            let is_over = row.not_after <= earliest || row.revoked.is_some();
            match if is_over {
                Some(true)
            } else {
                self.is_there(row).await?
            } {
                None => continue,
                Some(true) => round.kept += 1,
                Some(false) => {
                    self.revoke(row).await?;
                    round.revoked += 1;
                }
            }
            done.push(row.serial);
        }
        Ok(done)
    }

    /// An agent is gone with its node, and with the pod that it attested by as long as no other one took its place.
    async fn is_there(&self, row: &LedgerRow) -> Result<Option<bool>, StoreError> {
        let place = Place {
            cluster_uid: &row.workload.cluster_uid,
            pod_uid: &row.workload.pod_uid,
            node_name: &row.workload.node_name,
            node_uid: &row.workload.node_uid,
        };
        match self.attestor.is_there(place).await {
            Some(true) => Ok(Some(!self.lost_its_pod(row).await?)),
            gone_or_unknown => Ok(gone_or_unknown),
        }
    }

    /// Whether this is an agent's newest certificate, and the pod is gone that it attested by. Its row is read for that, once everything else
    /// is known: another pod of its node may have taken over meanwhile.
    async fn lost_its_pod(&self, row: &LedgerRow) -> Result<bool, StoreError> {
        if !row.workload.pod_uid.is_empty() {
            return Ok(false);
        }
        let agent = self.unasked.store.agent(&row.workload.spiffe_id).await?;
        Ok(agent.is_some_and(|agent| {
            agent.serial == row.serial
                && !agent.pod_uid.is_empty()
                && self.attestor.is_pod_gone(&agent.cluster, &agent.pod_uid)
        }))
    }

    async fn revoke(&self, row: &LedgerRow) -> Result<(), StoreError> {
        let what = if row.workload.pod_uid.is_empty() {
            "node"
        } else {
            "pod"
        };
        let comment = format!("issued while the API server was away; when it was back, the {what} was gone");
        self.unasked.revoke(row, comment).await
    }
}
