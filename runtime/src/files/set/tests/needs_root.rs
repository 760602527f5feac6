//! Writers of several users.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::*;

const OTHER: u32 = 65_533;
/// Where the other user's process finds the folder.
const FOLDER: &str = "SIGNET_TEST_FOLDER";

/// Whether another user's process, this one over again, gets the lock.
fn as_other(directory: &Path, uid: u32) -> bool {
    let mut opened = fs::metadata(directory).unwrap().permissions();
    opened.set_mode(opened.mode() | 0o055);
    fs::set_permissions(directory, opened).unwrap();
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(this);
    command.args([
        "--ignored",
        "--exact",
        "files::set::tests::needs_root::a_lock_is_had_in_a_folder",
    ]);
    let ended = command.env(FOLDER, directory).uid(uid).gid(uid).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(said.contains("running 1 test"), "{said}");
    ended.status.success()
}

/// What root has made in another's folder is that one's, whose writers open it and exclude root's.
#[test]
#[ignore = "needs root: `.ci/step machine` runs it"]
fn a_lock_that_root_makes_is_the_folders_owners() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    chown(directory, Some(OTHER), None).unwrap();
    whole(directory, &set("of root"));
    let lock = fs::metadata(directory.join(lock::NAME)).unwrap();
    assert_eq!((lock.uid(), lock.mode() & 0o7777), (OTHER, 0o600));
    assert!(as_other(directory, OTHER), "its own lock opens");
    let held = Lock::take(directory, 1).unwrap();
    assert!(!as_other(directory, OTHER), "root holds it");
    drop(held);
    assert!(!as_other(directory, OTHER + 1), "a third user's");
}

/// Versions before this one left such locks. Whoever holds one that was set aside is waited for.
#[test]
#[ignore = "needs root: `.ci/step machine` runs it"]
fn a_lock_of_roots_in_anothers_folder_is_set_aside_by_both() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    chown(directory, Some(OTHER), None).unwrap();
    let path = directory.join(lock::NAME);
    let left = || {
        let _ = fs::remove_file(&path);
        let left = File::create(&path).unwrap();
        set_mode(&left, 0o600).unwrap();
        left
    };
    left();
    assert!(!as_other(directory, OTHER), "whoever holds it has time to end");
    assert!(directory.join(lock::ASIDE).exists());
    // Each of them waits for a while itself.
    assert!((0..150).any(|_| as_other(directory, OTHER)));
    assert_eq!(fs::metadata(&path).unwrap().uid(), OTHER);
    let held = left();
    held.try_lock().unwrap();
    assert!(
        Lock::take(directory, 5).is_err(),
        "root waits for who holds the old one"
    );
    assert!(directory.join(lock::ASIDE).exists());
    drop(held);
    Lock::take(directory, 5).unwrap();
    assert!(!directory.join(lock::ASIDE).exists());
    assert_eq!(fs::metadata(&path).unwrap().uid(), OTHER);

    // Anything of root's may be put there by the folder's owner: it is given to nobody.
    fs::remove_file(&path).unwrap();
    let secret = directory.join("secret");
    fs::write(&secret, "x").unwrap();
    fs::hard_link(&secret, &path).unwrap();
    Lock::take(directory, 5).unwrap();
    assert_eq!(fs::metadata(&secret).unwrap().uid(), 0);
}

/// The lock of a second user in a folder that both may write.
#[test]
#[ignore = "needs root: `.ci/step machine` runs it"]
fn a_folder_is_of_one_user_and_root() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    fs::set_permissions(directory, Permissions::from_mode(0o777)).unwrap();
    assert!(as_other(directory, OTHER));
    assert!(!as_other(directory, OTHER + 1), "the second is refused");
    chown(directory, Some(OTHER + 1), None).unwrap();
    assert!(
        !as_other(directory, OTHER + 1),
        "also in its own folder: the first may hold it"
    );
    whole(directory, &set("of root"));
}

/// Run over again by others here, as another user in their folder.
#[test]
#[ignore = "needs root: `.ci/step machine` runs it"]
fn a_lock_is_had_in_a_folder() {
    let own = tempfile::tempdir().unwrap();
    let given = std::env::var_os(FOLDER).map(PathBuf::from);
    Lock::take(given.as_deref().unwrap_or_else(|| own.path()), 20).unwrap();
}
