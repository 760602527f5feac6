//! The running trust domain, with a few demo pods on its one node.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use serde_json::json;
use signet_agent::SOCKET_NAME;
use signet_runtime::{
    environment::{self, RUST_LOG},
    files::{self, Durability},
    uds,
};
use signet_tests::{
    domain::{self, Agent, Plan, TRUST_DOMAIN},
    fake_kube::PodSpec,
    kubelet::Volume,
    part::{Launch, Part},
    wait,
};
use tokio::time::{Instant, interval_at, sleep};

use crate::{
    layout::{Layout, NODE},
    voice::Voice,
};

/// The demo pods: namespace, name, which is also the service account's.
const PODS: [(&str, &str); 3] = [("shop", "frontend"), ("shop", "backend"), ("bank", "ledger")];
/// Before a part that ended is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How often kubelet brings fresh tokens.
const REFRESH: Duration = Duration::from_secs(20 * 60);

/// How long things live.
pub(crate) struct Times {
    svid_ttl: Duration,
    authority_ttl: Duration,
}

impl Times {
    /// As in production, but for the SVIDs, whose rotation somebody may want to watch.
    pub(crate) const fn everyday(svid_ttl: Duration) -> Self {
        Self {
            svid_ttl,
            authority_ttl: Duration::from_secs(7 * 24 * 3600),
        }
    }

    /// So short that a renewal can be watched.
    pub(crate) const fn story() -> Self {
        Self {
            svid_ttl: Duration::from_secs(20),
            authority_ttl: Duration::from_secs(3600),
        }
    }
}

/// Server, agent, fake API and demo pods.
pub(crate) struct Domain {
    layout: Layout,
    domain: domain::Domain,
    agent: Agent,
    volumes: Vec<Volume>,
    voice: Voice,
}

impl Domain {
    /// Starts everything and waits until every demo pod's socket is there.
    pub(crate) async fn start(layout: Layout, times: &Times, voice: Voice) -> anyhow::Result<Self> {
        let launch = Launch::Itself {
            level: environment::text(RUST_LOG).unwrap_or_else(|| "info".to_owned()),
            to_file: true,
        };
        let seconds = |time: Duration| json!(format!("{}s", time.as_secs()));
        let domain = Plan::default()
            .folder(layout.root())
            .launch(launch)
            .server("/svid/ttl", seconds(times.svid_ttl))
            .server("/authority/ttl", seconds(times.authority_ttl))
            // The user's own shell: whoever runs as this uid on this machine.
            .server(
                "/rules",
                json!([{
                    "name": "shell",
                    "match": { "evidence": ["unix"], "unix": { "uids": [nix::unistd::getuid().as_raw()] } },
                    "spiffe_id": "/dev/uid/{uid}",
                    "dns_names": ["localhost"],
                }]),
            )
            .start()
            .await?;
        let agent = domain.agent(NODE).await?;
        let mut volumes = Vec::new();
        for (namespace, name) in PODS {
            let spec = PodSpec::new(namespace, name).service_account(name).node(NODE);
            domain.kube.add_pod(&spec)?;
            let volume = agent.publish(namespace, name).await?;
            answers(agent.socket(&volume)).await?;
            volumes.push(volume);
        }
        answers(agent.shell_socket()).await?;
        Ok(Self {
            layout,
            domain,
            agent,
            volumes,
            voice,
        })
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.domain.server.admin_socket()
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        self.layout.root()
    }

    pub(crate) fn publish_url(&self) -> String {
        self.domain.server.publish_url()
    }

    /// The socket of a demo pod, as its containers would see it.
    pub(crate) fn pod_socket(&self, namespace: &str, name: &str) -> PathBuf {
        let pod = self.agent.pods().join(format!("{namespace}.{name}"));
        pod.join(SOCKET_NAME)
    }

