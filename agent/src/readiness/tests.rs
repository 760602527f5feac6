use signet_runtime::ready::Reason;
use signet_testkit::{at, authority, id};

use super::*;
use crate::node::NodeIdentity;

/// The page has every reason, in the words of the program, and no other.
#[test]
fn the_documentation_has_the_table_of_reasons() {
    let page = include_str!("../../../docs/operating.md");
    let section = page
        .split("\n#")
        .find(|part| part.starts_with("## Reasons of an agent"));
    let rows = section.unwrap().lines().filter(|line| line.starts_with("| `"));
    let row = |reason: &Reason| {
        let (name, level, meaning) = (reason.name, reason.level.path(), reason.meaning);
        format!("| `{name}` | `{level}` | {meaning} |")
    };
    assert_eq!(
        rows.collect::<Vec<_>>(),
        REASONS.iter().map(row).collect::<Vec<_>>()
    );
}

/// A renewal that fails is no reason while the certificate is valid.
#[test]
fn a_node_is_attested_while_its_certificate_is_valid() {
    let mut node = NodeState {
        identity: None,
        problem: "connection refused".to_owned(),
    };
    assert_eq!(not_attested(&node, at(0)).as_deref(), Some("connection refused"));
    node.identity = Some(NodeIdentity {
        spiffe_id: id("/signet/agent/dev/node-uid"),
        serial: signet_testkit::serial(1),
        authority: authority("control").certificate().id(),
        not_before: at(0),
        not_after: at(100),
        node_name: "node-a".to_owned(),
        node_uid: "node-uid".to_owned(),
    });
    assert_eq!(not_attested(&node, at(100)), None);
    let ended = not_attested(&node, at(101)).unwrap();
    assert!(
        ended.starts_with("its certificate ended at ") && ended.ends_with(": connection refused"),
        "{ended}"
    );
}
