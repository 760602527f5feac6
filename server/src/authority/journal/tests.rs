use super::*;
use crate::authority::departed::{DepartedAuthority, Left};
use crate::authority::operation::Stage;
use crate::authority::state::Turn;

const ROW: &str = r#"{"id":"0101010101010101010101010101010101010101","state":"old","certificate":"AQID",
    "not_before":1000,"not_after":2000,"longest_leaf_ttl_ms":3600000,"author":"timer","introduced_sequence":7,
    "introduced_at":1500,"leaves_until":1900}"#;

fn body(version: u32, rows: &str) -> Vec<u8> {
    format!(r#"{{"version":{version},"authorities":[{rows}]}}"#).into_bytes()
}

#[test]
fn what_is_written_is_read_again() {
    let set = decode(&body(1, ROW)).unwrap();
    assert_eq!(
        set.authorities()[0]
            .introduced
            .map(|introduced| introduced.sequence),
        Some(7)
    );
    assert_eq!(decode(&encode(&set).unwrap()).unwrap(), set);
}

#[test]
fn algorithm_and_chain_are_kept_and_cost_nothing_where_they_are_the_usual_ones() {
    let usual = decode(&body(1, ROW)).unwrap();
    let written = String::from_utf8(encode(&usual).unwrap()).unwrap();
    assert!(
        !written.contains("algorithm") && !written.contains("above"),
        "{written}"
    );
    let row = ROW.replace(
        "\"certificate\":\"AQID\"",
        r#""algorithm":"p384","certificate":"AQID","above":["BAUG","BwgJ"]"#,
    );
    let set = decode(&body(1, &row)).unwrap();
    let read = &set.authorities()[0].authority;
    let chain: [Arc<[u8]>; 3] = [[1, 2, 3].into(), [4, 5, 6].into(), [7, 8, 9].into()];
    assert_eq!(read.material, Material::X509(chain.into()));
    assert_eq!(read.algorithm, SignatureAlgorithm::P384);
    assert_eq!(decode(&encode(&set).unwrap()).unwrap(), set);
}

#[test]
fn links_are_kept_with_the_authorities() {
    let mut set = decode(&body(1, ROW)).unwrap();
    set.links.add(Link {
        by: id(8),
        to: id(9),
        not_after: from_unix_millis(5000),
        certificate: [1, 2, 3].into(),
    });
    let written = encode(&set).unwrap();
    assert_eq!(decode(&written).unwrap(), set);
    let text = String::from_utf8(written).unwrap();
    let cut = text.replace("\"certificate\":\"AQID\"}]}", "\"certificate\":\"A?\"}]}");
    assert_ne!(cut, text);
    assert!(matches!(
        decode(cut.as_bytes()),
        Err(JournalError::Damaged { .. })
    ));
}

#[test]
fn later_versions_and_unknown_states_are_typed_errors() {
    assert!(matches!(
        decode(&body(3, "\"anything\"")),
        Err(JournalError::Version(3))
    ));
    let foreign = ROW.replace("\"old\"", "\"distrusted\"");
    let refused = decode(&body(1, &foreign)).unwrap_err();
    assert!(
        matches!(&refused, JournalError::UnknownState(state) if state == "distrusted"),
        "{refused}"
    );
    let stranger = ROW.replace("\"author\"", "\"colour\":1,\"author\"");
    assert!(matches!(
        decode(&body(1, &stranger)),
        Err(JournalError::Syntax(_))
    ));
}

fn id(number: u8) -> AuthorityId {
    AuthorityId::from_bytes([number; 20])
}

/// An earlier build reads version 1, and would take back what has left: it has to refuse what it does not understand.
#[test]
fn what_an_earlier_build_may_forget_is_version_1_and_what_it_may_not_is_version_2() {
    let version = |set: &AuthoritySet| {
        let written = encode(set).unwrap();
        assert_eq!(decode(&written).unwrap(), *set);
        let VersionOnly { version } = serde_json::from_slice(&written).unwrap();
        version
    };
    let operation = |verb, stage| crate::authority::operation::Operation {
        number: 7,
        verb,
        target: id(1),
        previous: Some(id(2)),
        author: "uid:0".into(),
        begun: from_unix_millis(5000),
        stage,
        ended: Some(from_unix_millis(6000)),
        told: Some(crate::authority::operation::Told {
            agents: 3,
            reported: 2,
        }),
    };
    let mut plain = decode(&body(1, ROW)).unwrap();
    plain.operations = Operations::of(vec![
        operation(Verb::Rotate, Stage::Spreading),
        operation(Verb::Retire, Stage::Done),
    ]);
    plain.authorities[0].history = vec![Turn {
        state: "old",
        at: from_unix_millis(4000),
    }];
    assert_eq!(version(&plain), 1);
    let mut retires = plain.clone();
    retires.operations = Operations::of(vec![operation(Verb::Retire, Stage::Draining)]);
    assert_eq!(version(&retires), 2);
    let mut tainted = plain.clone();
    tainted.authorities[0].state = AuthorityState::Tainted {
        leaves_until: from_unix_millis(1900),
        drained_at: None,
        shown: Some(9),
        out_at: Some(from_unix_millis(5000)),
    };
    assert_eq!(version(&tainted), 2);
    let mut in_emergency = plain.clone();
    in_emergency.operations = Operations::of(vec![operation(Verb::Emergency, Stage::Spreading)]);
    assert_eq!(version(&in_emergency), 2);
    let mut departed = plain.clone();
    departed.departed.add(DepartedAuthority {
        id: id(9),
        at: from_unix_millis(4000),
        not_after: from_unix_millis(9000),
        author: "uid:0".into(),
        left: Left::Revoked,
        forced: true,
        has_key: true,
        shown: None,
    });
    assert_eq!(version(&departed), 2);
    let back = String::from_utf8(encode(&departed).unwrap()).unwrap();
    let back = back.replace(&id(9).to_string(), &id(1).to_string());
    assert!(matches!(
        decode(back.as_bytes()),
        Err(JournalError::Damaged { .. })
    ));
}

#[test]
fn damage_is_not_guessed_away() {
    let without_end = ROW.replace(",\"leaves_until\":1900", "");
    let half = ROW.replace("\"introduced_sequence\":7,", "");
    let no_activation = ROW.replace("\"old\"", "\"prepared\"");
    let twice = format!("{ROW},{ROW}");
    for damaged in [without_end, half, no_activation, twice, ROW.replace("AQID", "A?")] {
        let refused = decode(&body(1, &damaged));
        assert!(
            matches!(refused, Err(JournalError::Damaged { .. })),
            "{refused:?}"
        );
    }
    assert!(matches!(decode(b"{"), Err(JournalError::Syntax(_))));
}
