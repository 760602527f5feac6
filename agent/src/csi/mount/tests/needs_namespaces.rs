//! Real mounts, in a namespace of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::super::*;
use super::alone::{Peer, alone, own_mounts_at};

/// A socket folder beside a kubelet folder, of which the part at `linked` lies elsewhere behind a link.
fn node(dir: &Path, linked: Option<&str>) -> (PathBuf, PathBuf) {
    let source = dir.join("volumes/0123/socket");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("spiffe.sock"), "").unwrap();
    if let Some(linked) = linked {
        let elsewhere = dir.join("data-disk").join(linked);
        fs::create_dir_all(&elsewhere).unwrap();
        let link = dir.join(linked);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&elsewhere, &link).unwrap();
    }
    let parent = dir.join("kubelet/pods/uid/volumes/kubernetes.io~csi/spiffe");
    fs::create_dir_all(&parent).unwrap();
    (source, parent.join("mount"))
}

/// However often kubelet calls, and by whatever links its folders are reached.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn a_target_is_mounted_once_and_gone_afterwards() {
    alone(
        "csi::mount::tests::needs_namespaces::a_target_is_mounted_once_and_gone_afterwards",
        |dir| {
            for (number, linked) in [
                None,
                Some("kubelet"),
                Some("kubelet/pods"),
                Some("kubelet/pods/uid"),
                Some("kubelet/pods/uid/volumes"),
            ]
            .into_iter()
            .enumerate()
            {
                let dir = dir.join(number.to_string());
                let (source, target) = node(&dir, linked);
                let resolved = target.parent().unwrap().canonicalize().unwrap().join("mount");
                for _ in 0..20 {
                    BindMounter.bind(&source, &target).unwrap();
                }
                let mounts = own_mounts_at(&resolved);
                assert_eq!(mounts.len(), 1, "{linked:?}: {mounts:?}");
                assert_eq!(
                    fs::metadata(&target).unwrap().ino(),
                    fs::metadata(&source).unwrap().ino()
                );
                for _ in 0..2 {
                    BindMounter.unbind(&source, &target).unwrap();
                    assert!(
                        own_mounts_at(&resolved).is_empty() && !target.exists(),
                        "{linked:?}"
                    );
                }
                fs::remove_dir_all(dir.join("volumes")).unwrap();
            }
        },
    );
}

/// The pod's containers are made from what the host sees.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn nobody_can_write_through_the_mount_and_neither_can_the_host() {
    alone(
        "csi::mount::tests::needs_namespaces::nobody_can_write_through_the_mount_and_neither_can_the_host",
        |dir| {
            let (source, target) = node(dir, None);
            let host = Peer::new();
            BindMounter.bind(&source, &target).unwrap();
            for (who, mounts) in [
                ("agent", own_mounts_at(&target)),
                ("host", host.mounts_at(&target)),
            ] {
                assert_eq!(mounts.len(), 1, "{who}: {mounts:?}");
                for flag in ["ro", "nosuid", "nodev", "noexec"] {
                    assert!(mounts[0].split(',').any(|set| set == flag), "{who}: {mounts:?}");
                }
            }
            fs::write(target.join("planted"), "").unwrap_err();
            // The agent itself puts a new socket there after a restart.
            fs::write(source.join("spiffe.sock"), "again").unwrap();
            BindMounter.unbind(&source, &target).unwrap();
            assert!(host.mounts_at(&target).is_empty());
        },
    );
}

/// Whatever a mount is of, and however it was left, the next call puts it right.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn a_mount_of_another_folder_or_a_writable_one_is_replaced() {
    alone(
        "csi::mount::tests::needs_namespaces::a_mount_of_another_folder_or_a_writable_one_is_replaced",
        |dir| {
            let (source, target) = node(dir, None);
            let none: Option<&str> = None;
            fs::create_dir(&target).unwrap();
            mount(Some(&source), &target, none, MsFlags::MS_BIND, none).unwrap();
            assert_eq!(BindMounter.bind(&source, &target).unwrap(), Bound::Anew);
            assert_eq!(BindMounter.bind(&source, &target).unwrap(), Bound::Before);
            let mounts = own_mounts_at(&target);
            assert!(mounts.len() == 1 && mounts[0].starts_with("ro,"), "{mounts:?}");
            // As when the folder of the sockets was emptied under a running pod.
            fs::remove_dir_all(&source).unwrap();
            fs::create_dir(&source).unwrap();
            assert_eq!(
                BindMounter.bind(&source, &target).unwrap(),
                Bound::InPlaceOfAnother
            );
            assert_eq!(own_mounts_at(&target).len(), 1);
            assert_eq!(
                fs::metadata(&target).unwrap().ino(),
                fs::metadata(&source).unwrap().ino()
            );
        },
    );
}

/// Kubelet calls again; only then is the folder of the running containers replaced, and that is told.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn a_folder_that_was_lost_is_told_also_after_a_call_that_failed() {
    alone(
        "csi::mount::tests::needs_namespaces::a_folder_that_was_lost_is_told_also_after_a_call_that_failed",
        |dir| {
            let (source, target) = node(dir, None);
            BindMounter.bind(&source, &target).unwrap();
            fs::remove_dir_all(&source).unwrap();
            fs::create_dir(&source).unwrap();
            let in_the_way = source.with_file_name(SEALED);
            fs::write(&in_the_way, "").unwrap();
            for _ in 0..2 {
                BindMounter.bind(&source, &target).unwrap_err();
                assert_eq!(own_mounts_at(&target).len(), 1, "what containers hold stays");
            }
            fs::remove_file(&in_the_way).unwrap();
            assert_eq!(
                BindMounter.bind(&source, &target).unwrap(),
                Bound::InPlaceOfAnother
            );
            assert_eq!(BindMounter.bind(&source, &target).unwrap(), Bound::Before);
            assert_eq!(own_mounts_at(&target).len(), 1);
        },
    );
}

/// An agent that was killed while it mounted leaves the sealed folder; neither publishing nor the end of the volume meets it.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn what_a_killed_agent_left_half_mounted_is_cleared() {
    alone(
        "csi::mount::tests::needs_namespaces::what_a_killed_agent_left_half_mounted_is_cleared",
        |dir| {
            let (source, target) = node(dir, None);
            let sealed = source.with_file_name(SEALED);
            let none: Option<&str> = None;
            for again in [true, false] {
                fs::create_dir_all(&sealed).unwrap();
                mount(Some(&source), &sealed, none, MsFlags::MS_BIND, none).unwrap();
                if again {
                    BindMounter.bind(&source, &target).unwrap();
                    assert_eq!(own_mounts_at(&target).len(), 1);
                } else {
                    BindMounter.unbind(&source, &target).unwrap();
                }
                assert!(own_mounts_at(&sealed).is_empty() && !sealed.exists());
            }
            fs::remove_dir_all(dir.join("volumes")).unwrap();
        },
    );
}
