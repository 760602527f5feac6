//! The server's configuration: one YAML file, unknown keys refused, every key but the trust domain with a working default.
//!
//! [`Raw`] is what the file says; [`Config::load`] turns it into values that are known to fit together.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use signet_certs::id::TrustDomain;
use signet_runtime::{
    config::{Findings, HumanDuration, Validate, load_valid},
    telemetry::LogFormat,
};

use crate::{
    attest::config::AttestationConfig,
    authority::{LifePolicy, LifeSettings},
    rules::{IdentityRuleConfig, RuleScope, RuleSet},
};

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// Name of the one trust domain this server serves.
    pub trust_domain: String,
    /// Everything the server must not lose. Created with mode 0700.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Addresses and sockets.
    #[serde(default)]
    pub listen: Listen,
    /// What the outside world is told about where lists are.
    #[serde(default)]
    pub publish: Publish,
    /// Where sealed CA keys get their key-encryption key.
    #[serde(default)]
    pub keys: Keys,
    /// Life of workload certificates.
    #[serde(default)]
    pub svid: Svid,
    /// Life of the authorities.
    #[serde(default)]
    pub authority: AuthorityTimes,
    /// Revocation lists.
    #[serde(default)]
    pub crl: Crl,
    /// Where agents find the anchors of the control authority.
    #[serde(default)]
    pub trust: Trust,
    /// Kubernetes clusters whose pods and nodes are attested.
    #[serde(default)]
    pub attestation: AttestationConfig,
    /// From attested facts to SPIFFE IDs, in order.
    #[serde(default)]
    pub rules: Vec<IdentityRuleConfig>,
    /// Whether the built-in last rule `/ns/<namespace>/sa/<service account>` stands.
    #[serde(default = "yes")]
    pub builtin_rule: bool,
    /// With several clusters: equal names in all of them are one identity.
    #[serde(default)]
    pub same_identity: bool,
    /// The audit log.
    #[serde(default)]
    pub audit: Audit,
    /// The diagnostic log, on standard error.
    #[serde(default)]
    pub log: Log,
}

fn yes() -> bool {
    true
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/signet-server")
}

/// Addresses and sockets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// gRPC for agents, TLS 1.3.
    pub agents: SocketAddr,
    /// gRPC for admins, mode 0660.
    pub admin_socket: PathBuf,
    /// CRLs and CA certificates, plain HTTP: signed objects only.
    pub publish: SocketAddr,
    /// The trust bundle over HTTPS; absent, it is not served there.
    pub bundle: Option<SocketAddr>,
    /// `/live`, `/ready`, `/metrics`.
    pub telemetry: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            agents: SocketAddr::from(([0, 0, 0, 0], 8443)),
            admin_socket: PathBuf::from("/run/signet-server/admin.sock"),
            publish: SocketAddr::from(([0, 0, 0, 0], 8080)),
            bundle: Some(SocketAddr::from(([0, 0, 0, 0], 8444))),
            telemetry: SocketAddr::from(([127, 0, 0, 1], 9440)),
        }
    }
}

/// What the outside world is told.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publish {
    /// Base URL under which `listen.publish` is reachable; written into certificates as CRL distribution point.
    pub url: Option<String>,
    /// PEM certificate chain for the bundle endpoint (profile https_web); absent, its own X.509-SVID is used (https_spiffe).
    pub bundle_certificate_file: Option<PathBuf>,
    /// PEM private key to it.
    pub bundle_key_file: Option<PathBuf>,
    /// Path of the bundle document.
    pub bundle_path: Option<String>,
    /// How often readers of the bundle should come back.
    pub refresh_hint: Option<HumanDuration>,
}

/// Sealing of CA keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// 32 random bytes; made (0600) for an empty store only. Default: `<data_dir>/kek`.
    pub kek_file: Option<PathBuf>,
}

/// Life of workload certificates.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Svid {
    /// Life of an X.509-SVID unless a rule says otherwise.
    pub ttl: HumanDuration,
    /// How far notBefore and thisUpdate lie back, for peers with slow clocks.
    pub clock_skew: HumanDuration,
    /// Unexpired certificates one workload may have for one SPIFFE ID.
    pub max_live: u32,
}

