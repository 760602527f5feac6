//! Every path of both configurations, with each fault of a table. Where that is refused, `validate` and `run` do so at once, with key,
//! path and remedy; where it is not, `validate` finds nothing wrong. `validate` makes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use signet_testkit::machine::as_root;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    process::{Finished, binary, run},
};
use tempfile::TempDir;
use tokio::time::timeout;

/// sysexits' EX_CONFIG.
const EX_CONFIG: i32 = 78;
/// How long a refusal may take, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What becomes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    /// It is used, and made where it is missing.
    Used,
    /// One line, exit 78.
    Refused,
}
use Becomes::{Refused, Used};

/// A key, as a JSON pointer, and what becomes of a path under it whose parent is missing; of a directory; of a path below a file, where
/// not even root may make anything; and of one that is missing on a disk that is read only, which is not tried where it is `Used`.
struct Key {
    pointer: &'static str,
    missing_parent: Becomes,
    directory: Becomes,
    below_file: Becomes,
    read_only: Becomes,
}

const fn key(
    pointer: &'static str,
    missing_parent: Becomes,
    directory: Becomes,
    below_file: Becomes,
    read_only: Becomes,
) -> Key {
    Key {
        pointer,
        missing_parent,
        directory,
        below_file,
        read_only,
    }
}

const SERVER: [Key; 10] = [
    key("/data_dir", Used, Used, Refused, Refused),
    key("/listen/admin_socket", Used, Refused, Refused, Refused),
    key(
        "/publish/bundle_certificate_file",
        Refused,
        Refused,
        Refused,
        Used,
    ),
    key("/publish/bundle_key_file", Refused, Refused, Refused, Used),
    key("/keys/kek_file", Used, Refused, Refused, Refused),
    key("/trust/control_anchors_file", Used, Refused, Refused, Refused),
    key(
        "/attestation/clusters/0/kubeconfig",
        Refused,
        Refused,
        Refused,
        Used,
    ),
    key(
        "/attestation/clusters/1/api_server/ca_file",
        Refused,
        Refused,
        Refused,
        Used,
    ),
    key(
        "/attestation/clusters/1/api_server/token_file",
        Refused,
        Refused,
        Refused,
        Used,
    ),
    key("/audit/file", Refused, Refused, Refused, Refused),
];

const AGENT: [Key; 10] = [
    key("/data_dir", Used, Used, Refused, Used),
    key("/state_dir", Used, Used, Refused, Refused),
    key("/trust/anchors_file", Refused, Refused, Refused, Used),
    key("/node/token_file", Used, Refused, Used, Used),
    key("/admin_socket", Used, Refused, Refused, Refused),
    key("/shared_socket/path", Used, Refused, Refused, Refused),
    key("/csi/socket_path", Used, Refused, Refused, Refused),
    key("/csi/registration_dir", Refused, Used, Refused, Refused),
    key("/csi/kubelet_dir", Refused, Used, Refused, Refused),
    key("/csi/volumes_dir", Used, Used, Refused, Refused),
];

/// What is wrong with a path.
struct Fault<'a> {
    what: &'static str,
    path: PathBuf,
    /// Where the program finds a disk that is read only, which nobody else sees and which goes with the program.
    read_only: Option<&'a Path>,
}

impl Fault<'_> {
    fn of(what: &'static str, path: PathBuf) -> Self {
        Self {
            what,
            path,
            read_only: None,
        }
    }
}

/// What tells `unshare` to give a program mounts of its own.
fn private() -> Vec<&'static str> {
    [as_root(), &["--mount", "--propagation", "private"]].concat()
}

/// A program with a configuration that can be used.
struct Tried {
    program: &'static str,
    config: Value,
    folder: TempDir,
    /// Its files are those that the configuration names.
    _domain: (Domain, Option<Agent>),
}

