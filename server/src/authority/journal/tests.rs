use super::*;

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
    let id = |number| AuthorityId::from_bytes([number; 20]);
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
        decode(&body(2, "\"anything\"")),
        Err(JournalError::Version(2))
    ));
    let tainted = ROW.replace("\"old\"", "\"tainted\"");
    let refused = decode(&body(1, &tainted)).unwrap_err();
    assert!(
        matches!(&refused, JournalError::UnknownState(state) if state == "tainted"),
        "{refused}"
    );
    let stranger = ROW.replace("\"author\"", "\"colour\":1,\"author\"");
    assert!(matches!(
        decode(&body(1, &stranger)),
        Err(JournalError::Syntax(_))
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
