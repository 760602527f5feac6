use std::io::Read as _;
use std::thread;

use super::*;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn content_and_mode_are_exactly_as_asked_for_and_nothing_else_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a file");
    // No usual umask would let 0666 through.
    for (content, asked, durability) in [
        ("first", 0o600, Durability::Durable),
        ("second, longer", 0o666, Durability::Volatile),
        ("3rd", 0o640, Durability::Durable),
    ] {
        replace(&path, content.as_bytes(), asked, durability).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(mode(&path), asked);
        assert_eq!(names(directory.path()), ["a file"]);
    }
}

#[test]
fn who_reads_the_old_file_reads_it_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    replace(&path, b"old", 0o600, Durability::Volatile).unwrap();
    let mut reader = File::open(&path).unwrap();
    replace(&path, b"new and longer", 0o600, Durability::Volatile).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
}

#[test]
fn a_link_is_replaced_and_what_it_leads_to_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (directory.path().join("file"), directory.path().join("elsewhere"));
    fs::write(&elsewhere, "precious").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    replace(&path, b"new", 0o600, Durability::Volatile).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
}

#[test]
fn writers_of_one_file_never_meet() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let content = |writer: usize| vec![b'a' + u8::try_from(writer).unwrap(); 5000 + writer];
    thread::scope(|scope| {
        for writer in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..50 {
                    replace(path, &content(writer), 0o600, Durability::Volatile).unwrap();
                    let found = fs::read(path).unwrap();
                    assert!((0..8).any(|writer| found == content(writer)), "half a file");
                }
            });
        }
    });
    assert_eq!(names(directory.path()), ["file"]);
}

#[test]
fn what_a_killed_writer_left_is_removed_and_a_live_ones_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let left = [".file.0123456789abcdef.new", ".file.ffffffffffffffff.new"];
    let others = [
        ".file.new",
        ".file.0123456789abcdeg.new",
        ".other.0123456789abcdef.new",
        "file.0123456789abcdef.new",
    ];
    for name in left.iter().chain(&others) {
        fs::write(at(name), "half of some").unwrap();
    }
    let slow = Staged::write(&at("file"), b"slow", 0o600, Durability::Volatile).unwrap();
    replace(&at("file"), b"quick", 0o600, Durability::Volatile).unwrap();
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "quick");
    slow.put_in_place().unwrap();
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "slow");
    let mut expected: Vec<&str> = others.into_iter().chain(["file"]).collect();
    expected.sort_unstable();
    assert_eq!(names(directory.path()), expected);
}

#[test]
fn nothing_changes_until_it_is_put_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "old").unwrap();
    let staged = Staged::write(&path, b"new", 0o600, Durability::Durable).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    drop(staged);
    assert_eq!(names(directory.path()), ["file"]);
}

#[test]
fn failures_name_the_path_and_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no/such/file");
    let error = replace(&missing, b"x", 0o600, Durability::Durable).unwrap_err();
    assert!(error.to_string().contains("no/such/file: cannot "), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);

    let taken = directory.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("inside"), "x").unwrap();
    let error = replace(&taken, b"x", 0o600, Durability::Durable).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("taken: cannot put the new file in place"),
        "{error}"
    );
    assert_eq!(names(directory.path()), ["taken"]);
    assert!(replace(Path::new("/"), b"x", 0o600, Durability::Durable).is_err());
}

#[test]
fn directories_are_made_and_private_ones_are_narrowed() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("a/b/c");
    private_dir(&deep).unwrap();
    assert_eq!(mode(&deep), 0o700);
    fs::set_permissions(&deep, Permissions::from_mode(0o755)).unwrap();
    private_dir(&deep).unwrap();
    assert_eq!(mode(&deep), 0o700);

    let file = directory.path().join("d/e/file");
    make_parent(&file).unwrap();
    make_parent(&file).unwrap();
    assert!(parent(&file).is_dir() && !file.exists());
    make_parent(Path::new("bare")).unwrap();
    fs::write(&file, "in the way").unwrap();
    let error = make_parent(&file.join("below")).unwrap_err();
    assert!(error.to_string().contains("file/below: cannot make"), "{error}");
}

#[test]
fn a_file_is_read_up_to_its_bound_and_nothing_else_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kept");
    assert_eq!(read(&path, 3).unwrap_err().kind(), io::ErrorKind::NotFound);
    fs::write(&path, "abc").unwrap();
    assert_eq!(read(&path, 3).unwrap(), b"abc");
    assert!(read(&path, 2).unwrap_err().to_string().contains("larger than 2"));
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(read(&path, 3).unwrap_err().to_string(), "not a regular file");
    assert_eq!(
        read(directory.path(), 3).unwrap_err().to_string(),
        "not a regular file"
    );
}

#[test]
fn a_path_leads_where_its_links_lead_and_what_is_missing_stays_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("data")).unwrap();
    std::os::unix::fs::symlink(root.join("data"), root.join("link")).unwrap();
    let leads = |path: &str| leads_to(&root.join(path));
    assert_eq!(leads("data"), root.join("data"));
    assert_eq!(leads("link"), root.join("data"));
    assert_eq!(leads("link/none/kek"), root.join("data/none/kek"));
    assert_eq!(leads("data/../link/kek"), root.join("data/kek"));
    assert_eq!(leads("none/kek"), root.join("none/kek"));
}
