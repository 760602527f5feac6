//! The command as `deploy/image/build` calls it.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn pack(program: &Path, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signet-image"));
    command
        .arg(program)
        .args(["--name", "signet-image:1", "--out"])
        .arg(out);
    command.output().unwrap()
}

#[test]
fn two_archives_of_one_program_are_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let archives = ["one.tar", "two.tar"].map(|name| {
        let out = folder.path().join(name);
        let packed = pack(Path::new(env!("CARGO_BIN_EXE_signet-image")), &out);
        assert!(packed.status.success(), "{packed:?}");
        fs::read(out).unwrap()
    });
    assert!(archives[0] == archives[1]);
}

#[test]
fn what_is_no_program_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let refused = pack(Path::new("/etc/hostname"), &folder.path().join("x.tar"));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(
        (refused.status.code(), said.lines().count()),
        (Some(1), 1),
        "{said}"
    );
    assert!(said.contains("/etc/hostname"), "{said}");
}
