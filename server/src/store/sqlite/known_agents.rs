//! Node agents as the writer has them in memory, and as their table has them.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Row};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::convert::{authority_at, number_at, serial_at, time_at};
use super::read::spiffe_id_at;
use crate::store::{AgentRow, Generation, Generations, Named, Standing, Subject, WorkloadRef};

/// Agents, and those of their certificates that are in the ledger.
#[derive(Default)]
pub(super) struct KnownAgents {
    pub(super) agents: HashMap<SpiffeId, Generations>,
    pub(super) certificates: HashMap<SerialNumber, (SpiffeId, Generation)>,
    /// Where each agent of which there is a row is.
    nodes: HashMap<SpiffeId, Named>,
}

impl KnownAgents {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut known = Self::default();
        for row in all(conn)? {
            known.agents.insert(row.spiffe_id, row.generations);
        }
        let mut statement = conn.prepare(
            "SELECT l.serial, l.epoch, l.generation, w.spiffe_id, w.cluster_uid, w.node_uid, w.node_name
             FROM ledger l JOIN workload w ON w.id = l.workload WHERE l.generation IS NOT NULL ORDER BY l.serial",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let generation = Generation {
                epoch: number_at(row, 1)?,
                number: number_at(row, 2)?,
            };
            let agent = spiffe_id_at(row, 3)?;
            let node = Named {
                cluster_uid: row.get(4)?,
                uid: row.get(5)?,
                name: row.get(6)?,
            };
            known
                .certificates
                .insert(serial_at(row, 0)?, (agent.clone(), generation));
            known.nodes.insert(agent, node);
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

    /// Notes that a certificate of an agent was recorded: it is the newest.
    pub(super) fn attested(&mut self, serial: SerialNumber, workload: &WorkloadRef, generation: Generation) {
        let agent = &workload.spiffe_id;
        self.agents.entry(agent.clone()).or_default().issued = generation;
        self.certificates.insert(serial, (agent.clone(), generation));
        let node = Named {
            cluster_uid: workload.cluster_uid.clone(),
            uid: workload.node_uid.clone(),
            name: workload.node_name.clone(),
        };
        self.nodes.insert(agent.clone(), node);
    }

    /// An agent as denials hit it: by its name, or by its node.
    pub(super) fn subject<'a>(&'a self, agent: &'a SpiffeId) -> Subject<'a> {
        let bare = Subject::of_agent(agent);
        self.nodes.get(agent).map_or(bare, |node| Subject {
            cluster_uid: &node.cluster_uid,
            node_uid: &node.uid,
            node_name: &node.name,
            ..bare
        })
    }

    /// Forgets an agent.
    pub(super) fn forget(&mut self, agent: &SpiffeId) {
        self.agents.remove(agent);
        self.nodes.remove(agent);
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

/// UID of the cluster of each agent, by the row of its newest certificate.
pub(super) fn clusters(conn: &Connection) -> rusqlite::Result<HashMap<SpiffeId, String>> {
    let mut statement = conn.prepare_cached(
        "SELECT g.spiffe_id, w.cluster_uid FROM agent g
         JOIN ledger l ON l.serial = g.serial JOIN workload w ON w.id = l.workload",
    )?;
    let rows = statement.query_map([], |row| Ok((spiffe_id_at(row, 0)?, row.get(1)?)))?;
    rows.collect()
}