impl Tried {
    /// What the program says to the configuration with another path.
    async fn says(&self, command: &str, pointer: &str, fault: &Fault<'_>) -> Finished {
        let mut config = self.config.clone();
        *config.pointer_mut(pointer).unwrap() = json!(fault.path);
        let file = self.folder.path().join("config.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let program = binary(self.program);
        let args = [command, "--config", file.to_str().unwrap()];
        let said = async {
            let Some(disk) = fault.read_only else {
                return run(&program, args, &[]).await;
            };
            let script = "mount -t tmpfs -o ro tmpfs \"$0\"; exec \"$@\"";
            let words = [disk.to_str().unwrap(), program.to_str().unwrap()];
            let args = [private().as_slice(), &["sh", "-ec", script], &words, &args].concat();
            run(Path::new("unshare"), args, &[]).await
        };
        timeout(AT_ONCE, said)
            .await
            .unwrap_or_else(|_| panic!("{} {command}: {pointer} {}", self.program, fault.path.display()))
            .unwrap()
    }

    async fn becomes(&self, fault: &Fault<'_>, pointer: &str, expected: Becomes) {
        let path = &fault.path;
        let named = pointer.trim_start_matches('/').replace('/', ".");
        let named = named.replace("clusters.0", "clusters[0]");
        let named = named.replace("clusters.1.api_server.ca_file", "clusters[1].api_server");
        let named = named.replace("clusters.1.api_server.token_file", "clusters[1].api_server");
        let what = format!("{}: {named}: {} {}", self.program, fault.what, path.display());
        let was_there = path.exists();
        let validated = self.says("validate", pointer, fault).await;
        assert_eq!(
            path.exists(),
            was_there,
            "{what}: `validate` leaves nothing behind"
        );
        if expected == Used {
            assert!(validated.status.success(), "{what}: {}", validated.stderr);
            return;
        }
        for (command, said) in [
            ("validate", validated),
            ("run", self.says("run", pointer, fault).await),
        ] {
            assert_eq!(
                said.status.code(),
                Some(EX_CONFIG),
                "{what}: {command}: {}",
                said.stderr
            );
            let lines: Vec<_> = said
                .stderr
                .lines()
                .filter(|line| !line.starts_with("warning: "))
                .collect();
            // A folder may be that of several keys.
            let line = lines.iter().find(|line| line.contains(&format!("{named}: ")));
            let line = line.unwrap_or_else(|| panic!("{what}: {command}: {}", said.stderr));
            assert!(
                line.contains(path.to_str().unwrap()) && line.contains("; "),
                "{what}: {command}: {line}"
            );
        }
    }

    /// Each key of `keys`, with each fault of the table that needs nothing of the machine.
    async fn walk(&self, keys: &[Key]) {
        let scratch = signet_testkit::folder();
        let at = |name: &str| scratch.path().join(name);
        fs::write(at("file"), "in the way").unwrap();
        fs::create_dir(at("folder")).unwrap();
        let missing = Fault::of("missing parent", at("missing/parent"));
        let directory = Fault::of("a directory", at("folder"));
        let below_file = Fault::of("below a file", at("file/below"));
        for key in keys {
            self.becomes(&missing, key.pointer, key.missing_parent).await;
            self.becomes(&directory, key.pointer, key.directory).await;
            self.becomes(&below_file, key.pointer, key.below_file).await;
        }
    }

    /// Each key of `keys` that is written to, on a disk that is read only.
    async fn walk_read_only(&self, keys: &[Key]) {
        let disk = signet_testkit::folder();
        let fault = Fault {
            what: "read only",
            path: disk.path().join("new"),
            read_only: Some(disk.path()),
        };
        for key in keys.iter().filter(|key| key.read_only == Refused) {
            self.becomes(&fault, key.pointer, Refused).await;
        }
    }
}

/// The configuration of a part of the box, in which it no longer runs, with every key that names a path.
fn written(path: &Path, more: &[(&str, Value)]) -> Value {
    let mut config: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for (pointer, value) in more {
        let (above, last) = pointer.rsplit_once('/').unwrap();
        let place = config.pointer_mut(above).unwrap();
        match place {
            Value::Array(items) => items.push(value.clone()),
            place => place[last] = value.clone(),
        }
    }
    config
}

/// A configuration of the server with every key that names a path.
async fn server() -> Tried {
    let mut domain = Domain::start().await.unwrap();
    domain.server.stop().await.unwrap();
    let folder = domain.server.folder();
    let (certificate, key) = (folder.join("web.pem"), folder.join("web_key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let token = folder.join("token");
    fs::write(&token, "token").unwrap();
    let cluster = json!({
        "name": "second",
        "uid": "11111111-2222-4333-8444-555555555555",
        "api_server": { "url": "https://192.0.2.1", "ca_file": certificate, "token_file": token },
    });
    let uid = json!(domain.kube.cluster_uid());
    let config = written(
        &domain.server.config_path(),
        &[
            ("/publish/bundle_certificate_file", json!(certificate)),
            ("/publish/bundle_key_file", json!(key)),
            ("/keys", json!({ "kek_file": folder.join("kek") })),
            ("/attestation/clusters/0/uid", uid),
            ("/same_identity", json!(true)),
            ("/attestation/clusters/-", cluster),
        ],
    );
    Tried {
        program: "signet-server",
        config,
        folder: signet_testkit::folder(),
        _domain: (domain, None),
    }
}

/// As [`server`], of the agent.
async fn agent() -> Tried {
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    agent.stop().await.unwrap();
    // Without what was kept the file of anchors counts.
    fs::remove_dir_all(agent.folder().join("data")).unwrap();
    let registry = agent.folder().join("kubelet/plugins_registry");
    let config = written(
        &agent.folder().join("agent.yaml"),
        &[("/csi/registration_dir", json!(registry))],
    );
    Tried {
        program: "signet-agent",
        config,
        folder: signet_testkit::folder(),
        _domain: (domain, Some(agent)),
    }
}

#[tokio::test]
async fn every_path_of_the_server_is_made_or_refused_with_its_key() {
    server().await.walk(&SERVER).await;
}

#[tokio::test]
async fn every_path_of_the_agent_is_made_or_refused_with_its_key() {
    agent().await.walk(&AGENT).await;
}

mod needs_namespaces {
    use super::*;

    #[tokio::test]
    #[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
    async fn every_path_of_the_server_is_refused_with_its_key_on_a_disk_that_is_read_only() {
        server().await.walk_read_only(&SERVER).await;
    }

    #[tokio::test]
    #[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
    async fn every_path_of_the_agent_is_refused_with_its_key_on_a_disk_that_is_read_only() {
        agent().await.walk_read_only(&AGENT).await;
    }
}

/// The test knows every key of the samples that names a path.
#[test]
fn no_key_that_names_a_path_is_left_out() {
    for (sample, keys) in [("server.full.yaml", &SERVER), ("agent.full.yaml", &AGENT)] {
        let path = signet_tests::repository::root()
            .join("deploy/config")
            .join(sample);
        let text = fs::read_to_string(path).unwrap();
        let named = text.lines().filter_map(|line| {
            let (name, value) = line
                .trim()
                .trim_start_matches("- ")
                .trim_start_matches("# ")
                .split_once(':')?;
            let value = value.trim().trim_matches('"');
            (value.starts_with('/') && value.len() > 1).then(|| name.trim().to_owned())
        });
        for name in named {
            let known = keys.iter().any(|key| key.pointer.ends_with(&format!("/{name}")));
            assert!(known || NO_PATHS.contains(&name.as_str()), "{sample}: {name}");
        }
    }
}

/// Keys whose values begin with a slash and name no file.
const NO_PATHS: [&str; 3] = ["bundle_path", "spiffe_id", "path_prefix"];

/// As after a restart of the machine: what lay below /run is gone, folders and sockets.
#[tokio::test]
async fn both_programs_start_where_run_is_empty_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;

    let run_dir = signet_testkit::folder();
    let at = |name: &str| run_dir.path().join(name);
    let plan = Plan::default()
        .launch(signet_tests::part::Launch::Umask("077"))
        .server("/listen/admin_socket", json!(at("signet-server/admin.sock")))
        .agent("/admin_socket", json!(at("signet-agent/admin.sock")))
        .agent("/state_dir", json!(at("signet-agent/state")))
        .agent("/csi/volumes_dir", json!(at("signet-agent/volumes")))
        .agent("/shared_socket/path", json!(at("signet-agent/public/api.sock")));
    let domain = plan.start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("signet-server"), mode("signet-agent")), (0o755, 0o755));
    assert_eq!(
        (mode("signet-agent/public"), mode("signet-agent/state")),
        (0o755, 0o700)
    );
    drop(agent);
}

/// Who asks whether a file is good while its server runs is told so, and who holds what.
#[tokio::test]
async fn the_configuration_of_a_running_server_is_good() {
    let domain = Domain::start().await.unwrap();
    let config = domain.server.config_path();
    let args = ["validate", "--config", config.to_str().unwrap()];
    let said = run(&binary("signet-server"), args, &[]).await.unwrap();
    assert!(said.status.success(), "{}", said.stderr);
    for key in ["listen.admin_socket", "listen.agents", "listen.publish"] {
        assert!(said.stdout.contains(key), "{key}: {}", said.stdout);
    }
    domain.server.admin(&["status"]).await.unwrap();
}
