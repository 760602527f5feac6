//! The pod of `deploy/examples/kubernetes/nginx.yaml`: its containers' commands, with their environment, users and mounts, against a real
//! agent. What is in their images lies in the root of this machine instead.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use signet_testkit::machine::has_own_mounts;
use signet_tests::domain::{Agent, Domain};
use signet_tests::fake_kube::PodSpec;
use signet_tests::process::binary;
use signet_tests::repository::root;
use signet_tests::wait::eventually;
use tempfile::TempDir;

use crate::root::strings;

const MANIFEST: &str = "deploy/examples/kubernetes/nginx.yaml";

/// A process that ends with the test, however that ends.
struct Started(Child);

impl Started {
    fn end(&mut self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), signal);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An empty folder in memory, as kubelet makes it, with no more room than it is to have. Who mounts it has mounts of his own.
fn in_memory(folder: &Path, asked: &Value) {
    assert_eq!(asked["medium"], "Memory");
    let size = asked["sizeLimit"].as_str().unwrap().trim_end_matches('i');
    let options = format!("size={size},mode=0777");
    let none = MsFlags::empty();
    let mounted = mount(Some("tmpfs"), folder, Some("tmpfs"), none, Some(options.as_str()));
    mounted.expect("only root mounts a volume");
}

/// The pod's network and volumes.
struct Pod {
    spec: Value,
    volumes: BTreeMap<String, PathBuf>,
    /// Who holds the network.
    pause: Started,
    folder: TempDir,
}

impl Pod {
    /// With the folder that the driver has published.
    fn new(published: &Path) -> Self {
        let yaml = fs::read_to_string(root().join(MANIFEST)).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        let (spec, map) = (of_kind("Pod")["spec"].clone(), of_kind("ConfigMap"));
        let folder = signet_testkit::folder();
        let mut volumes = BTreeMap::new();
        for volume in spec["volumes"].as_array().unwrap() {
            let name = volume["name"].as_str().unwrap();
            let own = folder.path().join(name);
            fs::create_dir(&own).unwrap();
            if volume["emptyDir"].is_object() {
                in_memory(&own, &volume["emptyDir"]);
            }
            let given = volume["configMap"]["name"].as_str();
            for (file, text) in given.iter().flat_map(|name| {
                assert_eq!(map["metadata"]["name"], *name);
                map["data"].as_object().unwrap()
            }) {
                fs::write(own.join(file), text.as_str().unwrap()).unwrap();
            }
            let source = if volume["csi"]["driver"] == "csi.signet.dev" {
                published.to_owned()
            } else {
                own
            };
            volumes.insert(name.to_owned(), source);
        }
        let mut pause = Command::new("unshare");
        pause.args(["--net", "sh", "-ec", "ip link set lo up; exec cat"]);
        let pause = pause.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        Self {
            spec,
            volumes,
            pause: Started(pause),
            folder,
        }
    }

    /// What runs in the pod's network.
    fn within(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pause.0.id().to_string(), "--net"]);
        command
    }

    /// Types it there as root.
    fn types(&self, commands: &str) -> Output {
        self.within().args(["bash", "-c", commands]).output().unwrap()
    }

    fn container(&self, name: &str) -> &Value {
        let all = ["initContainers", "containers"].map(|kind| self.spec[kind].as_array().unwrap());
        let mut all = all.into_iter().flatten();
        all.find(|container| container["name"] == name).unwrap()
    }

    /// A container, as the manifest has it.
    fn command(&self, name: &str) -> Command {
        let container = self.container(name);
        let program = binary("signet-agent");
        let mut script = vec![
            "mount -t tmpfs -o mode=755 tmpfs /run; mkdir /run/image".to_owned(),
            format!(
                "touch /run/image/signet-agent; mount --bind {} /run/image/signet-agent",
                program.display()
            ),
        ];
        for mount in container["volumeMounts"].as_array().unwrap() {
            let source = &self.volumes[mount["name"].as_str().unwrap()];
            let at = mount["mountPath"].as_str().unwrap();
            script.push(format!("mkdir -p {at}; mount --bind {} {at}", source.display()));
            if mount["readOnly"] == true {
                script.push(format!("mount -o remount,bind,ro {at}"));
            }
        }
        let context = &self.spec["securityContext"];
        script.push(format!(
            "exec setpriv --reuid {} --regid {} --clear-groups --no-new-privs --bounding-set -all --inh-caps -all \"$@\"",
            context["runAsUser"], context["runAsGroup"]
        ));
        let mut command = self.within();
        command.args(["unshare", "--mount", "--propagation", "private", "sh", "-ec"]);
        command.args([
            script.join("\n"),
            "container".to_owned(),
            "env".to_owned(),
            "-i".to_owned(),
        ]);
        command.arg("PATH=/run/image:/usr/sbin:/usr/bin");
        for variable in container["env"].as_array().into_iter().flatten() {
            let [name, value] = ["name", "value"].map(|key| variable[key].as_str().unwrap());
            command.arg(format!("{name}={value}"));
        }
        let args = container["args"].as_array().into_iter().flatten();
        let args = args.map(|word| word.as_str().unwrap());
        command.args(strings(&container["command"]).chain(args));
        let log = fs::File::create(self.folder.path().join(format!("{name}.log"))).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    fn start(&self, name: &str) -> Started {
        Started(self.command(name).spawn().unwrap())
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap()
    }

    /// Waits until the container's probe passes.
    async fn passes(&self, name: &str, probe: &str) {
        let (container, at) = (self.container(name), &self.container(name)[probe]["httpGet"]);
        let mut ports = container["ports"].as_array().unwrap().iter();
        let port = &ports.find(|port| port["name"] == at["port"]).unwrap()["containerPort"];
        let get = format!(
            "curl --silent --fail --noproxy '*' http://127.0.0.1:{port}{}",
            at["path"].as_str().unwrap()
        );
        eventually(&format!("{probe} of {name}"), async || {
            self.types(&get).status.success().then_some(())
        })
        .await;
    }

    /// Waits until the program shows the certificate that is in the files, and that is not `before`.
    async fn shows_what_is_in_the_files(&self, before: &str) -> String {
        let file = self.volumes["files"].join("svid.pem");
        let in_file = format!("openssl x509 -noout -serial -in {}", file.display());
        let shown =
            "openssl s_client -connect 127.0.0.1:8443 </dev/null 2>/dev/null | openssl x509 -noout -serial";
        let serial = |commands: &str| String::from_utf8(self.types(commands).stdout).unwrap();
        let serial = |commands: &str| {
            serial(commands)
                .trim()
                .trim_start_matches("serial=")
                .to_lowercase()
        };
        eventually("the program to show what is in the files", async || {
            let now = serial(&in_file);
            (!now.is_empty() && now != before && now == serial(shown)).then_some(now)
        })
        .await
    }
}