    /// What users source, written last and by rename: when it is there, all is ready.
    pub(crate) fn write_env(&self) -> anyhow::Result<()> {
        let (server, agent) = (&self.domain.server, &self.agent);
        let variables = [
            ("SIGNET_ADMIN_SOCKET", server.admin_socket().display().to_string()),
            (
                "SIGNET_AGENT_ADMIN_SOCKET",
                agent.admin_socket().display().to_string(),
            ),
            (
                "SPIFFE_ENDPOINT_SOCKET",
                format!("unix://{}", agent.shell_socket().display()),
            ),
            ("SIGNET_PUBLISH_URL", server.publish_url()),
            ("SIGNET_BUNDLE_URL", format!("https://{}/", server.bundle())),
            ("SIGNET_KUBE_URL", self.domain.kube.url()),
            ("SIGNET_POD_SOCKETS", agent.pods().display().to_string()),
        ];
        let text: String = variables
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
            .collect();
        let env = self.layout.env_file();
        files::replace(&env, text.as_bytes(), 0o644, Durability::Volatile).context("write the env file")
    }

    /// A few lines on what to try.
    pub(crate) fn what_next(&self) -> String {
        let env = self.layout.env_file();
        let (namespace, name) = PODS[0];
        format!(
            "\
The trust domain {TRUST_DOMAIN} is up. In another shell:

  . {env}
  signet-server status                       # cargo run --bin signet-server -- status
  signet-server svid list --live
  signet-agent fetch x509                    # your shell's own identity
  signet-agent fetch x509 --socket unix://$SIGNET_POD_SOCKETS/{namespace}.{name}/{SOCKET_NAME}
  signet-server ca rotate
  signet-server revoke --spiffe-id /ns/{namespace}/sa/{name}
  curl -s $SIGNET_PUBLISH_URL/crl.pem | openssl crl -noout -text

Logs: {server} and {agent}. Ctrl-C ends it all.",
            env = env.display(),
            server = self.domain.server.folder().join("log").display(),
            agent = self.agent.folder().join("log").display(),
        )
    }

    /// Brings fresh tokens and starts parts again that ended, as kubelet would; returns only with a problem.
    pub(crate) async fn watch(&mut self) -> anyhow::Error {
        let mut refresh = interval_at(Instant::now() + REFRESH, REFRESH);
        loop {
            let (part, status) = tokio::select! {
                status = async { self.domain.server.process()?.ended().await } => (Part::Server, status),
                status = async { self.agent.process()?.ended().await } => (Part::Agent, status),
                _ = refresh.tick() => {
                    if let Err(error) = self.refresh().await {
                        self.voice.warn(&format!("fresh tokens could not be brought, the old ones serve on: {error:#}"));
                    }
                    continue;
                }
            };
            let name = part.name();
            match status {
                Ok(status) => self
                    .voice
                    .warn(&format!("{name} ended ({status}) and is started again")),
                Err(error) => return error.context(anyhow!("{name} cannot be watched")),
            }
            sleep(RESTART_AFTER).await;
            let restarted = match part {
                Part::Server => self.domain.server.spawn(),
                Part::Agent => self.agent.spawn(),
            };
            if let Err(error) = restarted {
                return error;
            }
        }
    }

    async fn refresh(&self) -> anyhow::Result<()> {
        self.agent.set_token(&self.domain.node_token(NODE)?)?;
        let kubelet = self.agent.kubelet()?;
        for volume in &self.volumes {
            kubelet.republish(volume).await?;
        }
        Ok(())
    }

    /// Ends the parts, the agent first.
    pub(crate) async fn stop(&mut self) {
        for stopped in [self.agent.stop().await, self.domain.server.stop().await] {
            if let Err(error) = stopped {
                self.voice.warn(&format!("{error:#}"));
            }
        }
        // Gone: whoever still has it sourced sees that nothing runs.
        let _ = std::fs::remove_file(self.layout.env_file());
    }
}

async fn answers(socket: PathBuf) -> anyhow::Result<()> {
    wait::within(wait::PATIENCE, async || uds::connect(&socket).await.ok())
        .await
        .map(drop)
        .with_context(|| format!("nobody answers at {}", socket.display()))
}

/// For a shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}
