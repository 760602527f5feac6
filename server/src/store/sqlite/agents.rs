//! What happens to node agents, in tables and in the writer's memory.

use std::collections::HashMap;
use std::time::SystemTime;

use rusqlite::{Connection, params};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::convert::millis;
use super::known_agents::{all, clusters};
use super::read::denials;
use super::writer::Tx;
use crate::store::{
    AgentRow, Attestation, Generation, LiveAgent, NewIssuance, Presented, PresentedCertificate,
    RevokeRequest, Standing, Subject,
};

/// Every agent that holds a certificate which counts and is not denied, by SPIFFE ID.
pub(super) fn live(conn: &Connection, now: SystemTime) -> rusqlite::Result<Vec<LiveAgent>> {
    let denials = denials(conn, false, now)?;
    let clusters = if denials.is_empty() {
        HashMap::new()
    } else {
        clusters(conn)?
    };
    let denied = |row: &AgentRow| {
        let subject = Subject {
            cluster_uid: clusters.get(&row.spiffe_id).map_or("", String::as_str),
            node_uid: &row.node_uid,
            node_name: &row.node_name,
            ..Subject::of(&row.spiffe_id)
        };
        denials.iter().any(|denial| denial.target.hits(&subject))
    };
    let live = all(conn)?.into_iter().filter(|row| !denied(row));
    Ok(live.filter_map(|row| row.live(now)).collect())
}

/// Keeps what agents say they hold.
pub(super) fn reported(conn: &Connection, reports: &[(SpiffeId, u64)]) -> rusqlite::Result<()> {
    let mut update =
        conn.prepare_cached("UPDATE agent SET reported = ?2 WHERE spiffe_id = ?1 AND reported <> ?2")?;
    for (agent, sequence) in reports {
        update.execute(params![agent.as_str(), sequence.cast_signed()])?;
    }
    Ok(())
}

/// Notes that a certificate of an agent was recorded: it is the newest.
pub(super) fn attested(
    tx: &mut Tx<'_>,
    item: &NewIssuance,
    attestation: &Attestation,
    authority: i64,
    generation: Generation,
) -> rusqlite::Result<()> {
    let agent = &item.workload.spiffe_id;
    tx.conn
        .prepare_cached(
            "INSERT INTO agent (spiffe_id, cluster, node_name, node_uid, serial, authority, attested_at, expires_at,
                                epoch, generation, pod_uid)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (spiffe_id) DO UPDATE SET
                 cluster = excluded.cluster, node_name = excluded.node_name, node_uid = excluded.node_uid,
                 serial = excluded.serial, authority = excluded.authority, attested_at = excluded.attested_at,
                 expires_at = excluded.expires_at, epoch = excluded.epoch, generation = excluded.generation,
                 pod_uid = CASE excluded.pod_uid WHEN '' THEN pod_uid ELSE excluded.pod_uid END",
        )?
        .execute(params![
            agent.as_str(),
            attestation.cluster,
            item.workload.node_name,
            item.workload.node_uid,
            item.serial.as_bytes(),
            authority,
            millis(attestation.attested_at),
            millis(item.not_after),
            generation.epoch.cast_signed(),
            generation.number.cast_signed(),
            attestation.pod_uid,
        ])?;
    tx.state
        .known_agents
        .attested(item.serial, &item.workload, generation);
    Ok(())
}

/// Judges a certificate, and notes its first use.
pub(super) fn present(
    tx: &mut Tx<'_>,
    certificate: &PresentedCertificate,
    now: SystemTime,
) -> rusqlite::Result<Presented> {
    let PresentedCertificate {
        spiffe_id, serial, ..
    } = certificate;
    let denial = tx
        .state
        .denial_of_agent(spiffe_id, certificate.earliest)
        .map(|denial| denial.id.as_str());
    let (mut standing, generation) = tx.state.known_agents.standing(spiffe_id, serial, denial);
    if standing == Standing::Unknown && is_listed(tx, certificate)? {
        standing = Standing::Revoked;
    }
    let used = tx.state.known_agents.generations(spiffe_id).used;
    let first_use = standing == Standing::Counts && generation > used && certificate.not_after > now;
    if first_use {
        tx.conn
            .prepare_cached("UPDATE agent SET used_epoch = ?2, used_generation = ?3 WHERE spiffe_id = ?1")?
            .execute(params![
                spiffe_id.as_str(),
                generation.epoch.cast_signed(),
                generation.number.cast_signed()
            ])?;
        if let Some(agent) = tx.state.known_agents.agents.get_mut(spiffe_id) {
            agent.used = generation;
        }
    }
    Ok(Presented {
        standing,
        generation,
        supersedes: first_use && used > Generation::default(),
    })
}

/// Whether somebody has revoked a serial that the ledger lacks.
fn is_listed(tx: &Tx<'_>, certificate: &PresentedCertificate) -> rusqlite::Result<bool> {
    let Some(authority) = tx.state.authorities.known(&certificate.authority) else {
        return Ok(false);
    };
    tx.conn
        .prepare_cached("SELECT 1 FROM revocation WHERE authority = ?1 AND serial = ?2")?
        .exists(params![authority, certificate.serial.as_bytes()])
}

/// What a revocation takes from agents, for good: of those that it is aimed at all their certificates, of a certificate that and
/// those before it.
pub(super) fn revoke(
    tx: &mut Tx<'_>,
    request: &RevokeRequest,
    serials: &[SerialNumber],
) -> rusqlite::Result<()> {
    let known = &tx.state.known_agents;
    let mut revoked: HashMap<SpiffeId, Generation> = HashMap::new();
    if let Some(target) = request.target.as_denial() {
        let hit = known
            .agents
            .iter()
            .filter(|(id, _)| target.hits(&known.subject(id)));
        revoked.extend(hit.map(|(id, agent)| (id.clone(), agent.issued)));
    }
    for (agent, generation) in serials.iter().filter_map(|serial| known.certificates.get(serial)) {
        let newest = revoked.entry(agent.clone()).or_default();
        *newest = (*newest).max(*generation);
    }
    for (id, generation) in revoked {
        let Some(agent) = tx.state.known_agents.agents.get_mut(&id) else {
            continue;
        };
        agent.revoked_up_to = agent.revoked_up_to.max(generation);
        tx.conn
            .prepare_cached(
                "UPDATE agent SET revoked_epoch = ?2, revoked_generation = ?3 WHERE spiffe_id = ?1",
            )?
            .execute(params![
                id.as_str(),
                agent.revoked_up_to.epoch.cast_signed(),
                agent.revoked_up_to.number.cast_signed()
            ])?;
    }
    Ok(())
}