/// The pod of the manifest, whose volume is published.
async fn published(domain: &Domain, agent: &Agent) -> PathBuf {
    let pod = PodSpec::new("shop", "web").service_account("web").node("node-a");
    domain.kube.add_pod(&pod).unwrap();
    let volume = agent.publish("shop", "web").await.unwrap();
    fs::canonicalize(agent.socket(&volume).parent().unwrap()).unwrap()
}

/// What somebody else of the trust domain is told by the program.
async fn asks(domain: &Domain, agent: &Agent, pod: &Pod) -> String {
    let spec = PodSpec::new("shop", "client")
        .service_account("client")
        .node("node-a");
    domain.kube.add_pod(&spec).unwrap();
    let volume = agent.publish("shop", "client").await.unwrap();
    let socket = format!("unix://{}", agent.socket(&volume).display());
    let dir = pod.folder.path().join("client");
    let dir = dir.to_str().unwrap();
    let fetch = [
        "fetch",
        "x509",
        "--socket",
        &socket,
        "--timeout",
        "30s",
        "--write",
        dir,
    ];
    let fetched = signet_tests::process::run(&binary("signet-agent"), fetch, &[])
        .await
        .unwrap();
    assert!(fetched.status.success(), "{fetched:?}");
    let get = format!(
        "curl --silent --show-error --insecure --noproxy '*' --cert {dir}/svid.pem --key {dir}/svid_key.pem https://127.0.0.1:8443/"
    );
    let answer = pod.types(&get);
    String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned()
}

mod needs_root {
    use super::*;

    #[test]
    #[ignore = "needs root, `ip`, `curl`, `nginx` and `openssl`: `.ci/step machine` runs it"]
    fn the_pod_with_files_starts_with_the_first_set_and_is_told_of_the_next() {
        let test = "the_pod_with_files_starts_with_the_first_set_and_is_told_of_the_next";
        if has_own_mounts(&format!("files::needs_root::{test}")) {
            tokio::runtime::Runtime::new().unwrap().block_on(is_kept());
        }
    }

    async fn is_kept() {
        let domain = Domain::start().await.unwrap();
        let mut agent = domain.agent("node-a").await.unwrap();
        let pod = Pod::new(&published(&domain, &agent).await);
        let first = pod.command("first-files").status().unwrap();
        assert!(first.success(), "{}", pod.log("first-files"));
        assert!(pod.volumes["files"].join("svid_key.pem").exists());

        let (mut web, mut files) = (pod.start("web"), pod.start("files"));
        for probe in ["readinessProbe", "livenessProbe"] {
            pod.passes("files", probe).await;
        }
        let serial = pod.shows_what_is_in_the_files("").await;
        let answer = asks(&domain, &agent, &pod).await;
        assert_eq!(answer, "ok\n", "{}", pod.log("web"));
        let revoke = ["revoke", "--serial", &serial];
        domain.server.admin(&revoke).await.unwrap();
        pod.shows_what_is_in_the_files(&serial).await;
        pod.passes("files", "readinessProbe").await;

        // One that is started again has files, whatever the agent does.
        agent.kill().await;
        files.end(Signal::SIGKILL);
        assert!(!files.0.wait().unwrap().success());
        files = pod.start("files");
        pod.passes("files", "readinessProbe").await;
        for container in [&mut files, &mut web] {
            container.end(Signal::SIGTERM);
            assert!(container.0.wait().unwrap().success());
        }
    }
}

/// What Pod Security's level `restricted` asks, and what keeps keys off disks.
#[test]
fn the_pod_with_files_is_restricted_and_keeps_keys_in_memory() {
    let yaml = fs::read_to_string(root().join(MANIFEST)).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    let spec = &objects.iter().find(|object| object["kind"] == "Pod").unwrap()["spec"];
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    for kind in ["initContainers", "containers"] {
        for container in spec[kind].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{container}");
        }
    }
    let volumes = spec["volumes"].as_array().unwrap();
    let files = volumes.iter().find(|volume| volume["name"] == "files").unwrap();
    assert_eq!(files["emptyDir"]["medium"], "Memory");
    // docs/files.md: the folder needs room for ten of the largest sets.
    let size = files["emptyDir"]["sizeLimit"].as_str().unwrap();
    let mebibytes: f64 = size.strip_suffix("Mi").unwrap().parse().unwrap();
    assert!(mebibytes > 10.0 * 4.2, "{size}");
}
