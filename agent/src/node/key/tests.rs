//! The key and its file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use signet_testkit::{DOMAIN, HOUR, control_authority, leaf, public_key};

use super::*;

fn spki(keys: &mut NodeKeys, token: &str) -> Vec<u8> {
    keys.key_for(token, &SystemRandom::new())
        .unwrap()
        .public_key_spki()
}

fn open(directory: &tempfile::TempDir) -> NodeKeys {
    NodeKeys::open(Some(directory.path()))
}

fn certificate_for(key: &LeafKey) -> AttestedNode {
    let id = "spiffe://example.org/signet/agent/kind/node-1";
    let authority = control_authority(DOMAIN);
    let der = leaf(&authority, id).ttl(HOUR).signed(&public_key(key));
    certificate(vec![der.into()], "node-a".to_owned(), "node-1".to_owned()).unwrap()
}

#[test]
fn the_key_lives_as_long_as_the_token_over_a_restart_too() {
    let directory = signet_testkit::folder();
    let mut keys = open(&directory);
    let first = spki(&mut keys, "token-1");
    assert_eq!(spki(&mut keys, "token-1"), first);
    let mut restarted = open(&directory);
    assert_eq!(spki(&mut restarted, "token-1"), first);
    let second = spki(&mut restarted, "token-2");
    assert_ne!(second, first);
    assert_ne!(spki(&mut restarted, "token-1"), first, "one key is kept, not all");
    let mode = fs::metadata(directory.path().join(FILE))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_certificate_is_kept_with_its_key_until_there_is_another_key() {
    let directory = signet_testkit::folder();
    let rng = SystemRandom::new();
    let mut keys = open(&directory);
    let key = keys.key_for("token-1", &rng).unwrap();
    assert!(open(&directory).certificate("token-1", &rng).is_none());
    let certificate = certificate_for(&key);
    keys.certified(certificate.clone());
    let (kept, its_key) = open(&directory).certificate("token-1", &rng).unwrap();
    assert_eq!(its_key.public_key_spki(), key.public_key_spki());
    assert_eq!(
        (kept.chain, kept.spiffe_id, kept.node_name, kept.node_uid),
        (
            certificate.chain,
            certificate.spiffe_id,
            certificate.node_name,
            certificate.node_uid
        )
    );
    spki(&mut keys, "token-2");
    assert!(open(&directory).certificate("token-2", &rng).is_none());
}

/// A token of a pod with the UID `pod-1`.
const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2siLCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6czphIiwiYXVkI\
    jpbInNpZ25ldDpleGFtcGxlLm9yZzpub2RlIl0sImV4cCI6MTgwMDAwMzYwMCwiaWF0IjoxODAwMDAwMDAwLCJuYmYiOjE4MDAwMDAwMDAsImp0aSI6ImoiLCJrd\
    WJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6InMiLCJub2RlIjp7Im5hbWUiOiJuIiwidWlkIjoidSJ9LCJwb2QiOnsibmFtZSI6InAiLCJ1aWQiOiJwb2QtMSJ9L\
    CJzZXJ2aWNlYWNjb3VudCI6eyJuYW1lIjoiYSIsInVpZCI6IngifX19.AAAA";

#[test]
fn the_certificate_is_of_the_pod_and_another_pod_of_the_node_does_not_take_it_over() {
    let directory = signet_testkit::folder();
    let rng = SystemRandom::new();
    let mut keys = open(&directory);
    let key = keys.key_for(TOKEN, &rng).unwrap();
    keys.certified(certificate_for(&key));
    let next_of_the_pod = TOKEN.replace(".AAAA", ".BBBB");
    assert!(open(&directory).certificate(&next_of_the_pod, &rng).is_some());
    let of_another = TOKEN.replace("J1aWQiOiJwb2QtMSJ9", "J1aWQiOiJwb2QtMiJ9");
    assert_eq!(
        (pod_of(TOKEN), pod_of(&of_another)),
        ("pod-1".to_owned(), "pod-2".to_owned())
    );
    assert!(open(&directory).certificate(&of_another, &rng).is_none());
}

/// Covers INV-13.
#[test]
fn the_file_holds_no_token() {
    let directory = signet_testkit::folder();
    spki(&mut open(&directory), "a secret token");
    let bytes = fs::read(directory.path().join(FILE)).unwrap();
    assert!(!bytes.windows(8).any(|part| part == b"a secret"));
}

/// Otherwise an upgrade, or the way back from one, waits for the next token.
#[test]
fn a_file_of_another_version_keeps_its_key() {
    let directory = signet_testkit::folder();
    let path = directory.path().join(FILE);
    let first = spki(&mut open(&directory), TOKEN);
    let written = fs::read_to_string(&path).unwrap();
    for other in [
        written.replace("\"pod_uid\":\"pod-1\",", ""),
        written.replace("\"pod_uid\"", "\"of_tomorrow\":[1],\"pod_uid\""),
    ] {
        assert_ne!(other, written);
        fs::write(&path, other).unwrap();
        assert_eq!(spki(&mut open(&directory), TOKEN), first);
    }
}

#[test]
fn a_forgotten_or_damaged_key_is_replaced() {
    let directory = signet_testkit::folder();
    let path = directory.path().join(FILE);
    let mut keys = open(&directory);
    let first = spki(&mut keys, "token");
    keys.forget();
    assert!(!path.exists());
    assert_ne!(spki(&mut keys, "token"), first);
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(60);
    for damaged in [bytes, Vec::new(), vec![0; 5000]] {
        fs::write(&path, damaged).unwrap();
        spki(&mut open(&directory), "token");
    }
}

#[test]
fn without_a_place_the_key_lives_in_memory() {
    let mut keys = NodeKeys::open(None);
    let first = spki(&mut keys, "token");
    assert_eq!(spki(&mut keys, "token"), first);
}
