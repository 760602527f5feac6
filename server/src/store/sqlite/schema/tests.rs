//! Stores of earlier versions, brought up to date.

use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::super::{compromised, known_agents::KnownAgents};
use super::*;
use crate::store::Standing;

/// What was on a list before lists had a bound together stays on it.
#[test]
fn revocations_of_the_first_version_are_on_their_list() {
    let mut conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(V1).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    for (serial, reason) in [(1_u8, "keyCompromise"), (2, "superseded")] {
        conn.execute(
            "INSERT INTO revocation (authority, serial, revoked_at, reason, not_after, revision)
             VALUES (1, ?1, 5, ?2, 9, 3)",
            params![vec![serial], reason],
        )
        .unwrap();
    }
    assert!(migrate(&mut conn).is_ok());
    let mut read = conn
        .prepare("SELECT class, entered, revision FROM revocation ORDER BY serial")
        .unwrap();
    let rows = read
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    let rows: Vec<(String, bool, i64)> = rows.map(Result::unwrap).collect();
    assert_eq!(
        rows,
        [("by-hand".to_owned(), true, 3), ("identity".to_owned(), true, 3)]
    );
}

/// After an upgrade the newest certificate of an agent counts on, unless it was revoked, its older ones are unknown, and a
/// key that was revoked as compromised stays so.
#[test]
fn agents_and_compromised_keys_of_the_first_version_are_kept() {
    let mut conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(V1).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    conn.execute_batch(
        "INSERT INTO authority VALUES (1, zeroblob(20));
         INSERT INTO workload VALUES (1, 'c', 'spiffe://example.org/signet/agent/c/n', '', '', '', 'n', 'u', 'a');
         INSERT INTO workload VALUES (2, 'c', 'spiffe://example.org/signet/agent/c/m', '', '', '', 'm', 'v', 'b');
         INSERT INTO agent VALUES ('spiffe://example.org/signet/agent/c/n', 'c', 'n', 'u', x'02', 1, 0, 9);
         INSERT INTO agent VALUES ('spiffe://example.org/signet/agent/c/m', 'c', 'm', 'v', x'03', 1, 0, 9);
         INSERT INTO ledger VALUES (x'01', 1, 1, 1, 2, 't1', zeroblob(32), 1, 0, 0, 8);
         INSERT INTO ledger VALUES (x'02', 1, 1, 1, 2, 't2', randomblob(32), 1, 0, 0, 9);
         INSERT INTO ledger VALUES (x'03', 1, 1, 2, 2, 't3', randomblob(32), 1, 0, 0, 9);
         INSERT INTO revocation VALUES (1, x'01', 5, 'keyCompromise', 8, 1, 0);
         INSERT INTO revocation VALUES (1, x'03', 5, 'superseded', 9, 2, 0);",
    )
    .unwrap();
    assert!(migrate(&mut conn).is_ok());
    let known = KnownAgents::load(&conn).unwrap();
    let standing = |node: &str, serial: u8| {
        let agent = SpiffeId::parse(&format!("spiffe://example.org/signet/agent/c/{node}")).unwrap();
        let serial = SerialNumber::from_unsigned(&[serial]).unwrap();
        known.standing(&agent, &serial, None).0
    };
    assert_eq!(standing("n", 2), Standing::Counts);
    assert_eq!(standing("n", 1), Standing::Unknown);
    assert_eq!(standing("m", 3), Standing::Revoked);
    assert_eq!(compromised::load(&conn).unwrap(), [[0; 32]].into());
}