impl Default for Svid {
    fn default() -> Self {
        Self {
            ttl: hours(1),
            clock_skew: minutes(2),
            max_live: 8,
        }
    }
}

/// Life of the authorities.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthorityTimes {
    /// Life of an authority of workloads; at least six times every SVID's.
    pub ttl: HumanDuration,
    /// Life of a control authority.
    pub control_ttl: HumanDuration,
    /// Life of agent certificates and of the server's own.
    pub control_svid_ttl: HumanDuration,
    /// How long readers who never report (HTTP, files) get to see a new authority before it signs.
    pub spread: HumanDuration,
    /// After which a new authority signs though some agent has not reported it.
    pub spread_max: HumanDuration,
}

impl Default for AuthorityTimes {
    fn default() -> Self {
        Self {
            ttl: hours(7 * 24),
            control_ttl: hours(30 * 24),
            control_svid_ttl: hours(4),
            spread: minutes(15),
            spread_max: hours(6),
        }
    }
}

/// Revocation lists.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Crl {
    /// A revocation that would make a list longer is refused.
    pub max_bytes: usize,
}

impl Default for Crl {
    fn default() -> Self {
        Self { max_bytes: 3 << 20 }
    }
}

/// Trust bootstrap of agents.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// Where the anchors of the control authority are written (PEM, by rename). Default: `<data_dir>/control-anchors.pem`.
    pub control_anchors_file: Option<PathBuf>,
}

/// The audit log.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Appended to; absent, audit lines go to standard output.
    pub file: Option<PathBuf>,
}

/// The diagnostic log.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
}

const fn hours(n: u64) -> HumanDuration {
    HumanDuration::new(Duration::from_secs(n * 3600))
}

const fn minutes(n: u64) -> HumanDuration {
    HumanDuration::new(Duration::from_secs(n * 60))
}

/// Least bound of a list: about a thousand entries.
const MIN_CRL_BYTES: usize = 64 << 10;

/// Checked lives of the two kinds of authority.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// Authorities of workloads.
    pub x509: LifePolicy,
    /// Control authorities.
    pub control: LifePolicy,
}

/// A configuration whose parts fit together.
#[derive(Debug)]
pub struct Config {
    /// Parsed name of the trust domain.
    pub trust_domain: TrustDomain,
    /// Compiled identity rules.
    pub rules: Arc<RuleSet>,
    /// Key-encryption key.
    pub kek_file: PathBuf,
    /// Anchors for agents.
    pub control_anchors_file: PathBuf,
    /// Lives of authorities and of what they sign.
    pub lives: Lives,
    /// Longest TTL any rule or default gives.
    pub longest_svid_ttl: Duration,
    /// Everything that needed no conversion.
    pub raw: Raw,
}

impl Config {
    /// Reads and checks `path`. Warnings go to the log.
    ///
    /// # Errors
    /// One line with the place and the remedy.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let (raw, warnings) = load_valid::<Raw>(path)?;
        for warning in warnings {
            tracing::warn!(%warning, "configuration");
        }
        Self::from_valid(raw)
    }

    fn from_valid(mut raw: Raw) -> anyhow::Result<Self> {
        let trust_domain = TrustDomain::parse_lenient(&raw.trust_domain)?;
        let rules = RuleSet::compile(
            &raw.rule_scope(trust_domain.clone()),
            std::mem::take(&mut raw.rules),
        )?;
        let longest_svid_ttl = rules.longest_ttl().unwrap_or_default().max(raw.svid.ttl.get());
        let (x509, control) = raw.life_settings(longest_svid_ttl);
        Ok(Self {
            kek_file: raw
                .keys
                .kek_file
                .clone()
                .unwrap_or_else(|| raw.data_dir.join("kek")),
            control_anchors_file: raw
                .trust
                .control_anchors_file
                .clone()
                .unwrap_or_else(|| raw.data_dir.join("control-anchors.pem")),
            lives: Lives {
                x509: LifePolicy::new(x509)?,
                control: LifePolicy::new(control)?,
            },
            trust_domain,
            rules: Arc::new(rules),
            longest_svid_ttl,
            raw,
        })
    }
}

