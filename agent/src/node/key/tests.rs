//! The key and its file.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn spki(keys: &mut NodeKeys, token: &str) -> Vec<u8> {
    keys.key_for(token, &SystemRandom::new())
        .unwrap()
        .public_key_spki()
}

#[test]
fn the_key_lives_as_long_as_the_token_over_a_restart_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut keys = NodeKeys::open(directory.path());
    let first = spki(&mut keys, "token-1");
    assert_eq!(spki(&mut keys, "token-1"), first);
    let mut restarted = NodeKeys::open(directory.path());
    assert_eq!(spki(&mut restarted, "token-1"), first);
    let second = spki(&mut restarted, "token-2");
    assert_ne!(second, first);
    assert_ne!(spki(&mut restarted, "token-1"), first, "one key is kept, not all");
    let mode = fs::metadata(directory.path().join("node.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Covers INV-13.
#[test]
fn the_file_holds_no_token() {
    let directory = tempfile::tempdir().unwrap();
    spki(&mut NodeKeys::open(directory.path()), "a secret token");
    let bytes = fs::read(directory.path().join("node.key")).unwrap();
    assert!(!bytes.windows(8).any(|part| part == b"a secret"));
}

#[test]
fn a_forgotten_or_damaged_key_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.key");
    let mut keys = NodeKeys::open(directory.path());
    let first = spki(&mut keys, "token");
    keys.forget();
    assert!(!path.exists());
    assert_ne!(spki(&mut keys, "token"), first);
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(60);
    for damaged in [bytes, Vec::new(), vec![0; 5000]] {
        fs::write(&path, damaged).unwrap();
        spki(&mut NodeKeys::open(directory.path()), "token");
    }
}
