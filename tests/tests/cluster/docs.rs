//! docs/kubernetes.md, command by command, as somebody reads it who has a cluster. What differs on this machine is edited in a copy
//! of the manifests, as the page says: where kubelet's folder is, and a server without a name, for there may be no DNS.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use signet_tests::process::binary;
use signet_tests::repository::root;
use tempfile::TempDir;
use tokio::process::Command;

use crate::api::{Cluster, text};
use crate::checks::{Check, World, checks, say};
use crate::images::{containerd, said};

pub(crate) const FROM_1_36_ON: &[Check<Reader>] = checks![
    "every command of docs/kubernetes.md succeeds, and its pod has its identity" => follows_all,
];
pub(crate) const BEFORE_1_36: &[Check<Reader>] = checks![
    "every command of docs/kubernetes.md but those that move tokens succeeds, and its pod has its identity" => follows_the_rest,
];

/// The user whose ID the server's image and manifest name.
const SERVER: u32 = 65532;

/// The first version whose kubelet can bring the pods' tokens among the secrets of its calls, as the API server's `/version` tells it.
const TOKENS_IN_SECRETS: (u32, u32) = (1, 36);

/// Somebody with a copy of the project, an administrator's kubeconfig, and a page to follow.
pub(crate) struct Reader {
    cluster: Arc<Cluster>,
    folder: TempDir,
    /// On tmpfs, as `/run` is where an init system runs.
    _run: TempDir,
}

impl World for Reader {
    fn log(&self) -> String {
        String::new()
    }
}

/// What the page applies.
const MANIFESTS: [&str; 6] = [
    "rbac",
    "rbac-namespaces",
    "server",
    "csidriver",
    "csidriver-secrets",
    "agent",
];

impl Reader {
    pub(crate) async fn set_up(cluster: Arc<Cluster>) -> Result<Self> {
        for path in [
            "/apis/storage.k8s.io/v1/csidrivers/csi.signet.dev",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/signet-server",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/signet-server",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/signet-server-namespaces",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/signet-server-namespaces",
            "/api/v1/namespaces/signet-system",
            "/api/v1/namespaces/shop",
        ] {
            ensure!(
                cluster.find(path).await?.is_none(),
                "{path} is there: somebody uses it"
            );
            cluster.remember_outside(path);
        }
        let kubelet =
            PathBuf::from(std::env::var_os(crate::KUBELET_DIR).context("no kubelet")?).canonicalize()?;
        let folder = signet_testkit::folder();
        let run = tempfile::Builder::new().tempdir_in("/dev/shm")?;
        for file in ["Cargo.toml", "deploy/image/build"] {
            copy(file, folder.path())?;
        }
        for manifest in MANIFESTS {
            copy(&format!("deploy/kubernetes/{manifest}.yaml"), folder.path())?;
        }
        let reader = Self {
            cluster,
            folder,
            _run: run,
        };
        reader.storage().await?;
        let (run, kubelet) = (
            reader._run.path().display().to_string(),
            kubelet.display().to_string(),
        );
        let data = reader.folder.path().join("agent").display().to_string();
        reader.edit("agent.yaml", |yaml| {
            yaml.replace(
                "hostPath: {path: /run/signet-agent,",
                &format!("hostPath: {{path: {run},"),
            )
            .replace(
                "hostPath: {path: /var/lib/signet-agent,",
                &format!("hostPath: {{path: {data},"),
            )
            .replace("/var/lib/kubelet", &kubelet)
            .replace(
                "      enabled: true\n",
                &format!("      enabled: true\n      kubelet_dir: {kubelet}\n"),
            )
        })?;
        Ok(reader)
    }

    /// A volume for the server: what a storage class would make.
    async fn storage(&self) -> Result<()> {
        let folder = self.folder.path().join("server");
        fs::create_dir(&folder)?;
        std::os::unix::fs::chown(&folder, Some(SERVER), Some(SERVER))?;
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": self.cluster.namespace},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": folder},
                "claimRef": {"namespace": "signet-system", "name": "data-signet-server-0"},
            },
        });
        self.cluster
            .create_outside("/api/v1/persistentvolumes", &volume)
            .await
            .map(drop)
    }

    fn edit(&self, manifest: &str, change: impl FnOnce(String) -> String) -> Result<()> {
        let path = self.folder.path().join("deploy/kubernetes").join(manifest);
        let before = fs::read_to_string(&path)?;
        let after = change(before.clone());
        ensure!(after != before, "nothing to edit in {manifest}");
        Ok(fs::write(path, after)?)
    }

    /// Where there is no DNS, the agents' hosts file tells the server's name.
    async fn name_the_server(&self) -> Result<()> {
        let pod = self
            .cluster
            .get("/api/v1/namespaces/signet-system/pods/signet-server-0")
            .await?;
        let address = text(&pod, "/status/podIP")?;
        self.edit("agent.yaml", |yaml| {
            yaml.replace(
                "      serviceAccountName: signet-agent\n",
                &format!(
                    "      serviceAccountName: signet-agent\n      hostAliases: [{{ip: {address}, hostnames: \
                     [signet-server.signet-system.svc]}}]\n"
                ),
            )
        })
    }

    async fn shell(&self, block: &str) -> Result<String> {
        let program = |variable: &str, name: &str| {
            std::env::var_os(variable).map_or_else(|| binary(name), PathBuf::from)
        };
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", block])
            .current_dir(self.folder.path())
            .env(
                "KUBECONFIG",
                std::env::var_os(crate::KUBECONFIG).unwrap_or_default(),
            )
            .env("CONTAINERD_ADDRESS", containerd()?)
            // The page names the folder that is usual.
            .env_remove("CARGO_TARGET_DIR")
            .env("SIGNET_AGENT", program("SIGNET_AGENT", "signet-agent"))
            .env("SIGNET_SERVER", program("SIGNET_SERVER", "signet-server"))
            .env("SIGNET_IMAGE", binary("signet-image"));
        said(&mut shell).await.with_context(|| block.to_owned())
    }
}

