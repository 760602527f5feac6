//! Disks that are full or read only. They are small ones in memory, which root alone may mount, or whoever has mounts of his own.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use signet_tests::domain::Domain;

use super::support::pod_with_volume;

/// A disk of its own under a folder, with what was in that folder.
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn under(folder: &Path, size: &str) -> Self {
        let aside = folder.with_extension("aside");
        fs::rename(folder, &aside).unwrap();
        fs::create_dir(folder).unwrap();
        let options = format!("size={size},mode=0700");
        let none = MsFlags::empty();
        let mounted = mount(Some("tmpfs"), folder, Some("tmpfs"), none, Some(options.as_str()));
        mounted.expect("only root mounts a disk");
        for entry in fs::read_dir(&aside).unwrap().flatten() {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        Self(folder.to_owned())
    }

    pub(super) fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }

    pub(super) fn make_read_only(&self) {
        self.remount(MsFlags::MS_RDONLY);
    }

    pub(super) fn make_writable(&self) {
        self.remount(MsFlags::empty());
    }

    fn remount(&self, flags: MsFlags) {
        let flags = MsFlags::MS_REMOUNT | flags;
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

mod needs_root {
    use super::*;

    /// Nothing that was acknowledged is lost, and the message says what to do.
    #[tokio::test]
    #[ignore = "needs root: `.ci/step machine` runs it"]
    async fn a_server_killed_on_a_full_disk_says_how_much_to_free_and_then_starts() {
        let mut domain = Domain::start().await.unwrap();
        domain.server.stop().await.unwrap();
        let disk = Disk::under(&domain.server.data_dir(), "8m");
        domain.server.start().await.unwrap();
        let revoked = domain
            .server
            .admin(&["revoke", "--spiffe-id", "/ns/shop/sa/x"])
            .await;
        revoked.unwrap();
        let filler = disk.fill();
        domain.server.kill().await;
        let failed = format!("{:#}", domain.server.start().await.unwrap_err());
        let named = format!("the disk of {} is full. Free at least ", disk.0.display());
        assert!(failed.contains(&named), "{failed}");
        fs::remove_file(filler).unwrap();
        domain.server.start().await.unwrap();
        let denials = domain.server.admin(&["denials"]).await.unwrap();
        assert!(denials.to_string().contains("/ns/shop/sa/x"), "{denials}");
    }

    /// A server cannot do without writing; an agent can, with what it holds.
    #[tokio::test]
    #[ignore = "needs root: `.ci/step machine` runs it"]
    async fn on_a_disk_that_is_read_only_an_agent_starts_and_a_server_says_why_not() {
        let mut domain = Domain::start().await.unwrap();
        let mut agent = domain.agent("node-a").await.unwrap();
        agent.stop().await.unwrap();
        let disk = Disk::under(&agent.folder().join("data"), "8m");
        disk.make_read_only();
        agent.start().await.unwrap();
        let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
        front.identity().await;
        assert!(!agent.said().contains("ERROR"), "{}", agent.said());

        domain.server.stop().await.unwrap();
        let disk = Disk::under(&domain.server.data_dir(), "8m");
        disk.make_read_only();
        let failed = format!("{:#}", domain.server.start().await.unwrap_err());
        let named = format!("the disk of {} is read only", disk.0.display());
        assert!(
            failed.contains(&named) && failed.contains("`data_dir`"),
            "{failed}"
        );
    }
}
