//! The running trust domain.

use std::{ffi::OsStr, path::Path, time::Duration};

use anyhow::{Context, bail};
use signet_runtime::{
    files::{self, Durability},
    uds,
};
use signet_server::cli::admin::AdminClient;
use signet_tests::wait;
use tokio::sync::Mutex;

use crate::{
    child::{Child, Role},
    configs::{self, Ports, Times},
    layout::Layout,
    names::{PODS, TRUST_DOMAIN},
    pods::{self, Pods},
};

/// How long one part may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before a child that ended is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Server, agent, fake API and demo pods.
pub(crate) struct Domain {
    layout: Layout,
    kube: String,
    ports: Ports,
    pods: Pods,
    children: Mutex<Vec<Child>>,
}

impl Domain {
    /// Starts everything and waits until every demo pod's socket is there.
    pub(crate) async fn start(layout: Layout, times: &Times) -> anyhow::Result<Self> {
        let ports = Ports::free()?;
        configs::write_server(&layout, ports, times)?;
        configs::write_agent(&layout, ports)?;

        let (url_file, kubeconfig) = (layout.kube("url"), layout.kube("kubeconfig"));
        let mut kube_child = Child::start(
            Role::Kube,
            &[url_file.as_os_str(), kubeconfig.as_os_str()],
            &layout.kube(""),
        )?;
        let kube = up(&mut kube_child, async || std::fs::read_to_string(&url_file).ok()).await?;
        pods::create(&kube).await?;
        pods::write_agent_token(&kube, &layout).await?;

        let mut server = start(Role::Server, &layout.server("server.yaml"), &layout.server(""))?;
        let admin = layout.admin_socket();
        up(&mut server, async || {
            let answer = AdminClient::connect(&admin)
                .await
                .ok()?
                .healthcheck()
                .await
                .ok()?;
            answer.problem.is_none().then_some(())
        })
        .await?;

        let mut agent = start(Role::Agent, &layout.agent("agent.yaml"), &layout.agent(""))?;
        let pods = tokio::select! {
            pods = Pods::publish(&kube, &layout) => pods?,
            status = agent.ended() => bail!("{}", ended(&agent, &status)),
        };
        for (namespace, name, _) in PODS {
            let socket = layout.pod_socket(namespace, name);
            up(&mut agent, async || uds::connect(&socket).await.ok()).await?;
        }
        let shell = layout.shell_socket();
        up(&mut agent, async || uds::connect(&shell).await.ok()).await?;
        Ok(Self {
            layout,
            kube,
            ports,
            pods,
            children: Mutex::new(vec![agent, server, kube_child]),
        })
    }

    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn publish_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.publish)
    }

    /// What users source, written last and by rename: when it is there, all is ready.
    pub(crate) fn write_env(&self) -> anyhow::Result<()> {
        let variables = [
            (
                "SIGNET_ADMIN_SOCKET",
                self.layout.admin_socket().display().to_string(),
            ),
            (
                "SIGNET_AGENT_ADMIN_SOCKET",
                self.layout.agent_admin_socket().display().to_string(),
            ),
            (
                "SPIFFE_ENDPOINT_SOCKET",
                format!("unix://{}", self.layout.shell_socket().display()),
            ),
            ("SIGNET_PUBLISH_URL", self.publish_url()),
            (
                "SIGNET_BUNDLE_URL",
                format!("https://127.0.0.1:{}/", self.ports.bundle),
            ),
            ("SIGNET_KUBE_URL", self.kube.clone()),
            ("SIGNET_POD_SOCKETS", self.layout.pods().display().to_string()),
        ];
        let text: String = variables
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
            .collect();
        files::replace(
            &self.layout.env_file(),
            text.as_bytes(),
            0o644,
            Durability::Volatile,
        )?;
        Ok(())
    }

    /// A few lines on what to try.
    pub(crate) fn what_next(&self) -> String {
        let env = self.layout.env_file();
        let (namespace, name, _) = PODS[0];
        format!(
            "\
The trust domain {td} is up. In another shell:

  . {env}
  signet-server status                       # cargo run --bin signet-server -- status
  signet-server svid list --live
  signet-agent fetch x509                    # your shell's own identity
  signet-agent fetch x509 --socket unix://$SIGNET_POD_SOCKETS/{namespace}.{name}/{socket}
  signet-server ca rotate
  signet-server revoke --spiffe-id /ns/{namespace}/sa/{name}
  curl -s $SIGNET_PUBLISH_URL/crl.pem | openssl crl -noout -text

Logs: {server} and {agent}. Ctrl-C ends it all.",
            td = TRUST_DOMAIN,
            env = env.display(),
            socket = signet_agent::SOCKET_NAME,
            server = self.layout.server("log").display(),
            agent = self.layout.agent("log").display(),
        )
    }

    /// Brings fresh tokens and starts children again that ended; returns only with a problem.
    pub(crate) async fn watch(&self) -> anyhow::Error {
        let restart = async {
            let mut children = self.children.lock().await;
            loop {
                let (index, status) = first_to_end(&mut children).await;
                let Some(child) = children.get_mut(index) else {
                    continue;
                };
                eprintln!("{} ended ({status}) and is started again", child.role().name());
                tokio::time::sleep(RESTART_AFTER).await;
                if let Err(error) = child.restart() {
                    return error;
                }
            }
        };
        tokio::select! {
            problem = restart => problem,
            () = self.pods.keep_fresh() => anyhow::anyhow!("the demo pods' tokens are no longer kept fresh"),
        }
    }

    /// Ends the children, the agent first.
    pub(crate) async fn stop(&self) {
        for child in self.children.lock().await.iter_mut() {
            child.stop().await;
        }
        // Gone: whoever still has it sourced sees that nothing runs.
        let _ = std::fs::remove_file(self.layout.env_file());
    }
}

fn start(role: Role, config: &Path, folder: &Path) -> anyhow::Result<Child> {
    Child::start(
        role,
        &[OsStr::new("run"), OsStr::new("--config"), config.as_os_str()],
        folder,
    )
}

/// Waits for a sign of life, or says why there will be none.
async fn up<T>(child: &mut Child, probe: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
    let come_up = wait::within(PATIENCE, probe);
    let name = child.role().name();
    let status = tokio::select! {
        alive = come_up => {
            return alive.with_context(|| format!("{name} did not come up within {} s", PATIENCE.as_secs()));
        }
        status = child.ended() => status,
    };
    bail!("{}", ended(child, &status))
}

fn ended(child: &Child, status: &str) -> String {
    format!(
        "{} ended at start ({status}); the end of its log:\n{}",
        child.role().name(),
        child.last_words()
    )
}

async fn first_to_end(children: &mut [Child]) -> (usize, String) {
    let ends = children.iter_mut().map(|child| Box::pin(child.ended()));
    let (status, index, _) = futures_util::future::select_all(ends).await;
    (index, status)
}

/// For a shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}
