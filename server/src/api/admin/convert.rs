//! Domain types to `signet.admin.v1`.

mod authorities;
mod revoked;

use std::{sync::Arc, time::SystemTime};

use signet_certs::{
    time::{rfc3339, unix_millis},
    tls::KeyExchange,
};
use signet_proto::admin as wire;
use signet_runtime::ready::{Level, Readiness, Standing};
use tonic::Status;

pub(super) use self::authorities::{algorithm, authority, begun, departed, progress, under_way};
pub(super) use self::revoked::revoked;
use crate::{
    agents::AgentStatus,
    attest::ClusterHealth,
    clock::{NotConfirmed, Shown, dates::say},
    publisher::RoomUse,
    put_back::{Lack, Proof},
    store::{AgentRow, Denial, LedgerRow},
    trust::PublishedAuthority,
};

pub(super) fn millis(time: Option<SystemTime>) -> i64 {
    time.map_or(0, unix_millis)
}

pub(super) fn not_ready(readiness: &Readiness) -> Vec<wire::NotReady> {
    let reason = |standing: Standing| wire::NotReady {
        reason: standing.reason.name.to_owned(),
        detail: standing.detail,
        serves: standing.reason.level == Level::Issue,
    };
    readiness.standing(Level::Issue).into_iter().map(reason).collect()
}

pub(super) fn clusters(all: Vec<ClusterHealth>) -> Vec<wire::ClusterStatus> {
    all.into_iter().map(cluster).collect()
}

fn cluster(health: ClusterHealth) -> wire::ClusterStatus {
    wire::ClusterStatus {
        name: health.name,
        uid: health.uid.unwrap_or_default(),
        pods_synced: health.synced,
        pods: health.pods as u64,
        problem: health.problem.unwrap_or_default(),
        unreachable_since_unix_ms: millis(health.unreachable_since),
    }
}

pub(super) fn list_rooms(all: &[RoomUse]) -> Vec<wire::ListRoom> {
    all.iter().map(list_room).collect()
}

pub(super) fn list_proofs(all: &[(Arc<Proof>, Lack)]) -> Vec<wire::ListProof> {
    let proof = |(proof, stands): &(Arc<Proof>, Lack)| wire::ListProof {
        authority_id: proof.stored.authority.to_string(),
        number: proof.stored.number.0,
        own_number: stands.own.0,
        entries: stands.entries as u64,
        missing_serials: stands.missing.iter().map(ToString::to_string).collect(),
        agent_id: proof.stored.agent.to_string(),
        found_unix_ms: unix_millis(proof.stored.found_at),
        der: proof.stored.der.clone(),
    };
    all.iter().map(proof).collect()
}

fn list_room(room: &RoomUse) -> wire::ListRoom {
    wire::ListRoom {
        kind: room.kind.to_string(),
        entries: room.entries as u64,
        capacity: room.capacity as u64,
        waiting: room.waiting as u64,
        alarming: room.is_alarming(),
    }
}

pub(super) fn svid(row: &LedgerRow) -> wire::SvidRecord {
    let workload = &row.workload;
    wire::SvidRecord {
        serial: row.serial.to_string(),
        authority_id: row.authority.to_string(),
        spiffe_id: workload.spiffe_id.to_string(),
        pod_namespace: workload.pod_namespace.clone(),
        pod_name: workload.pod_name.clone(),
        pod_uid: workload.pod_uid.clone(),
        node_name: workload.node_name.clone(),
        node_uid: workload.node_uid.clone(),
        agent_id: workload.agent_id.clone(),
        evidence: row.evidence.to_string(),
        not_before_unix_ms: unix_millis(row.not_before),
        not_after_unix_ms: unix_millis(row.not_after),
        revoked_unix_ms: millis(row.revoked.map(|(at, _)| at)),
        revocation_reason: row
            .revoked
            .map(|(_, reason)| reason.to_string())
            .unwrap_or_default(),
        cluster: workload.cluster_uid.clone(),
    }
}

