//! The small numbers that stand for workloads in the ledger.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::fingerprint::{ByFingerprint, Fingerprint, Fingerprints};
use super::live::{Live, Slot};
use super::read::workload_from;
use crate::store::WorkloadRef;

/// All workloads that the ledger mentions, by fingerprint and by number.
pub(super) struct Workloads {
    fingerprints: Fingerprints,
    rows: HashMap<Fingerprint, Workload, ByFingerprint>,
    uses: HashMap<i64, Use>,
}

/// A workload that has a number.
#[derive(Clone, Copy)]
pub(super) struct Workload {
    /// Its number.
    pub(super) row: i64,
    /// Whose budget it uses.
    pub(super) slot: Slot,
}

struct Use {
    fingerprint: Fingerprint,
    slot: Slot,
    /// Rows of the ledger.
    rows: u64,
}

impl Workloads {
    pub(super) fn load(
        conn: &Connection,
        fingerprints: Fingerprints,
        live: &mut Live,
    ) -> rusqlite::Result<Self> {
        let mut workloads = Self {
            fingerprints,
            rows: HashMap::default(),
            uses: HashMap::new(),
        };
        let mut statement = conn.prepare(
            "SELECT id, cluster_uid, spiffe_id, pod_namespace, pod_name, pod_uid, node_name, node_uid, agent_id, process
             FROM workload",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let workload = workload_from(row, 1)?;
            workloads.insert(row.get(0)?, fingerprints.of(&workload), &workload, live);
        }
        Ok(workloads)
    }

    fn insert(
        &mut self,
        row: i64,
        fingerprint: Fingerprint,
        workload: &WorkloadRef,
        live: &mut Live,
    ) -> Workload {
        let slot = live.join(self.fingerprints.of_budget(workload), &workload.spiffe_id);
        let known = Workload { row, slot };
        self.rows.insert(fingerprint, known);
        self.uses.insert(
            row,
            Use {
                fingerprint,
                slot,
                rows: 0,
            },
        );
        known
    }

    /// The workload with this fingerprint.
    pub(super) fn known(&self, fingerprint: &Fingerprint) -> Option<Workload> {
        self.rows.get(fingerprint).copied()
    }

    /// Whose budget a workload uses that may have no number yet.
    pub(super) fn slot(
        &self,
        fingerprint: &Fingerprint,
        workload: &WorkloadRef,
        live: &Live,
    ) -> Option<Slot> {
        match self.known(fingerprint) {
            Some(known) => Some(known.slot),
            None => live.slot(&self.fingerprints.of_budget(workload)),
        }
    }

    /// Notes one more row of the ledger for the workload with this number. Returns whose budget it uses.
    pub(super) fn count_row(&mut self, row: i64) -> Option<Slot> {
        let usage = self.uses.get_mut(&row)?;
        usage.rows += 1;
        Some(usage.slot)
    }

    /// Whose budget the workload with this number uses.
    pub(super) fn slot_of_row(&self, row: i64) -> Option<Slot> {
        self.uses.get(&row).map(|usage| usage.slot)
    }

    /// Gives a workload its number.
    pub(super) fn create(
        &mut self,
        conn: &Connection,
        fingerprint: Fingerprint,
        workload: &WorkloadRef,
        live: &mut Live,
    ) -> rusqlite::Result<Workload> {
        conn.prepare_cached(
            "INSERT INTO workload (cluster_uid, spiffe_id, pod_namespace, pod_name, pod_uid, node_name, node_uid,
                                   agent_id, process) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            workload.cluster_uid,
            workload.spiffe_id.as_str(),
            workload.pod_namespace,
            workload.pod_name,
            workload.pod_uid,
            workload.node_name,
            workload.node_uid,
            workload.agent_id,
            workload.process,
        ])?;
        Ok(self.insert(conn.last_insert_rowid(), fingerprint, workload, live))
    }

    /// Notes that a row of the ledger is gone; the last one takes the workload with it.
    pub(super) fn release(&mut self, conn: &Connection, row: i64, live: &mut Live) -> rusqlite::Result<()> {
        let Some(usage) = self.uses.get_mut(&row) else {
            return Ok(());
        };
        usage.rows = usage.rows.saturating_sub(1);
        if usage.rows == 0 {
            conn.prepare_cached("DELETE FROM workload WHERE id = ?1")?
                .execute([row])?;
            self.rows.remove(&usage.fingerprint);
            live.leave(usage.slot);
            self.uses.remove(&row);
        }
        Ok(())
    }
}
