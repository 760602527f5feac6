//! Links without privileges; real mounts in a namespace of their own.

pub(crate) mod alone;
mod needs_namespaces;

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn links_come_and_go_and_come_again() {
    let dir = signet_testkit::folder();
    let (source, target) = (dir.path().join("source"), dir.path().join("pods/u/mount"));
    fs::create_dir(&source).unwrap();
    let mounter = LinkMounter;
    mounter.bind(&source, &target).unwrap();
    mounter.bind(&source, &target).unwrap();
    assert_eq!(fs::read_link(&target).unwrap(), source);
    mounter.unbind(&source, &target).unwrap();
    mounter.unbind(&source, &target).unwrap();
    assert!(!target.exists() && source.exists());
}

#[test]
fn a_link_at_the_target_is_not_followed() {
    let dir = signet_testkit::folder();
    let target = dir.path().join("mount");
    symlink("/etc", &target).unwrap();
    assert!(BindMounter.bind(dir.path(), &target).is_err());
}
