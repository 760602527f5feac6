//! A container that runs, as kubelet and the node see it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use signet_tests::wait::eventually;

use crate::root::{Container, strings};

/// A container that runs.
pub(crate) struct Running {
    child: Child,
    container: Container,
}

impl Running {
    /// Starts it and waits until its readiness probe passes.
    pub(crate) async fn of(container: Container) -> Self {
        let log = File::create(container.folder.path().join("log")).unwrap();
        let child = container
            .command()
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut running = Self { child, container };
        let ready = running.container.container()["readinessProbe"].clone();
        eventually("the readiness probe", async || {
            if let Some(ended) = running.child.try_wait().unwrap() {
                panic!("ended with {ended}: {}", running.log());
            }
            running.probe(&ready).then_some(())
        })
        .await;
        running
    }

    pub(crate) fn container(&self) -> &Container {
        &self.container
    }

    /// Asks as kubelet would.
    fn probe(&self, probe: &Value) -> bool {
        let Some(path) = probe["httpGet"]["path"].as_str() else {
            let words: Vec<&str> = strings(&probe["exec"]["command"]).collect();
            return self.exec(&words).status.success();
        };
        let named = &probe["httpGet"]["port"];
        let mut ports = self.container.container()["ports"].as_array().unwrap().iter();
        let port = &ports.find(|port| port["name"] == *named).unwrap()["containerPort"];
        let mut get = Command::new("nsenter");
        get.args(["--target", &self.child.id().to_string(), "--net"]);
        get.args(["curl", "-sf", "--noproxy", "*"])
            .arg(format!("http://127.0.0.1:{port}{path}"))
            .output()
            .unwrap()
            .status
            .success()
    }

    /// A command in the container, as its user.
    pub(crate) fn exec(&self, words: &[&str]) -> Output {
        // Found by this process's path, and looks for the command by the image's.
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"nsenter=$(command -v nsenter); exec env -i PATH=/usr/bin "$nsenter" "$@""#,
            "nsenter",
        ]);
        command.args(["--target", &self.child.id().to_string()]);
        command.args(["--mount", "--net", "--root", "--wd=/"]);
        if let Some(user) = self.container.spec["securityContext"]["runAsUser"].as_u64() {
            command.args([format!("--setuid={user}"), format!("--setgid={user}")]);
        }
        command.arg("--").args(words).output().unwrap()
    }

    /// The manifest's liveness probe passes.
    pub(crate) fn lives(&self) -> bool {
        let probe = &self.container.container()["livenessProbe"];
        self.probe(probe)
    }

    /// A path as the container sees it.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.child.id()))
    }

    /// Options of every mount at this path of the node, as a process of the node sees them.
    pub(crate) fn mounts_on_node(&self, path: &str) -> Vec<String> {
        let mut look = Command::new("nsenter");
        look.args([
            "--target",
            &self.child.id().to_string(),
            "--mount",
            "cat",
            "/proc/self/mountinfo",
        ]);
        let text = String::from_utf8(look.output().unwrap().stdout).unwrap();
        let at = self.container.node(path);
        let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let there = lines.filter(|fields| Path::new(fields[4]) == at);
        there.map(|fields| fields[5].to_owned()).collect()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.container.folder.path().join("log")).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
