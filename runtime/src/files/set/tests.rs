use std::collections::BTreeSet;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::UNIX_EPOCH;

use super::*;

mod needs_root;

const NAMES: [&str; 2] = ["one", "two"];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A set whose files say the same.
fn set(text: &str) -> [NewFile<'_>; 2] {
    NAMES.map(|name| NewFile {
        name,
        bytes: text.as_bytes(),
        mode: 0o640,
        owner: Owner::default(),
    })
}

fn whole(directory: &Path, files: &[NewFile<'_>]) {
    let shown = publish(directory, files).unwrap();
    assert!(matches!(shown, Shown::Whole), "{shown:?}");
}

fn listed(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The generations beside the names that are always there.
fn generations(directory: &Path) -> Vec<String> {
    let mut listed = listed(directory);
    for name in NAMES.into_iter().chain([DATA, lock::NAME]) {
        assert!(listed.remove(name), "{name} is not among {listed:?}");
    }
    listed.into_iter().collect()
}

/// What each file says through the one link, resolved once.
fn resolved(directory: &Path) -> [String; 2] {
    let data = File::open(directory.join(DATA)).unwrap();
    let through = PathBuf::from(format!("/proc/self/fd/{}", data.as_raw_fd()));
    NAMES.map(|name| fs::read_to_string(through.join(name)).unwrap())
}

#[test]
fn whoever_resolves_the_link_once_finds_what_fits_however_many_write() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    whole(directory, &set("begin"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let [one, two] = resolved(directory);
                assert_eq!(one, two);
                reads += 1;
            }
            reads
        });
        let writers: Vec<_> = (0..50)
            .map(|writer| {
                scope.spawn(move || {
                    let text = format!("{writer:04}").repeat(1000);
                    whole(directory, &set(&text));
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(
        fs::read_link(directory.join(DATA)).ok(),
        Some(PathBuf::from("..51"))
    );
    assert!(
        generations(directory)
            .iter()
            .all(|name| Number::of_name(name).is_some()),
        "nothing but sets"
    );
}

#[test]
fn a_generation_of_the_past_stays_for_its_readers_and_not_longer() {
    let filled = |seconds: &[u64]| {
        let numbers = (1..).map(Number);
        past(
            &numbers
                .zip(seconds.iter().map(|second| at(*second)))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(filled(&[]), []);
    assert_eq!(
        filled(&[0, 5000]),
        [],
        "the last one stays, whenever it was filled"
    );
    assert_eq!(filled(&[0, 5000, 5009]), [], "replaced nine seconds ago");
    assert_eq!(filled(&[0, 5000, 5010]), [Number(1)]);
    assert_eq!(filled(&[0, 1, 2, 3, 4, 5]), []);
    assert_eq!(filled(&[0, 1, 2, 3, 4, 13]), [Number(1), Number(2), Number(3)]);
    assert_eq!(
        filled(&[0, 5000, 20]),
        [Number(1)],
        "a clock that was set back keeps nothing"
    );

    let folder = tempfile::tempdir().unwrap();
    for text in ["first", "second"] {
        whole(folder.path(), &set(text));
    }
    let long_ago = fs::FileTimes::new().set_modified(at(0));
    for name in ["..1", "..2"] {
        let generation = File::open(folder.path().join(name)).unwrap();
        generation.set_times(long_ago).unwrap();
    }
    whole(folder.path(), &set("third"));
    assert_eq!(generations(folder.path()), ["..2", "..3"]);
}

/// Else a folder without room for one set more would stay full for ever.
#[test]
fn what_nobody_reads_any_more_goes_before_the_next_set_needs_its_room() {
    let folder = tempfile::tempdir().unwrap();
    let too_long = "x".repeat(256);
    let cannot_be_written = [NewFile {
        name: &too_long,
        ..set("x")[0]
    }];
    for text in ["first", "second"] {
        whole(folder.path(), &set(text));
    }
    publish(folder.path(), &cannot_be_written).unwrap_err();
    assert_eq!(generations(folder.path()), ["..1", "..2"], "replaced just now");
    let second = File::open(folder.path().join("..2")).unwrap();
    second
        .set_times(fs::FileTimes::new().set_modified(at(0)))
        .unwrap();
    publish(folder.path(), &cannot_be_written).unwrap_err();
    assert_eq!(generations(folder.path()), ["..2"]);
    assert_eq!(resolved(folder.path()), ["second", "second"]);
}

/// Wherever a writer was killed, the next one leaves a folder as if it had never been.
#[test]
fn what_a_killed_writer_left_is_gone_after_the_next() {
    type Left = fn(&Path);
    let half: Left = |directory| {
        fs::create_dir(directory.join("..2")).unwrap();
        fs::write(directory.join("..2/one"), "ha").unwrap();
    };
    let linked: Left = |directory| {
        fs::create_dir(directory.join("..2")).unwrap();
        symlink("..2", directory.join("..data.new")).unwrap();
    };
    let shown: Left = |directory| {
        fs::rename(directory.join("..1"), directory.join("..2")).unwrap();
        fs::remove_file(directory.join(DATA)).unwrap();
        symlink("..2", directory.join(DATA)).unwrap();
        fs::remove_file(directory.join("two")).unwrap();
        symlink("..data/two", directory.join("..two.new")).unwrap();
    };
    let none_shown: Left = |directory| {
        fs::remove_file(directory.join(DATA)).unwrap();
    };
    for (left, expected) in [
        (half, vec!["..1", "..2"]),
        (linked, vec!["..1", "..2"]),
        (shown, vec!["..2", "..3"]),
        (none_shown, vec!["..1"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        whole(folder.path(), &set("before"));
        left(folder.path());
        whole(folder.path(), &set("after"));
        assert_eq!(generations(folder.path()), expected);
        assert_eq!(resolved(folder.path()), ["after", "after"]);
    }
}

#[test]
fn plain_files_of_an_earlier_version_become_links_and_their_leavings_go() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    for name in [
        "one",
        "two",
        ".one.0123456789abcdef.new",
        ".other.0123456789abcdef.new",
    ] {
        fs::write(directory.join(name), "earlier").unwrap();
    }
    whole(directory, &set("new"));
    for name in NAMES {
        assert_eq!(fs::read_to_string(directory.join(name)).unwrap(), "new");
        let link = fs::read_link(directory.join(name)).unwrap();
        assert_eq!(link, Path::new(DATA).join(name));
    }
    assert_eq!(generations(directory), ["..1", ".other.0123456789abcdef.new"]);
}

#[test]
fn modes_are_exactly_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    whole(folder.path(), &set("text"));
    let mode = |name: &str| {
        fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!([mode("one"), mode("..1")], [0o640, 0o755]);
}

#[test]
fn failures_say_what_and_where_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    whole(directory, &set("before"));
    let file = directory.join("one");
    let below = publish(&file.join("below"), &set("x")).unwrap_err().to_string();
    assert!(
        below.contains("one/below: cannot make the directory: "),
        "{below}"
    );

    let slash = [NewFile {
        name: "missing/name",
        bytes: b"x",
        mode: 0o600,
        owner: Owner::default(),
    }];
    let refused = publish(directory, &slash).unwrap_err().to_string();
    assert!(refused.contains("missing/name: cannot write: "), "{refused}");
    assert_eq!(generations(directory), ["..1"]);
    assert_eq!(resolved(directory), ["before", "before"]);

    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let taken = publish(directory, &set("after")).unwrap_err().to_string();
    assert!(taken.contains("one: cannot put a link in its place: "), "{taken}");
    assert_eq!(resolved(directory), ["before", "before"]);
}

#[test]
fn a_writer_that_never_ends_is_named_as_what_is_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let held = Lock::take(folder.path(), 1).unwrap();
    let error = Lock::take(folder.path(), 3).err().unwrap();
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
    let said = error.to_string();
    assert!(
        said.contains("..lock: cannot lock the folder: another process"),
        "{said}"
    );
    drop(held);
    Lock::take(folder.path(), 1).unwrap();
}

/// A lock on the folder itself is anybody's who may open it.
#[test]
fn whoever_may_only_read_the_folder_holds_no_writer_up() {
    let folder = tempfile::tempdir().unwrap();
    let reader = File::open(folder.path()).unwrap();
    reader.try_lock().unwrap();
    whole(folder.path(), &set("text"));
    let lock = fs::metadata(folder.path().join(lock::NAME)).unwrap();
    assert_eq!(lock.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_lock_that_was_removed_holds_nobody_up_and_one_that_is_something_else_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (directory, path) = (folder.path(), folder.path().join(lock::NAME));
    let removed = Lock::take(directory, 1).unwrap();
    fs::remove_file(&path).unwrap();
    let held = Lock::take(directory, 1).unwrap();
    drop(removed);
    assert!(Lock::take(directory, 1).is_err(), "the one that is there counts");
    drop(held);
    fs::remove_file(&path).unwrap();
    let elsewhere = directory.join("elsewhere");
    symlink(&elsewhere, &path).unwrap();
    let link = publish(directory, &set("x")).unwrap_err().to_string();
    assert!(
        link.contains("..lock: cannot open the lock of the folder: "),
        "{link}"
    );
    assert!(!elsewhere.exists());
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let pipe = publish(directory, &set("x")).unwrap_err().to_string();
    assert!(pipe.contains("no regular file: remove it"), "{pipe}");
}

#[test]
fn what_goes_wrong_behind_a_set_that_readers_find_is_no_failure_of_the_set() {
    let folder = tempfile::tempdir().unwrap();
    let too_long = "x".repeat(LONGEST_NAME + 1);
    let [one, _] = set("two");
    let two = NewFile {
        name: &too_long,
        ..one
    };
    let shown = publish(folder.path(), &[one, two]).unwrap();
    assert!(
        matches!(&shown, Shown::Partly(error) if error.to_string().contains("xxx.new: cannot make the link")),
        "{shown:?}"
    );
    let one = fs::read_to_string(folder.path().join("one"));
    assert_eq!(one.unwrap(), "two");
}

#[test]
fn a_folder_where_a_link_has_to_be_made_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["..one.new/x", "..data.new"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    whole(folder.path(), &set("text"));
    assert_eq!(resolved(folder.path()), ["text", "text"]);
    assert_eq!(generations(folder.path()), ["..1"]);
    let longest = "x".repeat(LONGEST_NAME);
    let [one, _] = set("long");
    whole(
        folder.path(),
        &[NewFile {
            name: &longest,
            ..one
        }],
    );
}

/// Whoever else may write the folder may have made the link.
#[test]
fn after_the_last_number_that_there_is_the_first_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let last = format!("{OWN}{}", u64::MAX);
    fs::create_dir(folder.path().join(&last)).unwrap();
    symlink(&last, folder.path().join(DATA)).unwrap();
    for text in ["one", "two", "three"] {
        whole(folder.path(), &set(text));
        assert_eq!(resolved(folder.path()), [text, text]);
    }
}

#[test]
fn a_set_that_cannot_be_made_leaves_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    whole(folder.path(), &set("one"));
    let published = fs::read_link(folder.path().join(DATA)).unwrap();
    let made = Fresh::make(folder.path().join(&published));
    assert!(made.is_err());
    assert_eq!(resolved(folder.path()), ["one", "one"]);
}

/// Nobody can open it, nor whoever is no root.
#[test]
fn a_lock_of_ones_own_that_cannot_be_opened_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(lock::NAME);
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    whole(folder.path(), &set("text"));
    assert_eq!(resolved(folder.path()), ["text", "text"]);
}
