//! Node agents as the writer has them in memory, and as their table has them.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Row};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::convert::{authority_at, number_at, serial_at, time_at};
use super::read::spiffe_id_at;
use crate::store::{AgentRow, Generation, Generations, Standing};

/// Agents, and those of their certificates that are in the ledger.
#[derive(Default)]
pub(super) struct KnownAgents {
    pub(super) agents: HashMap<SpiffeId, Generations>,
    pub(super) certificates: HashMap<SerialNumber, (SpiffeId, Generation)>,
}

impl KnownAgents {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut known = Self::default();
        for row in all(conn)? {
            known.agents.insert(row.spiffe_id, row.generations);
        }
        let mut statement = conn.prepare(
            "SELECT l.serial, l.epoch, l.generation, w.spiffe_id
             FROM ledger l JOIN workload w ON w.id = l.workload WHERE l.generation IS NOT NULL",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let generation = Generation {
                epoch: number_at(row, 1)?,
                number: number_at(row, 2)?,
            };
            known
                .certificates
                .insert(serial_at(row, 0)?, (spiffe_id_at(row, 3)?, generation));
        }
        Ok(known)
    }

    /// Whose certificate this is, if it is an agent's.
    pub(super) fn owner(&self, serial: &SerialNumber) -> Option<&SpiffeId> {
        self.certificates.get(serial).map(|(agent, _)| agent)
    }

    /// What a certificate is worth that says it is `agent`'s, and its place among them.
    pub(super) fn standing(
        &self,
        agent: &SpiffeId,
        serial: &SerialNumber,
        denied: Option<&str>,
    ) -> (Standing, Generation) {
        let of_agent = self.certificates.get(serial).filter(|(owner, _)| owner == agent);
        let generation = of_agent.map(|(_, generation)| *generation);
        let standing = self.generations(agent).standing(generation, denied);
        (standing, generation.unwrap_or_default())
    }

    /// The generation of an agent's next certificate.
    pub(super) fn next(&self, agent: &SpiffeId, epoch: u64) -> Generation {
        self.generations(agent).with_another(epoch).issued
    }

    /// What decides which certificates of an agent count.
    pub(super) fn generations(&self, agent: &SpiffeId) -> Generations {
        self.agents.get(agent).copied().unwrap_or_default()
    }

    /// Forgets a certificate whose row is gone.
    pub(super) fn forget_certificate(&mut self, serial: &SerialNumber) {
        self.certificates.remove(serial);
    }
}

const AGENTS: &str = "
    SELECT g.spiffe_id, g.cluster, g.node_name, g.node_uid, g.serial, a.authority_id, g.attested_at, g.expires_at,
           g.epoch, g.generation, g.used_epoch, g.used_generation, g.revoked_epoch, g.revoked_generation, g.pod_uid,
           g.reported
    FROM agent g JOIN authority a ON a.id = g.authority";

/// Every agent, by SPIFFE ID.
pub(super) fn all(conn: &Connection) -> rusqlite::Result<Vec<AgentRow>> {
    let mut statement = conn.prepare_cached(&format!("{AGENTS} ORDER BY g.spiffe_id"))?;
    let rows = statement.query_map([], agent_from)?;
    rows.collect()
}

/// The agent of this name.
pub(super) fn one(conn: &Connection, agent: &SpiffeId) -> rusqlite::Result<Option<AgentRow>> {
    conn.prepare_cached(&format!("{AGENTS} WHERE g.spiffe_id = ?1"))?
        .query_row([agent.as_str()], agent_from)
        .optional()
}

fn agent_from(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    let generation = |epoch, number| {
        Ok::<_, rusqlite::Error>(Generation {
            epoch: number_at(row, epoch)?,
            number: number_at(row, number)?,
        })
    };
    Ok(AgentRow {
        spiffe_id: spiffe_id_at(row, 0)?,
        cluster: row.get(1)?,
        node_name: row.get(2)?,
        node_uid: row.get(3)?,
        serial: serial_at(row, 4)?,
        authority: authority_at(row, 5)?,
        attested_at: time_at(row, 6)?,
        expires_at: time_at(row, 7)?,
        pod_uid: row.get(14)?,
        reported: number_at(row, 15)?,
        generations: Generations {
            issued: generation(8, 9)?,
            used: generation(10, 11)?,
            revoked_up_to: generation(12, 13)?,
        },
    })
}
