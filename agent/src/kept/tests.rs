//! Where keys go.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// A folder on tmpfs, where the machine has one that a test may write to.
fn in_memory() -> Option<tempfile::TempDir> {
    tempfile::TempDir::new_in("/dev/shm").ok()
}

#[test]
fn keys_are_written_in_memory_file_systems_only_unless_disks_are_allowed() {
    let folder = signet_testkit::folder();
    let state = folder.path().join("state");
    // What is certainly not tmpfs on any machine.
    let elsewhere = Path::new("/proc/self");
    let places = Places::open(Keeping::InMemory, &state, Some(elsewhere));
    assert!(
        !places.volumes && places.problem.contains("/proc/self: not on tmpfs"),
        "{}",
        places.problem
    );
    let places = Places::open(Keeping::Anywhere, &state, Some(elsewhere));
    assert_eq!((places.state_dir, places.volumes), (Some(state.clone()), true));
    assert!(places.problem.is_empty());
    let mode = state.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    if let Some(memory) = in_memory() {
        let places = Places::open(
            Keeping::InMemory,
            &memory.path().join("state"),
            Some(memory.path()),
        );
        assert!(places.state_dir.is_some() && places.volumes, "{}", places.problem);
    }
}

#[test]
fn a_folder_that_cannot_be_made_and_keep_keys_off_leave_the_agent_running_and_say_so() {
    let places = Places::open(Keeping::InMemory, Path::new("/proc/none/state"), None);
    assert_eq!(places.state_dir, None);
    assert!(
        places.volumes && places.problem.contains("/proc/none"),
        "{}",
        places.problem
    );
    let places = Places::open(Keeping::Nowhere, Path::new("/proc/none/state"), None);
    assert_eq!((places.state_dir, places.volumes), (None, false));
    assert!(places.problem.contains("keep_keys"));
}
