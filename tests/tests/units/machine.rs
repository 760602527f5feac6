//! A machine with a systemd of its own: `boot.sh` beside this file says what it sees.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Started, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use signet_tests::fake_kube::{FakeKube, FakeKubeConfig, PodSpec};
use signet_tests::process::binary;
use signet_tests::repository::root;
use signet_tests::wait::eventually;
use tempfile::TempDir;
use tokio::process::Command;

/// Where the agents' pods are.
const SYSTEM: &str = "signet-system";

/// A machine that is up, in a network of its own with a Kubernetes API server that is not real; gone when dropped.
pub(crate) struct Machine {
    pub(crate) kube: FakeKube,
    folder: TempDir,
    /// What ends it with itself.
    boot: Child,
    /// Its first process, as seen from here.
    init: u32,
}

impl Machine {
    /// Boots it. From here on this thread, and whatever it starts, is in the network of that machine.
    pub(crate) async fn boot() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("only root makes a network");
        let up = Started::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        let kube = FakeKube::start(FakeKubeConfig::default()).await.unwrap();
        let folder = signet_testkit::folder();
        for part in [
            "deploy/systemd",
            "deploy/examples/systemd",
            "deploy/examples/nginx",
        ] {
            fs::create_dir_all(folder.path().join(part)).unwrap();
            for entry in fs::read_dir(root().join(part)).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), folder.path().join(part).join(entry.file_name())).unwrap();
            }
        }
        for kubeconfig in ["signet-server.kubeconfig", "admin.kubeconfig"] {
            kube.kubeconfig(&folder.path().join(kubeconfig)).unwrap();
        }
        fs::create_dir(folder.path().join("bin")).unwrap();
        let kubectl = root().join("tests/tests/units/kubectl");
        fs::copy(kubectl, folder.path().join("bin/kubectl")).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let boot = Started::new(root().join("tests/tests/units/boot.sh"))
            .arg(folder.path())
            .args([binary("signet-server"), binary("signet-agent")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut machine = Self {
            kube,
            folder,
            boot,
            init: 0,
        };
        machine.init = eventually("the first process", async || machine.first_process()).await;
        eventually("the machine to be up", async || {
            let (is_up, _) = machine.tried("systemctl is-active multi-user.target").await;
            is_up.then_some(())
        })
        .await;
        machine
    }

    fn first_process(&mut self) -> Option<u32> {
        if let Some(ended) = self.boot.try_wait().unwrap() {
            panic!("the machine does not boot: {ended}: {}", self.log());
        }
        let id = self.boot.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        // What the script itself runs is in no namespace of its own.
        children.split_whitespace().map(str::to_owned).find_map(|child| {
            let status = fs::read_to_string(format!("/proc/{child}/status")).ok()?;
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
            numbers.ends_with("\t1").then_some(child.parse().ok()?)
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its first process, as seen from here.
    pub(crate) const fn init(&self) -> u32 {
        self.init
    }

    /// Adds the agent's pod of this machine's node, and a pod of a workload.
    pub(crate) async fn is_a_node(&self) -> String {
        let node = self.types("hostname").await.trim().to_owned();
        let agent = PodSpec::new(SYSTEM, &format!("signet-agent-{node}"))
            .service_account("signet-agent")
            .node(&node);
        self.kube.add_pod(&agent).unwrap();
        node
    }

    /// What root types in a shell on it, in a folder with a copy of the project: whether it succeeds, and all that is said.
    pub(crate) async fn tried(&self, commands: &str) -> (bool, String) {
        let target = self.init.to_string();
        let output = Command::new("nsenter")
            .args([
                "--target", &target, "--mount", "--pid", "--cgroup", "--ipc", "--uts",
            ])
            .args(["--", "bash", "-euo", "pipefail", "-c"])
            .arg(format!(
                "exec 2>&1; cd /run/copy; PATH=$PWD/bin:$PATH; {commands}"
            ))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBECONFIG", "/run/copy/admin.kubeconfig")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said)
    }

    /// As [`tried`](Self::tried), of what has to succeed.
    pub(crate) async fn types(&self, commands: &str) -> String {
        let (succeeded, said) = self.tried(commands).await;
        if succeeded {
            return said;
        }
        let (_, journal) = self
            .tried("systemctl --no-pager list-units --failed; journalctl --no-pager --lines 60")
            .await;
        panic!("{commands}\n{said}\n{journal}\n{}", self.log());
    }

    /// A property of a unit, as `systemctl show` tells it.
    pub(crate) async fn property(&self, unit: &str, name: &str) -> String {
        let said = self
            .types(&format!("systemctl show --value --property {name} {unit}"))
            .await;
        said.trim().to_owned()
    }

    /// Waits until a unit says so of itself.
    pub(crate) async fn until(&self, unit: &str, name: &str, is: impl Fn(&str) -> bool) -> String {
        eventually(&format!("{name} of {unit}"), async || {
            Some(self.property(unit, name).await).filter(|value| is(value))
        })
        .await
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let group = fs::read_to_string(self.folder.path().join("cgroup"));
        let group = group.map(|path| PathBuf::from(path.trim_end()));
        match &group {
            Ok(group) => drop(fs::write(group.join("cgroup.kill"), "1")),
            Err(_) => drop(self.boot.kill()),
        }
        let _ = self.boot.wait();
        if let Ok(group) = group {
            clear(&group);
        }
    }
}

/// Removes a control group; the kernel lets go of those who were killed a moment later.
fn clear(group: &Path) {
    let Ok(mut watched) = File::open(group.join("cgroup.events")) else {
        return;
    };
    for _ in 0..50 {
        remove_group(group);
        // Once it was read to its end, it has something to tell when that has changed.
        let read = watched
            .rewind()
            .and_then(|()| watched.read_to_end(&mut Vec::new()));
        if read.is_err() || !group.exists() {
            return;
        }
        let mut changes = [PollFd::new(watched.as_fd(), PollFlags::POLLPRI)];
        let _ = poll(&mut changes, PollTimeout::from(50_u8));
    }
}

/// A group can be removed when nobody is in it, nor below it.
fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