pub(super) fn denial(denial: &Denial) -> wire::Denial {
    wire::Denial {
        id: denial.id.clone(),
        kind: denial.target.kind().to_owned(),
        target: denial.target.name(),
        author: denial.author.clone(),
        comment: denial.comment.clone(),
        created_unix_ms: unix_millis(denial.created),
        expires_unix_ms: millis(denial.expires),
        lifted_unix_ms: millis(denial.lifted.as_ref().map(|lifted| lifted.at)),
    }
}

pub(super) fn crl(kind: &str, published: &PublishedAuthority) -> wire::Crl {
    let crl = &published.crl;
    let id = published.certificate.id();
    wire::Crl {
        authority_id: id.to_string(),
        kind: kind.to_owned(),
        number: crl.number().0,
        this_update_unix_ms: unix_millis(crl.this_update()),
        next_update_unix_ms: unix_millis(crl.next_update()),
        entries: crl
            .entries()
            .map(|entry| wire::CrlEntry {
                serial: entry.serial.to_string(),
                revoked_unix_ms: unix_millis(entry.revoked_at),
                reason: entry.reason.to_string(),
                invalid_from_unix_ms: millis(entry.invalid_since),
            })
            .collect(),
        der: crl.der().clone(),
        url: format!("/crl/{id}.crl"),
    }
}

pub(super) fn agent(row: &AgentRow, status: Option<AgentStatus>) -> wire::AgentRecord {
    let connected = status.as_ref().is_some_and(|status| status.connected);
    let key_exchange = status.as_ref().and_then(|status| status.key_exchange);
    let report = status.map(|status| status.report).unwrap_or_default();
    wire::AgentRecord {
        spiffe_id: row.spiffe_id.to_string(),
        cluster: row.cluster.clone(),
        node_name: row.node_name.clone(),
        node_uid: row.node_uid.clone(),
        serial: row.serial.to_string(),
        attested_unix_ms: unix_millis(row.attested_at),
        expires_unix_ms: unix_millis(row.expires_at),
        connected,
        key_exchange: key_exchange.map_or("", KeyExchange::name).to_owned(),
        sequence_number: report.sequence,
        clock_skew_ms: report.clock_skew_ms,
        problem: problems([report.problem, report.unproven]),
        pods: u32::try_from(report.pod_uids.len()).unwrap_or(u32::MAX),
    }
}

pub(super) fn key_exchanges(counts: [(KeyExchange, usize); 4]) -> Vec<wire::KeyExchange> {
    let used = counts.into_iter().filter(|(_, agents)| *agents > 0);
    used.map(|(group, agents)| wire::KeyExchange {
        group: group.name().to_owned(),
        agents: u32::try_from(agents).unwrap_or(u32::MAX),
    })
    .collect()
}

fn problems(all: [String; 2]) -> String {
    let said: Vec<_> = all.into_iter().filter(|problem| !problem.is_empty()).collect();
    said.join("; ")
}

pub(super) fn clock(shown: &Shown, mark: Option<SystemTime>) -> wire::Clock {
    let api_servers = shown.api_servers.iter().map(|told| wire::ApiServerClock {
        cluster: told.cluster.clone(),
        date_unix_ms: unix_millis(told.date),
        age_ms: u64::try_from(told.age.as_millis()).unwrap_or(u64::MAX),
    });
    wire::Clock {
        state: shown.state.as_str().to_owned(),
        wall_unix_ms: unix_millis(shown.wall),
        steady_unix_ms: unix_millis(shown.steady),
        mark_unix_ms: mark.map_or(0, unix_millis),
        api_servers: api_servers.collect(),
        reason: shown.reason.clone(),
        contradicted: shown.contradicted,
    }
}

/// Why a time is not confirmed, with the times and whose clock differs.
pub(super) fn not_confirmed(refused: &NotConfirmed, said: SystemTime) -> Status {
    Status::failed_precondition(match refused {
        NotConfirmed::NotThisMachinesTime(machine) => format!(
            "this machine says {}, which is more than a minute off {}: set its clock first",
            rfc3339(machine.wall),
            rfc3339(said)
        ),
        NotConfirmed::Contradicted { wall, told: against } => format!(
            "this machine says {}, but {}: set the clock that is wrong; if it is not this machine's, repeat with --force",
            rfc3339(*wall),
            say(against)
        ),
    })
}