impl Raw {
    fn rule_scope(&self, trust_domain: TrustDomain) -> RuleScope {
        RuleScope {
            trust_domain,
            clusters: self.attestation.cluster_names(),
            builtin_rule: self.builtin_rule,
            same_identity: self.same_identity,
        }
    }

    /// Settings of the two kinds of authority, for LifePolicy to judge.
    fn life_settings(&self, longest_svid_ttl: Duration) -> (LifeSettings, LifeSettings) {
        let times = &self.authority;
        let settings = |authority_ttl: HumanDuration, leaf_ttl| LifeSettings {
            authority_ttl: authority_ttl.get(),
            leaf_ttl,
            clock_skew: self.svid.clock_skew.get(),
            spread: times.spread.get(),
            spread_max: times.spread_max.get(),
        };
        (
            settings(times.ttl, longest_svid_ttl),
            settings(times.control_ttl, times.control_svid_ttl.get()),
        )
    }
}

impl Validate for Raw {
    fn validate(&self, findings: &mut Findings) {
        let trust_domain = match TrustDomain::parse_lenient(&self.trust_domain) {
            Ok(trust_domain) => trust_domain,
            Err(error) => {
                return findings.error(
                    "trust_domain",
                    error.to_string(),
                    "write a name such as example.org",
                );
            }
        };
        self.attestation.validate("attestation", &trust_domain, findings);
        let longest = match RuleSet::compile(&self.rule_scope(trust_domain), self.rules.clone()) {
            Ok(rules) => rules.longest_ttl().unwrap_or_default().max(self.svid.ttl.get()),
            Err(error) => {
                return findings.error("rules", error.to_string(), "correct the rule");
            }
        };
        validate_times(self, longest, findings);
        if self.crl.max_bytes < MIN_CRL_BYTES {
            findings.error(
                "crl.max_bytes",
                "a list so small has room for hardly any revocation",
                "write at least 65536",
            );
        }
        validate_publish(&self.publish, findings);
    }
}

fn validate_times(raw: &Raw, longest: Duration, findings: &mut Findings) {
    if raw.svid.ttl.get() < Duration::from_secs(10) {
        findings.error(
            "svid.ttl",
            "shorter than 10 s leaves no time to renew",
            "write at least 10s",
        );
    }
    if raw.svid.clock_skew.get() > Duration::from_secs(600) {
        findings.error(
            "svid.clock_skew",
            "more than 10 min back-dating is refused by careful peers",
            "write at most 10m",
        );
    }
    if raw.svid.max_live < 2 {
        findings.error(
            "svid.max_live",
            "a renewal needs two certificates to overlap",
            "write at least 2",
        );
    }
    let (x509, control) = raw.life_settings(longest);
    for (key, settings) in [("authority.ttl", x509), ("authority.control_ttl", control)] {
        if let Err(error) = LifePolicy::new(settings) {
            findings.error(key, error.to_string(), "change one of the two");
        }
    }
}

fn validate_publish(publish: &Publish, findings: &mut Findings) {
    if let Some(url) = &publish.url {
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        if rest.is_none_or(|rest| rest.is_empty() || rest.ends_with('/') || rest.contains(['?', '#', ' '])) {
            findings.error(
                "publish.url",
                "not a base URL",
                "write http://host[:port][/path] without a slash at the end",
            );
        }
    }
    if publish.bundle_certificate_file.is_some() != publish.bundle_key_file.is_some() {
        findings.error(
            "publish.bundle_key_file",
            "bundle_certificate_file and bundle_key_file belong together",
            "give both, or neither to use the server's own X.509-SVID",
        );
    }
    if publish
        .bundle_path
        .as_ref()
        .is_some_and(|path| !path.starts_with('/'))
    {
        findings.error("publish.bundle_path", "not a path", "begin it with a slash");
    }
}
