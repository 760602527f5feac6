//! Folders that are full, read only, or filled by their own sets: small disks in memory, which nobody else sees.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;

use nix::sys::signal::Signal;
use signet_testkit::machine::has_own_mounts;

use super::super::disk::Disk;
use super::*;

/// Room for three sets, each of whose files takes a page of it.
const SMALL: &str = "64k";
const PAGE: u64 = 4096;

/// Runs the test of this name where its mounts are its own, with a daemon on a disk of its own.
fn alone(test: &str, inside: impl AsyncFnOnce(&Kept, &Disk, &Path)) {
    let name = format!("kept_files::needs_namespaces::{test}");
    if !has_own_mounts(&name) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let kept = Kept::start(Plan::default()).await;
        let dir = kept.path("files");
        fs::create_dir(&dir).unwrap();
        let disk = Disk::under(&dir, SMALL);
        inside(&kept, &disk, &dir).await;
    });
}

/// What whoever resolves the link once finds.
fn set(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let generation = fs::canonicalize(dir.join("..data")).unwrap();
    let entries = fs::read_dir(generation).unwrap().map(Result::unwrap);
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

/// Whoever comes by names finds the same, and nothing lies around but while somebody tries.
async fn is_whole(dir: &Path, before: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(&set(dir), before);
    for (name, bytes) in before {
        assert_eq!(&fs::read(dir.join(name)).unwrap(), bytes, "{name}");
    }
    let generation = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("..")?.parse::<u64>().ok()
    };
    eventually("no part of a set that failed", async || {
        let generations: Vec<u64> = fs::read_dir(dir).unwrap().filter_map(generation).collect();
        (generations == [1]).then_some(())
    })
    .await;
}

/// A reader that opened each file of the set, and has read nothing yet.
struct Reader(Vec<(String, fs::File)>);

impl Reader {
    fn of(dir: &Path, set: &BTreeMap<String, Vec<u8>>) -> Self {
        let open = |name: &String| (name.clone(), fs::File::open(dir.join(name)).unwrap());
        Self(set.keys().map(open).collect())
    }

    fn reads(&self, set: &BTreeMap<String, Vec<u8>>) {
        for (name, file) in &self.0 {
            let mut read = vec![0; set[name].len()];
            file.read_exact_at(&mut read, 0).unwrap();
            assert_eq!(read, set[name], "{name}");
            assert_eq!(file.metadata().unwrap().len(), read.len() as u64, "{name}");
        }
    }
}

/// Another certificate comes while nothing can be written, and then it can: by what `fault` returns, after `meanwhile`.
async fn through_a_fault<R: FnOnce()>(
    kept: &Kept,
    dir: &Path,
    said: &str,
    fault: impl FnOnce() -> R,
    meanwhile: impl AsyncFnOnce(&Process, &str, &BTreeMap<String, Vec<u8>>),
) {
    let (mut daemon, url) = kept.daemon(dir, &["--run", "true"]);
    stands(&url, None).await;
    reaches(&url, "hooks_done_total", 1.0).await;
    let (before, old) = (set(dir), serial(dir));
    let reader = Reader::of(dir, &before);
    let relief = fault();
    let revoke = ["revoke", "--serial", &old];
    kept.domain.server.admin(&revoke).await.unwrap();
    stands(&url, Some("not_written")).await;
    reaches(&url, "publish_failures_total", 1.0).await;
    is_whole(dir, &before).await;
    says(&kept.once(dir, &[]).await, 1, "not_written");
    meanwhile(&daemon, &url, &before).await;
    is_whole(dir, &before).await;
    let log = daemon.stderr();
    let line = log.lines().find(|line| line.contains("those before stay"));
    let line = line.unwrap_or_default();
    assert!(
        line.contains(said) && line.contains(dir.to_str().unwrap()),
        "{log}"
    );
    for counted in ["sets_written_total", "hooks_done_total"] {
        let name = format!("signet_agent_write_{counted}");
        assert_eq!(number(&url, &name).await, Some(1.0), "{counted}");
    }
    relief();
    stands(&url, None).await;
    reaches(&url, "hooks_done_total", 2.0).await;
    assert_ne!(serial(dir), old);
    assert_eq!(set(dir).len(), before.len());
    reader.reads(&before);
    daemon.stop().await.unwrap();
}

/// Covers BG-22.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn a_full_folder_keeps_the_old_set_whole_and_takes_the_next_once_there_is_room() {
    let test = "a_full_folder_keeps_the_old_set_whole_and_takes_the_next_once_there_is_room";
    alone(test, async |kept, disk, dir| {
        let filler = dir.join("filler");
        let fault = || {
            disk.fill();
            || fs::remove_file(&filler).unwrap()
        };
        // Whichever of its files it is that has no room.
        let meanwhile = async |daemon: &Process, url: &str, before: &BTreeMap<String, Vec<u8>>| {
            let full = fs::metadata(&filler).unwrap().len();
            for pages in 1..before.len() as u64 {
                let smaller = fs::OpenOptions::new().write(true).open(&filler).unwrap();
                smaller.set_len(full - pages * PAGE).unwrap();
                let failures = number(url, "signet_agent_write_publish_failures_total").await;
                daemon.signal(Signal::SIGHUP);
                reaches(url, "publish_failures_total", failures.unwrap() + 1.0).await;
                is_whole(dir, before).await;
            }
        };
        through_a_fault(kept, dir, "No space left on device", fault, meanwhile).await;
    });
}

/// Covers BG-22.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn a_read_only_folder_keeps_the_old_set_whole_and_takes_the_next_once_it_can_be_written() {
    let test = "a_read_only_folder_keeps_the_old_set_whole_and_takes_the_next_once_it_can_be_written";
    alone(test, async |kept, disk, dir| {
        let fault = || {
            disk.make_read_only();
            || disk.make_writable()
        };
        let meanwhile = async |_: &Process, _: &str, _: &BTreeMap<String, Vec<u8>>| {};
        through_a_fault(kept, dir, "Read-only file system", fault, meanwhile).await;
    });
}

/// Sets that were replaced stay for their readers, and where there is less room than that takes, the next one waits for them to go.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn a_folder_that_its_own_sets_have_filled_is_of_use_again_by_itself() {
    let test = "a_folder_that_its_own_sets_have_filled_is_of_use_again_by_itself";
    alone(test, async |kept, _, dir| {
        let (mut daemon, url) = kept.daemon(dir, &[]);
        stands(&url, None).await;
        let mut written = 1.0;
        // Until there is no room.
        eventually("a folder that is full", async || {
            daemon.signal(Signal::SIGHUP);
            written = number(&url, "signet_agent_write_sets_written_total").await?;
            let failures = number(&url, "signet_agent_write_publish_failures_total").await?;
            (failures > 0.0).then_some(())
        })
        .await;
        reaches(&url, "sets_written_total", written + 1.0).await;
        stands(&url, None).await;
        daemon.stop().await.unwrap();
    });
}
