//! Tables for people, from fixed answers, compared with files that people have read: server/tests/golden.

use signet_testkit::golden;

use super::*;

/// 2026-11-21T08:00:00Z, and so many minutes.
fn at(minutes: i64) -> i64 {
    1_795_248_000_000 + minutes * 60_000
}

fn is_as_read(name: &str, answer: &Answer) {
    golden(env!("CARGO_MANIFEST_DIR"), name, &answer.text);
}

fn some_authorities() -> Vec<wire::Authority> {
    let authority = |id: &str, kind: &str, state: &str, next: &str| wire::Authority {
        authority_id: id.repeat(20),
        kind: kind.to_owned(),
        state: state.to_owned(),
        not_before_unix_ms: at(0),
        not_after_unix_ms: at(7 * 24 * 60),
        live_svids: 12,
        crl_number: 3,
        algorithm: if state == "old" { "p256" } else { "p384" }.to_owned(),
        next: next.to_owned(),
        next_unix_ms: if next.is_empty() { 0 } else { at(5 * 24 * 60) },
        ..wire::Authority::default()
    };
    vec![
        authority("a1", "x509", "active", "prepare"),
        authority("b2", "x509", "old", ""),
        authority("c3", "control", "prepared", "activate"),
    ]
}

#[test]
fn authorities_are_as_people_have_read_them() {
    is_as_read("ca_show", &authorities(&some_authorities()));
    is_as_read("ca_show_none", &authorities(&[]));
}

fn retiring() -> wire::AuthorityProgress {
    let straggler = |node: &str, why: &str| wire::Straggler {
        spiffe_id: format!("spiffe://example.org/signet/agent/dev/{node}"),
        node_name: node.to_owned(),
        why: why.to_owned(),
        ..wire::Straggler::default()
    };
    wire::AuthorityProgress {
        step: "draining".to_owned(),
        authority_id: "a1".repeat(20),
        old_authority_id: "b2".repeat(20),
        agents: 30,
        agents_reported: 6,
        operation_id: "x509-3".to_owned(),
        recorded: true,
        awaited: vec![
            straggler("node-a", "is not connected"),
            straggler("", "has not reported yet"),
        ],
        awaited_total: 24,
        verb: "retire".to_owned(),
        kind: "x509".to_owned(),
        author: "uid:0".to_owned(),
        begun_unix_ms: at(100),
        ..wire::AuthorityProgress::default()
    }
}

/// One that has ended.
fn forced() -> wire::AuthorityProgress {
    wire::AuthorityProgress {
        step: "activated".to_owned(),
        agents_reported: 29,
        operation_id: "x509-2".to_owned(),
        done: true,
        awaited: Vec::new(),
        awaited_total: 0,
        verb: "rotate".to_owned(),
        begun_unix_ms: at(60),
        ended_unix_ms: at(61),
        ..retiring()
    }
}

#[test]
fn the_story_of_each_authority_is_as_people_have_read_it() {
    let turn = |state: &str, minutes: i64| wire::AuthorityTurn {
        state: state.to_owned(),
        at_unix_ms: at(minutes),
    };
    let mut all = some_authorities();
    all[0].history = vec![turn("prepared", 0), turn("active", 61)];
    all[2].history = vec![turn("prepared", 119)];
    all[2].next_unix_ms = at(100);
    let departed = wire::DepartedAuthority {
        authority_id: "d4".repeat(20),
        kind: "x509".to_owned(),
        left_unix_ms: at(90),
        how: "revoked".to_owned(),
        author: "uid:0".to_owned(),
        forced: false,
        has_key: true,
    };
    let shown = wire::ShowAuthoritiesResponse {
        anchors: String::new(),
        authorities: all,
        departed: vec![departed],
        operations: vec![retiring(), forced()],
        now_unix_ms: at(120),
    };
    let answer = shown_authorities(&shown);
    is_as_read("ca_show_story", &answer);
    let text = serde_json::to_string_pretty(&answer.json).unwrap() + "\n";
    golden(env!("CARGO_MANIFEST_DIR"), "ca_show_story_json", &text);
    // The keys that programs read.
    let rotated = wire::AuthorityProgress {
        step: "activated".to_owned(),
        done: true,
        awaited: Vec::new(),
        awaited_total: 0,
        verb: "rotate".to_owned(),
        ..retiring()
    };
    let answer = ordered(&rotated).unwrap();
    let text = serde_json::to_string_pretty(&answer.json).unwrap() + "\n";
    golden(env!("CARGO_MANIFEST_DIR"), "ca_rotate_json", &text);
    let superseded = wire::AuthorityProgress {
        step: "superseded".to_owned(),
        ..rotated
    };
    assert!(ordered(&superseded).is_err(), "something else came of it");
}

#[test]
fn certificates_are_as_people_have_read_them() {
    let front = wire::SvidRecord {
        serial: "0101a203dda02c".to_owned(),
        spiffe_id: "spiffe://example.org/ns/shop/sa/front".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: "front-0".to_owned(),
        node_name: "node-a".to_owned(),
        not_after_unix_ms: at(60),
        ..wire::SvidRecord::default()
    };
    let server = wire::SvidRecord {
        serial: "0101a203dda02d".to_owned(),
        spiffe_id: "spiffe://example.org/signet/server".to_owned(),
        not_after_unix_ms: at(240),
        revoked_unix_ms: at(9),
        revocation_reason: "keyCompromise".to_owned(),
        ..wire::SvidRecord::default()
    };
    let list = wire::ListSvidsResponse {
        svids: vec![front, server],
        truncated: true,
    };
    is_as_read("svid_list", &svids(&list));
    is_as_read("svid_list_none", &svids(&wire::ListSvidsResponse::default()));
}

