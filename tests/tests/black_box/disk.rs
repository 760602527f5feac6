//! Disks that are full or read only. They are small ones in memory, which root alone may mount, or whoever has mounts of his own.

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
        disk.fill();
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
        // It starts in the room that it kept.
        let filler = disk.fill();
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

mod needs_namespaces {
    use std::time::{Duration, SystemTime};

    use serde_json::json;
    use signet_runtime::clock::{Clock as _, SystemClock};
    use signet_testkit::machine::has_own_mounts;
    use signet_tests::{
        domain::{Agent, Plan},
        wait::eventually,
        workload::{Identity, Updates, WorkloadClient},
    };
    use tonic::Code;

    use super::*;

    /// An agent goes by its server's time, within so much.
    const SKEW: Duration = Duration::from_secs(2);

    /// Of what came when it was asked for then, or later.
    fn was_current(identity: &Identity, asked: SystemTime) {
        let ended = identity.svid.not_after();
        assert!(ended + SKEW >= asked, "{ended:?} at {asked:?}");
    }

    /// Renewed on an open stream, and none of what comes has ended.
    async fn is_renewed(updates: &mut Updates, before: &Identity) -> Identity {
        let serial = before.svid.serial();
        // A renewal comes long before the end.
        let fits = |identity: &Identity| {
            was_current(identity, SystemClock.now());
            identity.svid.serial() != serial
        };
        updates.until("a renewal", fits).await
    }

    async fn is_unavailable(client: &WorkloadClient) {
        eventually("the agent to have nothing", async || {
            let asked = SystemClock.now();
            match client.fetch().await {
                Ok(identity) => {
                    was_current(&identity, asked);
                    None
                }
                Err(status) => (status.code() == Code::Unavailable).then_some(()),
            }
        })
        .await;
    }

    async fn with_a_disk_of_its_own(domain: &Domain) -> (Agent, Disk) {
        let folder = domain.path().join("node-a");
        fs::create_dir(&folder).unwrap();
        let disk = Disk::under(&folder, "2m");
        (domain.agent("node-a").await.unwrap(), disk)
    }

    /// What an agent cannot write it goes on without; what it could not replace it does not serve when that has ended.
    ///
    /// Covers BG-22.
    #[test]
    #[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
    fn an_agent_whose_disk_is_full_or_read_only_renews_and_sends_nothing_that_has_ended() {
        let test = "an_agent_whose_disk_is_full_or_read_only_renews_and_sends_nothing_that_has_ended";
        if has_own_mounts(&format!("disk::needs_namespaces::{test}")) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(renews_and_sends_nothing_that_has_ended());
        }
    }

    async fn renews_and_sends_nothing_that_has_ended() {
        let plan = Plan::default().server("/svid/ttl", json!("10s"));
        let mut domain = plan.start().await.unwrap();
        let (mut agent, disk) = with_a_disk_of_its_own(&domain).await;
        let volume = pod_with_volume(&domain, &agent, "front").await;
        let client = agent.workload(&volume);
        let first = client.identity().await;
        let mut updates = client.watch().await.unwrap();
        disk.make_read_only();
        let second = is_renewed(&mut updates, &first).await;
        disk.make_writable();
        let filler = disk.fill();
        let third = is_renewed(&mut updates, &second).await;
        is_renewed(&mut updates, &third).await;

        domain.server.stop().await.unwrap();
        is_unavailable(&client).await;
        // What it kept for a restart is older still.
        agent.kill().await;
        agent.spawn().unwrap();
        is_unavailable(&client).await;
        agent.kill().await;
        domain.server.start().await.unwrap();
        agent.start().await.unwrap();
        let asked = SystemClock.now();
        was_current(&client.identity().await, asked);
        assert!(filler.exists());
        assert_eq!(agent.said().matches("panicked").count(), 0, "{}", agent.said());
    }
}
