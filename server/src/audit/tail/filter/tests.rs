use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use serde_json::json;
use signet_certs::authority::AuthorityId;
use signet_certs::crl::RevocationReason;
use signet_certs::id::SpiffeId;

use super::*;
use crate::audit_event::{AuditAction, AuditEvent, RevokedSerial};

const ID: &str = "spiffe://example.org/ns/shop/sa/front";
const POD: &str = "shop/front-0";
const UID: &str = "0e1f7c1c-1111-4222-8333-944455556666";
const SERIAL: &str = "2a";
const AUTHOR: &str = "uid:7";

fn id() -> SpiffeId {
    SpiffeId::parse(ID).unwrap()
}

fn authority() -> AuthorityId {
    "ab".repeat(20).parse().unwrap()
}

/// By which of the filters a line is found: `i` by the ID, `p` by the pod's name, `u` by its UID, `s` by the serial, `a` by the author. A new
/// kind of line does not compile before it is here.
fn found_by(action: &AuditAction) -> &'static str {
    match action {
        AuditAction::NodeAttested { .. } => "ip",
        AuditAction::Refused { .. } => "iu",
        AuditAction::AgentSupersededOften { .. }
        | AuditAction::RefusalsSuppressed { .. }
        | AuditAction::StorePutBack { .. }
        | AuditAction::ListUnproven { .. } => "i",
        AuditAction::Revoked { .. } => "ipusa",
        AuditAction::Allowed { .. } => "ipua",
        AuditAction::AdminCall { .. } => "ipusa",
        AuditAction::AuthorityPrepared { .. }
        | AuditAction::AuthorityActivated { .. }
        | AuditAction::AuthorityTainted { .. }
        | AuditAction::AuthorityDistrusted { .. }
        | AuditAction::AuthorityRevoked { .. }
        | AuditAction::RulesChanged { .. }
        | AuditAction::RuleSet { .. }
        | AuditAction::RuleDeleted { .. }
        | AuditAction::ClockConfirmed { .. } => "a",
        AuditAction::AuditLinesDropped { .. }
        | AuditAction::ServerStarted { .. }
        | AuditAction::ServerStopped { .. }
        | AuditAction::AuthorityExpired { .. }
        | AuditAction::ClockJumped { .. }
        | AuditAction::ClockHealed {}
        | AuditAction::ClockAdopted { .. }
        | AuditAction::EventsLost { .. } => "",
    }
}

fn revoked(target: &str, serials: Vec<RevokedSerial>) -> AuditAction {
    AuditAction::Revoked {
        target: target.to_owned(),
        author: AUTHOR.to_owned(),
        reason: RevocationReason::Unspecified,
        comment: String::new(),
        invalid_since: None,
        denial: None,
        denial_expires: None,
        serials,
    }
}

fn allowed(target: &str) -> AuditAction {
    AuditAction::Allowed {
        denial: "d1-1".to_owned(),
        target: target.to_owned(),
        author: AUTHOR.to_owned(),
    }
}

fn call(target: &str) -> AuditAction {
    AuditAction::AdminCall {
        author: AUTHOR.to_owned(),
        method: "Revoke".to_owned(),
        target: Some(target.to_owned()),
        outcome: "ok".to_owned(),
    }
}

