//! Domain types to `signet.explain.v1`.

use std::time::SystemTime;

use signet_certs::id::TrustDomain;
use signet_certs::time::unix_millis;
use signet_proto::explain as wire;
use signet_runtime::clock::Clock as _;

use crate::cache::{SlotStatus, UnixFacts};
use crate::context::AttachError;
use crate::manager::Account;
use crate::node::NodeState;
use crate::server_client::sync::Connection;
use crate::server_client::trust::{HeldAuthority, TrustState};
use crate::time::AgentTime;

fn millis(time: Option<SystemTime>) -> i64 {
    time.map_or(0, unix_millis)
}

pub(super) fn server(node: &NodeState, connection: Connection, outage: Option<SystemTime>) -> wire::Server {
    // Which kind of reason: addresses and the server's own words are the administrator's (`signet-agent status`).
    let problem = match (node.problem.is_empty(), connection.problem.is_empty()) {
        (false, _) => "the agent has no certificate of its own",
        (true, false) => "the agent has no connection to the server",
        (true, true) => "",
    };
    wire::Server {
        connected: connection.connected,
        since_unix_ms: unix_millis(connection.since),
        problem: problem.to_owned(),
        agent_expires_unix_ms: millis(node.identity.as_ref().map(|identity| identity.not_after)),
        cluster_unreachable_since_unix_ms: millis(outage),
        not_issuing: connection.not_issuing,
    }
}

/// All but how the agent stands with its server.
pub(super) fn answer(
    trust_domain: &TrustDomain,
    time: &AgentTime,
    account: Result<Account, (Account, AttachError)>,
    trust: Option<&TrustState>,
) -> wire::WhyResponse {
    let (account, problem) = match account {
        Ok(account) => (account, String::new()),
        Err((account, error)) => (account, error.to_string()),
    };
    wire::WhyResponse {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        trust_domain: trust_domain.as_str().to_owned(),
        now_unix_ms: unix_millis(time.now()),
        clock_problem: time.problem(),
        answer: Some(wire::Answer {
            state: account.state.to_owned(),
            message: account.message,
            streams: u32::try_from(account.streams).unwrap_or(u32::MAX),
        }),
        svids: account.slots.into_iter().filter_map(svid).collect(),
        caller: Some(wire::Caller {
            kind: account.kind.to_owned(),
            pod: account.pod,
            pod_uid: account.pod_uid,
            process: account.process.map(process),
            problem,
            token_expires_unix_ms: millis(account.token_ends),
        }),
        server: None,
        authorities: trust
            .map(|trust| trust.x509.iter().map(authority).collect())
            .unwrap_or_default(),
        sequence_number: trust.map_or(0, |trust| trust.bundle.sequence_number),
    }
}

fn process(facts: UnixFacts) -> wire::Process {
    wire::Process {
        uid: facts.uid,
        gid: facts.gid,
        path: facts.path.unwrap_or_default(),
        sha256: facts.sha256.map(hex::encode).unwrap_or_default(),
    }
}

fn svid(slot: SlotStatus) -> Option<wire::Svid> {
    let planned = slot.planned();
    let leaf = slot.leaf?;
    Some(wire::Svid {
        spiffe_id: leaf.svid.spiffe_id,
        serial: leaf.serial.to_string(),
        not_before_unix_ms: unix_millis(leaf.svid.not_before),
        not_after_unix_ms: unix_millis(leaf.svid.not_after),
        renew_unix_ms: millis(planned),
        problem: slot.problem.unwrap_or_default(),
    })
}

fn authority(held: &HeldAuthority) -> wire::Authority {
    let crl = held.crl.as_ref();
    wire::Authority {
        authority_id: held.certificate.id().to_string(),
        not_after_unix_ms: unix_millis(held.certificate.not_after()),
        crl_number: crl.map_or(0, |crl| crl.number().0),
        crl_next_update_unix_ms: crl.map_or(0, |crl| unix_millis(crl.next_update())),
        crl_entries: crl.map_or(0, |crl| crl.entry_count() as u64),
    }
}
