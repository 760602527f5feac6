//! Disks that are full or read only. They are small ones in memory, which root alone may mount.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use signet_proto::agent::issue_result::Outcome;
use signet_tests::{
    agent_client::{RawAgent, new_csr},
    domain::Domain,
    http,
    wait::eventually,
};

use super::support::{pod_with_volume, workload_svids};

/// A disk of its own under a folder, with what was in that folder.
struct Disk(PathBuf);

impl Disk {
    fn under(folder: &Path, size: &str) -> Self {
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

    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }

    fn make_read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
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
        let disk = Disk::under(&domain.server.data_dir(), "48m");
        domain.server.start().await.unwrap();
        let revoked = domain
            .server
            .admin(&["revoke", "--spiffe-id", "/ns/shop/sa/x"])
            .await;
        revoked.unwrap();
        domain.server.kill().await;
        // Not even what was kept for such a moment is there.
        fs::remove_file(disk.0.join("signet.reserve")).unwrap();
        let filler = disk.fill();
        let failed = format!("{:#}", domain.server.start().await.unwrap_err());
        let named = format!("the disk of {} is full. Free at least ", disk.0.display());
        assert!(failed.contains(&named), "{failed}");
        fs::remove_file(filler).unwrap();
        domain.server.start().await.unwrap();
        let denials = domain.server.admin(&["denials"]).await.unwrap();
        assert!(denials.to_string().contains("/ns/shop/sa/x"), "{denials}");
    }

    /// Nothing is issued that could not be recorded, who is revoked is out at once, a new start changes nothing, and with room everything
    /// goes on by itself.
    #[tokio::test]
    #[ignore = "needs root: `.ci/step machine` runs it"]
    async fn a_disk_that_fills_stops_issuing_and_neither_revoking_nor_rotating() {
        let mut domain = Domain::start().await.unwrap();
        domain.server.stop().await.unwrap();
        let disk = Disk::under(&domain.server.data_dir(), "48m");
        domain.server.start().await.unwrap();
        let agent = domain.agent("node-a").await.unwrap();
        let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
        let back = agent.workload(&pod_with_volume(&domain, &agent, "back").await);
        let (victim, _) = (front.identity().await, back.identity().await);

        let (mut raw, certificate) = domain.raw_agent("node-b").await.unwrap();
        let filler = disk.fill();
        let token = domain.shop_pod("late", "node-b").unwrap();
        let refused = raw.issue_one(new_csr().unwrap(), &token).await.unwrap();
        assert!(matches!(refused, Outcome::Unavailable(_)), "{refused:?}");
        let listed = workload_svids(&domain).await;
        assert!(!listed.iter().any(|row| row["pod_name"] == "late"), "{listed:?}");
        let ready = format!("{}/ready/issue", domain.server.telemetry_url());
        eventually("readiness to tell", async || {
            let answer = http::get(&ready).await.unwrap();
            (answer.status == 503 && String::from_utf8_lossy(&answer.body).contains("store_failing"))
                .then_some(())
        })
        .await;

        let serial = victim.svid.serial().to_string();
        let revoke = ["revoke", "--serial", &serial];
        domain.server.admin(&revoke).await.unwrap();
        domain.server.admin(&["ca", "rotate", "--force"]).await.unwrap();
        back.watch()
            .await
            .unwrap()
            .until("the list that names the victim", |peer| {
                peer.sees_revoked(&victim.svid)
            })
            .await;
        domain.server.kill().await;
        domain.server.spawn().unwrap();
        eventually("the doors to open", async || {
            domain
                .server
                .admin(&["revoke", "--spiffe-id", "/ns/shop/sa/x"])
                .await
                .ok()
        })
        .await;

        fs::remove_file(filler).unwrap();
        domain.server.ready().await.unwrap();
        let mut raw = RawAgent::connect(domain.server.agents(), Some(&certificate))
            .await
            .unwrap();
        raw.hello().await.unwrap();
        eventually("certificates to be issued again", async || {
            raw.issue_good(&token).await.ok()
        })
        .await;
    }

    /// A server cannot do without writing; an agent can, with what it holds.
    #[tokio::test]
    #[ignore = "needs root: `.ci/step machine` runs it"]
    async fn on_a_disk_that_is_read_only_an_agent_starts_and_a_server_says_why_not() {
        let mut domain = Domain::start().await.unwrap();
        let mut agent = domain.agent("node-a").await.unwrap();
        agent.stop().await.unwrap();
        let disk = Disk::under(&agent.folder().join("data"), "48m");
        disk.make_read_only();
        agent.start().await.unwrap();
        let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
        front.identity().await;
        assert!(!agent.said().contains("ERROR"), "{}", agent.said());

        domain.server.stop().await.unwrap();
        let disk = Disk::under(&domain.server.data_dir(), "48m");
        disk.make_read_only();
        let failed = format!("{:#}", domain.server.start().await.unwrap_err());
        let named = format!("the disk of {} is read only", disk.0.display());
        assert!(
            failed.contains(&named) && failed.contains("`data_dir`"),
            "{failed}"
        );
    }
}