/// What admins order, with each way in which it is named and what finds it.
fn ordered() -> Vec<(AuditAction, &'static str)> {
    let serial = RevokedSerial {
        authority: authority(),
        serial: SERIAL.parse().unwrap(),
    };
    let by_name = format!("pod {POD}, UID {UID}, cluster UID c");
    let by_uid = format!("pod UID {UID}, cluster UID c");
    let (of_pod, of_uid) = (format!("pod {POD}"), format!("pod {UID}"));
    let mut lines = vec![
        (revoked(ID, vec![]), "ia"),
        (revoked("prefix spiffe://example.org/ns/shop", vec![]), "ia"),
        (revoked("prefix spiffe://example.org", vec![]), "ia"),
        (revoked("prefix spiffe://example.org/ns/sho", vec![]), "a"),
        (revoked("serial 2A", vec![]), "sa"),
        (revoked("all issued by x", vec![serial]), "sa"),
        (call("/ns/shop/sa/front"), "ia"),
        (call("prefix /ns/shop/"), "ia"),
        (call("prefix /"), "ia"),
        (call("prefix /ns/shop/sa/fro"), "a"),
        (call("serial 2A"), "sa"),
        (call(&of_pod), "pa"),
        (call(&of_uid), "ua"),
        (call(&format!("a rule and pod {POD}")), "pa"),
        (call(&format!("node {UID}")), "a"),
        (call(""), "a"),
    ];
    for target in [&by_name, &by_uid] {
        let found = if target.contains(POD) { "pua" } else { "ua" };
        lines.extend([(revoked(target, vec![]), found), (allowed(target), found)]);
    }
    let author = AUTHOR.to_owned();
    lines.extend([
        (
            AuditAction::RuleDeleted {
                author,
                name: "r".to_owned(),
                rule: json!({}),
                set_by: "uid:8".to_owned(),
                waits: false,
            },
            "a",
        ),
        (allowed(ID), "ia"),
        (allowed("prefix spiffe://example.org/ns"), "ia"),
    ]);
    lines
}

/// What else names somebody, with what finds it.
fn told() -> Vec<(AuditAction, &'static str)> {
    let number = 1;
    vec![
        (
            AuditAction::NodeAttested {
                agent_id: id(),
                cluster: "c".to_owned(),
                node_name: "n".to_owned(),
                node_uid: "u".to_owned(),
                pod: POD.to_owned(),
                token_jti: None,
            },
            "ip",
        ),
        (
            AuditAction::Refused {
                caller: "spiffe://example.org/agent".to_owned(),
                operation: "issue".to_owned(),
                kind: "denied",
                reason: String::new(),
                spiffe_id: Some(id()),
                pod_uid: Some(UID.to_owned()),
            },
            "iu",
        ),
        (
            AuditAction::AgentSupersededOften {
                agent_id: id(),
                times: 2,
            },
            "i",
        ),
        (
            AuditAction::RefusalsSuppressed {
                caller: ID.to_owned(),
                count: 2,
            },
            "i",
        ),
        (
            AuditAction::StorePutBack {
                agent_id: id(),
                authority_id: authority(),
                number,
                own_number: 0,
                sha256: String::new(),
            },
            "i",
        ),
        (
            AuditAction::ListUnproven {
                agent_id: id(),
                authority_id: authority(),
                number,
                own_number: 0,
                reason: String::new(),
            },
            "i",
        ),
    ]
}

fn letters(text: &str) -> BTreeSet<char> {
    text.chars().collect()
}

#[test]
fn each_kind_of_line_is_found_by_all_that_it_names() {
    let some = |text: &str| Some(text.to_owned());
    let filters = [
        (
            'i',
            Filter {
                spiffe_id: some(ID),
                ..Filter::default()
            },
        ),
        (
            'p',
            Filter {
                pod: some(POD),
                ..Filter::default()
            },
        ),
        (
            'u',
            Filter {
                pod: some(UID),
                ..Filter::default()
            },
        ),
        (
            's',
            Filter {
                serial: some(SERIAL),
                ..Filter::default()
            },
        ),
        (
            'a',
            Filter {
                author: some(AUTHOR),
                ..Filter::default()
            },
        ),
    ];
    let mut kinds: BTreeMap<String, (&str, BTreeSet<char>)> = BTreeMap::new();
    for (action, expected) in ordered().into_iter().chain(told()) {
        let line = AuditEvent::new(UNIX_EPOCH, action.clone()).to_json();
        let wanting = filters.iter().filter(|(_, filter)| filter.wants(&line));
        let found: BTreeSet<char> = wanting.map(|(letter, _)| *letter).collect();
        assert_eq!(found, letters(expected), "{line}");
        let event: Value = serde_json::from_str(&line).unwrap();
        let kind = kinds
            .entry(event["event"].to_string())
            .or_insert_with(|| (found_by(&action), found.clone()));
        kind.1.extend(found);
    }
    for (kind, (all, tried)) in kinds {
        assert_eq!(tried, letters(all), "{kind}: not every way was tried");
    }
}