#[test]
fn denials_are_as_people_have_read_them() {
    let denial = wire::Denial {
        id: "d1-1".to_owned(),
        kind: "spiffe-id".to_owned(),
        target: "spiffe://example.org/ns/shop/sa/front".to_owned(),
        author: "uid:0".to_owned(),
        comment: "laptop stolen".to_owned(),
        created_unix_ms: at(1),
        ..wire::Denial::default()
    };
    let lifted = wire::Denial {
        id: "d1-2".to_owned(),
        comment: String::new(),
        expires_unix_ms: at(90),
        lifted_unix_ms: at(30),
        ..denial.clone()
    };
    is_as_read("denials", &denials(&[denial, lifted]));
    is_as_read("denials_none", &denials(&[]));
}

#[test]
fn lists_are_as_people_have_read_them() {
    let entry = wire::CrlEntry {
        serial: "0101a203dda02c".to_owned(),
        revoked_unix_ms: at(1),
        reason: "keyCompromise".to_owned(),
        ..wire::CrlEntry::default()
    };
    let crl = wire::Crl {
        authority_id: "a1".repeat(20),
        kind: "x509".to_owned(),
        number: 7,
        this_update_unix_ms: at(1),
        next_update_unix_ms: at(61),
        entries: vec![entry],
        ..wire::Crl::default()
    };
    is_as_read("crl_show", &crls(&[crl]));
    is_as_read("crl_show_none", &crls(&[]));
}

#[test]
fn agents_are_as_people_have_read_them() {
    let agent = wire::AgentRecord {
        spiffe_id: "spiffe://example.org/signet/agent/default/5e1f".to_owned(),
        node_name: "node-a".to_owned(),
        connected: true,
        attested_unix_ms: at(0),
        expires_unix_ms: at(240),
        sequence_number: 4,
        clock_skew_ms: -12,
        pods: 3,
        key_exchange: "X25519MLKEM768".to_owned(),
        ..wire::AgentRecord::default()
    };
    let away = wire::AgentRecord {
        connected: false,
        key_exchange: String::new(),
        node_name: "node-b".to_owned(),
        problem: "reports list 9 of another authority".to_owned(),
        ..agent.clone()
    };
    is_as_read("agent_list", &agents(&[agent, away]));
    is_as_read("agent_list_none", &agents(&[]));
}

#[test]
fn clocks_are_as_people_have_read_them() {
    let server = wire::ApiServerClock {
        cluster: "default".to_owned(),
        date_unix_ms: at(120),
        age_ms: 3_000,
    };
    let parted = wire::Clock {
        state: "steady".to_owned(),
        wall_unix_ms: at(120),
        steady_unix_ms: at(0),
        reason: "the machine's clock is 2 h ahead".to_owned(),
        api_servers: vec![server],
        ..wire::Clock::default()
    };
    is_as_read("clock_show", &clock(&parted));
}

#[test]
fn the_status_is_as_people_have_read_it() {
    let well = wire::StatusResponse {
        trust_domain: "example.org".to_owned(),
        version: "0.1.0".to_owned(),
        started_unix_ms: at(0),
        now_unix_ms: at(10),
        ready: true,
        ready_issue: true,
        sequence_number: 4,
        svids_issued: 40,
        svids_live: 24,
        agents_connected: 2,
        key_exchanges: vec![wire::KeyExchange {
            group: "X25519MLKEM768".to_owned(),
            agents: 2,
        }],
        clusters: vec![wire::ClusterStatus {
            name: "default".to_owned(),
            pods: 17,
            ..wire::ClusterStatus::default()
        }],
        authorities: some_authorities(),
        ..wire::StatusResponse::default()
    };
    is_as_read("status", &status(&well));
    let ill = wire::StatusResponse {
        ready_issue: false,
        not_ready: vec![wire::NotReady {
            reason: "clock_untrusted".to_owned(),
            detail: "no API server has told its time".to_owned(),
            serves: true,
        }],
        clock_reason: "the machine's clock is 2 h ahead".to_owned(),
        agents_awaited: vec!["spiffe://example.org/signet/agent/default/5e1f".to_owned()],
        lists: vec![wire::ListRoom {
            kind: "x509".to_owned(),
            entries: 30_000,
            capacity: 56_000,
            waiting: 2,
            alarming: true,
        }],
        list_proofs: vec![wire::ListProof {
            authority_id: "a1".repeat(20),
            number: 9,
            own_number: 7,
            entries: 3,
            missing_serials: vec!["0101a203dda02c".to_owned()],
            agent_id: "spiffe://example.org/signet/agent/default/5e1f".to_owned(),
            found_unix_ms: at(5),
            ..wire::ListProof::default()
        }],
        advice: vec!["keys.kek_file: lies in `data_dir`; move it".to_owned()],
        denials: 2,
        first_denial_ends_unix_ms: at(60),
        ..well.clone()
    };
    is_as_read("status_ill", &status(&ill));
    assert!(status(&well).json["first_denial_ends"].is_null());
    let for_ever = wire::StatusResponse { denials: 1, ..well };
    assert!(status(&for_ever).text.contains("1 in force, none ends by itself"));
}