fn copy(file: &str, into: &Path) -> Result<()> {
    let to = into.join(file);
    fs::create_dir_all(to.parent().context("a file in a folder")?)?;
    fs::copy(root().join(file), to)
        .with_context(|| file.to_owned())
        .map(drop)
}

/// The page's commands, up to what to do when they do not work.
fn commands() -> Result<Vec<String>> {
    let page = fs::read_to_string(root().join("docs/kubernetes.md"))?;
    let (page, _) = page
        .split_once("## When it does not work")
        .context("another page")?;
    let blocks = page.split("```sh\n").skip(1);
    let block = |rest: &str| Some(rest.split_once("```")?.0.to_owned());
    Ok(blocks.filter_map(block).collect())
}

/// Major and minor of what `/version` answers; providers add to the minor.
fn version(answer: &Value) -> Result<(u32, u32)> {
    let number = |pointer: &str| -> Result<u32> {
        let text = text(answer, pointer)?;
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        digits.parse().with_context(|| format!("{pointer}: {text}"))
    };
    Ok((number("/major")?, number("/minor")?))
}

#[test]
fn a_version_is_compared_by_number_whatever_a_provider_adds() {
    let of = |major: &str, minor: &str| version(&json!({ "major": major, "minor": minor })).ok();
    assert_eq!((of("1", "36"), of("1", "35+")), (Some((1, 36)), Some((1, 35))));
    assert_eq!((of("1", ""), of("", "36")), (None, None));
    assert!(of("1", "100").unwrap() > TOKENS_IN_SECRETS && of("1", "4").unwrap() < TOKENS_IN_SECRETS);
}

async fn follows_all(reader: &mut Reader) -> Result<()> {
    ensure!(can_move_tokens(reader).await?, "the cluster is older than 1.36");
    follows(reader, true).await
}

async fn follows_the_rest(reader: &mut Reader) -> Result<()> {
    ensure!(
        !can_move_tokens(reader).await?,
        "the cluster can do what all of the page asks"
    );
    follows(reader, false).await
}

async fn can_move_tokens(reader: &Reader) -> Result<bool> {
    Ok(version(&reader.cluster.get("/version").await?)? >= TOKENS_IN_SECRETS)
}

/// With or without the commands that move the tokens.
async fn follows(reader: &mut Reader, can_move_tokens: bool) -> Result<()> {
    let blocks = commands()?;
    ensure!(blocks.len() >= 8, "{} blocks of commands", blocks.len());
    let moves_tokens = |block: &String| block.contains("csidriver-secrets.yaml");
    ensure!(
        blocks.iter().filter(|block| moves_tokens(block)).count() == 1,
        "the page moves the tokens once"
    );
    let mut last = String::new();
    for block in &blocks {
        if moves_tokens(block) && !can_move_tokens {
            continue;
        }
        if block.contains("csidriver.yaml") {
            reader.name_the_server().await?;
        }
        last = match reader.shell(block).await {
            Ok(said) => said,
            Err(error) => return Err(error.context(reader.around().await)),
        };
        say(&format!("ran: {}", block.lines().next().unwrap_or_default()));
    }
    ensure!(
        last.contains("spiffe://example.org/ns/shop/sa/frontend"),
        "the pod says: {last}"
    );
    if can_move_tokens {
        tokens_move_back(reader, blocks.last().context("no pod")?).await?;
    }
    Ok(())
}

/// The page moved the tokens: once more with them where they are in every version.
async fn tokens_move_back(reader: &Reader, pod: &str) -> Result<()> {
    reader
        .shell(
            "kubectl -n shop delete pod web --wait=true\n\
             sed -i 's/tokens_from: secrets/tokens_from: volume_context/' deploy/kubernetes/agent.yaml\n\
             kubectl apply -f deploy/kubernetes/agent.yaml\n\
             kubectl delete csidriver csi.signet.dev\n\
             kubectl apply -f deploy/kubernetes/csidriver.yaml\n\
             kubectl -n signet-system rollout restart daemonset/signet-agent\n\
             kubectl -n signet-system rollout status daemonset/signet-agent --timeout=120s",
        )
        .await?;
    let pod = pod
        .lines()
        .skip_while(|line| !line.starts_with("kubectl apply"))
        .collect::<Vec<_>>()
        .join("\n");
    let again = reader.shell(&pod).await?;
    ensure!(
        again.contains("spiffe://example.org/ns/shop/sa/frontend"),
        "the pod says: {again}"
    );
    Ok(())
}

impl Reader {
    /// What the cluster says, for a command that failed.
    async fn around(&self) -> String {
        let look = "kubectl get pods -A -o wide; kubectl -n signet-system describe pods | tail -n 60; kubectl -n shop describe pods | tail -n 20; \
             kubectl -n signet-system logs statefulset/signet-server --tail=20; kubectl -n signet-system logs daemonset/signet-agent --tail=20; true";
        self.shell(&look.replace("; ", "\n").replace('\n', " || true\n"))
            .await
            .unwrap_or_default()
    }
}
