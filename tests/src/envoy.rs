//! Envoys beside pods, configured as README says.

mod traffic;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    http,
    process::{Process, run},
};

pub use self::traffic::{Seen, Traffic, app};

const README: &str = include_str!("../../README.md");

/// How README's configuration begins and ends.
const FENCES: (&str, &str) = ("```yaml\nnode:", "```");

/// Longest an Envoy takes to have its secrets.
const START: Duration = Duration::from_secs(30);

/// The program: `$ENVOY`, else `envoy` on the PATH.
pub fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ENVOY").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join("envoy"));
    candidates.find(|candidate| candidate.is_file())
}

/// What a program says of its version.
///
/// # Errors
/// When it is no Envoy.
pub async fn version(program: &Path) -> Result<String> {
    let said = run(program, ["--version"], &[]).await?;
    let line = said.stdout.lines().find(|line| line.contains("version:"));
    let version = line.and_then(|line| line.split("version:").nth(1));
    let version = version.with_context(|| format!("{} says nothing of its version", program.display()))?;
    let mut parts = version.trim().split('/');
    Ok(parts.nth(1).unwrap_or_else(|| version.trim()).to_owned())
}

/// Which of Envoy's validators is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Validator {
    /// The one for SPIFFE, as README has it.
    Spiffe,
    /// The default one, by the node's metadata.
    Plain,
}

/// How an Envoy asks for its secrets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asks {
    /// By StreamSecrets, as README has it.
    Everything,
    /// By DeltaSecrets.
    Changes,
}

/// Where an Envoy stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// For its files; its name in messages.
    pub folder: PathBuf,
    /// The pod's socket.
    pub socket: PathBuf,
    /// Port of its TLS listener.
    pub inbound: u16,
    /// Port of its plain one.
    pub outbound: u16,
    /// Port of the program that it lets others call.
    pub app: u16,
    /// Port of whom it calls.
    pub peer: u16,
    /// Which validator it has.
    pub validator: Validator,
    /// How it asks.
    pub asks: Asks,
    /// How long a connection may be open.
    pub connection: Duration,
}

/// README's configuration, for this place. Each value that is another one here stands in it exactly once.
///
/// # Errors
/// README has it no more.
pub fn configuration(place: &Place) -> Result<String> {
    let (begin, end) = FENCES;
    let (_, from) = README
        .split_once(begin)
        .context("README has no configuration of Envoy")?;
    let (text, _) = from
        .split_once(end)
        .context("README's configuration has no end")?;
    let mut text = format!("node:{text}");
    let node = "node: {id: sidecar, cluster: shop}";
    let metadata = "node: {id: sidecar, cluster: shop, metadata: {disable_spiffe_cert_validation: true}}";
    let changes = [
        (
            "port_value: 8443".to_owned(),
            format!("port_value: {}", place.inbound),
        ),
        (
            "port_value: 8080".to_owned(),
            format!("port_value: {}", place.outbound),
        ),
        (
            "port_value: 8000".to_owned(),
            format!("port_value: {}", place.app),
        ),
        (
            "address: api.shop, port_value: 443".to_owned(),
            format!("address: 127.0.0.1, port_value: {}", place.peer),
        ),
        (
            "/run/spiffe/spiffe.sock".to_owned(),
            place.socket.display().to_string(),
        ),
        (
            "max_connection_duration: 600s".to_owned(),
            format!("max_connection_duration: {}s", place.connection.as_secs_f64()),
        ),
        (
            "api_type: GRPC".to_owned(),
            match place.asks {
                Asks::Everything => "api_type: GRPC",
                Asks::Changes => "api_type: DELTA_GRPC",
            }
            .to_owned(),
        ),
        (
            node.to_owned(),
            match place.validator {
                Validator::Spiffe => node.to_owned(),
                Validator::Plain => metadata.to_owned(),
            },
        ),
    ];
    for (found, wanted) in changes {
        ensure!(
            text.matches(&found).count() == 1,
            "README's configuration has `{found}` not once"
        );
        text = text.replace(&found, &wanted);
    }
    Ok(text)
}

/// A running Envoy.
pub struct Envoy {
    process: Process,
    /// Where the address of its admin door is written.
    admin: PathBuf,
    place: Place,
}

impl Envoy {
    /// Starts one, and waits until it has its secrets.
    ///
    /// # Errors
    /// That it does not start, with what it said.
    pub async fn start(program: &Path, place: Place) -> Result<Self> {
        let envoy = Self::spawn(program, place, |text| text)?;
        let ready = crate::wait::within(START, async || envoy.is_ready().await.then_some(()));
        let ready = ready.await;
        ensure!(
            ready.is_some(),
            "an Envoy has no secrets: {}",
            envoy.process.said()
        );
        Ok(envoy)
    }

    /// Starts one whose configuration is another one still; it is waited for by nobody.
    ///
    /// # Errors
    /// That it does not start.
    pub fn spawn(program: &Path, place: Place, change: impl Fn(String) -> String) -> Result<Self> {
        std::fs::create_dir_all(&place.folder)?;
        let (config, admin) = (place.folder.join("envoy.yaml"), place.folder.join("admin"));
        let _ = std::fs::remove_file(&admin);
        std::fs::write(&config, change(configuration(&place)?))?;
        let args = [
            "--config-path".to_owned(),
            config.display().to_string(),
            "--config-yaml".to_owned(),
            "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}".to_owned(),
            "--admin-address-path".to_owned(),
            admin.display().to_string(),
            "--disable-hot-restart".to_owned(),
            "--concurrency".to_owned(),
            "1".to_owned(),
            "--log-level".to_owned(),
            "warning".to_owned(),
        ];
        let process = Process::start("envoy", program, args, &[])?;
        Ok(Self {
            process,
            admin,
            place,
        })
    }

    async fn is_ready(&self) -> bool {
        let ready = self.admin("/ready").await;
        let has_secrets = self.serials().await.is_ok_and(|serials| !serials.is_empty());
        ready.is_ok_and(|ready| ready.status == 200) && has_secrets
    }

    async fn admin(&self, path: &str) -> Result<http::Answer> {
        let address = std::fs::read_to_string(&self.admin)?;
        http::get(&format!("http://{address}{path}")).await
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Serial numbers of the certificates that it shows.
    ///
    /// # Errors
    /// Its admin door does not answer.
    pub async fn serials(&self) -> Result<Vec<String>> {
        let certificates = self.admin("/certs").await?.json()?;
        let certificates = certificates["certificates"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let chains = certificates
            .iter()
            .flat_map(|one| one["cert_chain"].as_array().into_iter().flatten());
        Ok(chains
            .filter_map(|certificate| certificate["serial_number"].as_str())
            .map(ToOwned::to_owned)
            .collect())
    }

    /// A counter or gauge by its name.
    ///
    /// # Errors
    /// Its admin door does not answer.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let path = format!("/stats?format=json&filter=^{name}$");
        let stats = self.admin(&path).await?.json()?;
        let all = stats["stats"].as_array().cloned().unwrap_or_default();
        let value = all
            .iter()
            .find(|stat| stat["name"] == name)
            .map(|stat| &stat["value"]);
        Ok(value.and_then(Value::as_u64).unwrap_or(0))
    }

    /// How many peers its TLS listener has refused for their certificates.
    ///
    /// # Errors
    /// Its admin door does not answer.
    pub async fn fail_verify(&self) -> Result<u64> {
        self.stat(&format!(
            "listener.0.0.0.0_{}.ssl.fail_verify_error",
            self.place.inbound
        ))
        .await
    }

    /// Everything it said.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Ends it at once.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }
}
