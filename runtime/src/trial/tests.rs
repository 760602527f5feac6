use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

/// What is found of one use of a path, a line each.
fn tried(path: &Path, usage: Use<'_>) -> String {
    let line = |found: &Found| {
        let kind = match found.weight {
            Weight::Fault => "error",
            Weight::Doubt => "warning",
            Weight::Advice => "advice",
        };
        format!("{kind}: {}: {}; {}\n", found.key, found.problem, found.remedy)
    };
    all(&[Trial::of("some.key", path, usage)])
        .iter()
        .map(line)
        .collect()
}

fn uses() -> Vec<Use<'static>> {
    vec![
        Use::PrivateDir {
            may_be_read_only: false,
            gets_mode: false,
        },
        Use::Dir,
        Use::Read,
        Use::ReadOrMade,
        Use::Appended,
        Use::Replaced,
        Use::Socket,
    ]
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn entries(folder: &TempDir) -> usize {
    fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn what_cannot_be_had_is_one_line_with_key_path_and_remedy() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    for usage in uses() {
        let below = file.join("below/it");
        let said = tried(&below, usage);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.starts_with("error: some.key: ") && said.contains("; "),
            "{said}"
        );
        assert!(said.contains(below.to_str().unwrap()), "{said}");
    }
    // A directory where a file or a socket is meant.
    for usage in [
        Use::Read,
        Use::ReadOrMade,
        Use::Appended,
        Use::Replaced,
        Use::Socket,
    ] {
        let said = tried(folder.path(), usage);
        assert!(said.starts_with("error: ") && said.contains("some.key"), "{said}");
    }
    assert_eq!(entries(&folder), 1, "nothing was made");
}

#[test]
fn what_is_missing_is_made_and_nothing_is_left() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let at = |name: &str| folder.path().join(name);
    let private = Use::PrivateDir {
        may_be_read_only: false,
        gets_mode: false,
    };
    for (path, usage) in [
        (at("a/b/data"), private),
        (at("run/admin.sock"), Use::Socket),
        (at("out/anchors.pem"), Use::Replaced),
        (at("keys/kek"), Use::ReadOrMade),
        (at("log"), Use::Appended),
    ] {
        assert_eq!(tried(&path, usage), "", "{}", path.display());
    }
    assert_eq!(entries(&folder), 0);
    // What was there is left as it is.
    fs::write(at("log"), "a line\n").unwrap();
    fs::set_permissions(at("log"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(tried(&at("log"), Use::Appended), "");
    assert_eq!(
        (fs::read_to_string(at("log")).unwrap().as_str(), mode(&at("log"))),
        ("a line\n", 0o640)
    );
}

#[test]
fn what_others_hold_or_bring_later_is_no_fault() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let path = folder.path().join("live.sock");
    let _live = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (path, usage) in [
        (path, Use::Socket),
        (PathBuf::new(), Use::Address(address)),
        (folder.path().join("token"), Use::ReadLater),
    ] {
        let said = tried(&path, usage);
        assert!(said.starts_with("warning: some.key: "), "{said}");
    }
}

#[test]
fn a_folder_that_everybody_may_write_to_is_refused() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let usage = Use::PrivateDir {
        may_be_read_only: true,
        gets_mode: false,
    };
    let said = tried(folder.path(), usage);
    assert!(said.contains("everybody may write"), "{said}");
}

#[test]
fn who_alone_can_try_it_has_his_words_said() {
    let usage = Use::Own(Box::new(|| Err("/x/kubeconfig: no context".to_owned())));
    let said = tried(Path::new("/x/kubeconfig"), usage);
    assert_eq!(
        said,
        "error: some.key: /x/kubeconfig: no context; put it right, or name another in `some.key`\n"
    );
}

#[test]
fn what_can_be_used_and_is_unwise_is_advice() {
    let advice = || Advice {
        problem: "lies beside its lock".to_owned(),
        remedy: "put it elsewhere",
    };
    let said = tried(
        Path::new("/x/key"),
        Use::Advised(Box::new(move || Some(advice()))),
    );
    assert_eq!(said, "advice: some.key: lies beside its lock; put it elsewhere\n");
    assert_eq!(tried(Path::new("/x/key"), Use::Advised(Box::new(|| None))), "");
}
