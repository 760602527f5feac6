//! The file as written.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;
use signet_certs::signer::SignatureAlgorithm;
use signet_certs::tls::Hybrid;
use signet_runtime::{config::HumanDuration, telemetry::LogFormat};

use crate::{
    attest::config::raw::Attestation,
    audit::{MAX_BACKLOG, WhenFull},
    publisher::CRL_MAX_BYTES,
    rules::IdentityRuleConfig,
};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Raw {
    /// Name of the one trust domain this server serves.
    pub(super) trust_domain: String,
    /// Everything the server must not lose. Created with mode 0700.
    pub(super) data_dir: PathBuf,
    /// Addresses and sockets.
    pub(super) listen: Listen,
    /// What the outside world is told about where lists are.
    pub(super) publish: Publish,
    /// TLS of every door and every client.
    pub(super) tls: Tls,
    /// Where sealed CA keys get their key-encryption key.
    pub(super) keys: Keys,
    /// Life of workload certificates.
    pub(super) svid: Svid,
    /// Life of the authorities.
    pub(super) authority: AuthorityTimes,
    /// Revocation lists.
    pub(super) crl: Crl,
    /// What is revoked without an order.
    pub(super) revocation: Revocation,
    /// Where agents find the anchors of the control authority.
    pub(super) trust: Trust,
    /// Kubernetes clusters whose pods and nodes are attested.
    pub(super) attestation: Attestation,
    /// From attested facts to SPIFFE IDs, in order. Those that admins set come behind them.
    pub(super) rules: Vec<IdentityRuleConfig>,
    /// Whether the built-in last rule `/ns/<namespace>/sa/<service account>` stands.
    pub(super) builtin_rule: bool,
    /// With several clusters: equal names in all of them are one identity.
    pub(super) same_identity: bool,
    /// Most live identities that an edit of the rules may withdraw unconfirmed.
    pub(super) rules_confirm_above: u64,
    /// The audit log.
    pub(super) audit: Audit,
    /// The diagnostic log, on standard error.
    pub(super) log: Log,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            trust_domain: String::new(),
            data_dir: PathBuf::from("/var/lib/signet-server"),
            listen: Listen::default(),
            publish: Publish::default(),
            tls: Tls::default(),
            keys: Keys::default(),
            svid: Svid::default(),
            authority: AuthorityTimes::default(),
            crl: Crl::default(),
            revocation: Revocation::default(),
            trust: Trust::default(),
            attestation: Attestation::default(),
            rules: Vec::new(),
            builtin_rule: true,
            same_identity: false,
            rules_confirm_above: CONFIRM_ABOVE,
            audit: Audit::default(),
            log: Log::default(),
        }
    }
}

/// Addresses and sockets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    /// gRPC for agents, TLS 1.3.
    pub(super) agents: SocketAddr,
    /// gRPC for admins, mode 0660.
    pub(super) admin_socket: PathBuf,
    /// CRLs and CA certificates, plain HTTP: signed objects only.
    pub(super) publish: SocketAddr,
    /// The trust bundle over HTTPS; absent, it is not served there.
    pub(super) bundle: Option<SocketAddr>,
    /// `/live`, `/ready`, `/ready/issue`, `/metrics`.
    pub(super) telemetry: SocketAddr,
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
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Publish {
    /// Base URL under which `listen.publish` is reachable; written into certificates as CRL distribution point.
    pub(super) url: Option<String>,
    /// PEM certificate chain for the bundle endpoint (profile https_web); absent, its own X.509-SVID is used (https_spiffe).
    pub(super) bundle_certificate_file: Option<PathBuf>,
    /// PEM private key to it.
    pub(super) bundle_key_file: Option<PathBuf>,
    /// Path of the bundle document.
    pub(super) bundle_path: String,
    /// How often readers of the bundle should come back.
    pub(super) refresh_hint: HumanDuration,
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            url: None,
            bundle_certificate_file: None,
            bundle_key_file: None,
            bundle_path: "/".to_owned(),
            refresh_hint: minutes(5),
        }
    }
}

/// TLS of every door and every client.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    /// Whether key exchanges are hybrid: `prefer`, `require` at the agents' door, or `off`.
    pub(super) hybrid: Hybrid,
}

/// Sealing of CA keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Keys {
    /// 32 random bytes; made (0600) for an empty store only. Default: `<data_dir>/kek`.
    pub(super) kek_file: Option<PathBuf>,
}

/// Most live identities that an edit of the rules may withdraw unconfirmed, unless `rules_confirm_above` says otherwise: few
/// enough that a slip of the pen is caught in a small cluster, and more than one workload whose rule is replaced has.
const CONFIRM_ABOVE: u64 = 10;

/// Unexpired certificates of one workload for one SPIFFE ID that displace no other, unless `svid.max_live` says otherwise.
pub(crate) const MAX_LIVE: u32 = 8;

/// Life of workload certificates.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Svid {
    /// Life of an X.509-SVID unless a rule says otherwise.
    pub(super) ttl: HumanDuration,
    /// How far notBefore and thisUpdate lie back, for peers with slow clocks.
    pub(super) clock_skew: HumanDuration,
    /// Unexpired certificates of one workload for one SPIFFE ID that displace no other.
    pub(super) max_live: u32,
}

impl Default for Svid {
    fn default() -> Self {
        Self {
            ttl: hours(1),
            clock_skew: minutes(2),
            max_live: MAX_LIVE,
        }
    }
}

/// Life of the authorities.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuthorityTimes {
    /// Life of an authority of workloads; at least six times every SVID's.
    pub(super) ttl: HumanDuration,
    /// Life of a control authority.
    pub(super) control_ttl: HumanDuration,
    /// Life of agent certificates and of the server's own.
    pub(super) control_svid_ttl: HumanDuration,
    /// How long readers who never report (HTTP, files) get to see a new authority before it signs.
    pub(super) spread: HumanDuration,
    /// After which a new authority signs though some agent has not reported it.
    pub(super) spread_max: HumanDuration,
    /// How long those that are replaced in an emergency stay in the bundle, for agents that have yet to replace what they signed.
    pub(super) emergency_grace: HumanDuration,
    /// What keys of new authorities sign with, `p256` or `p384`. Default: as the authority before, and `p256` at first.
    pub(super) algorithm: Option<SignatureAlgorithm>,
}

impl Default for AuthorityTimes {
    fn default() -> Self {
        Self {
            ttl: hours(7 * 24),
            control_ttl: hours(30 * 24),
            control_svid_ttl: hours(4),
            spread: minutes(15),
            spread_max: hours(6),
            emergency_grace: minutes(2),
            algorithm: None,
        }
    }
}

/// Revocation lists.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Crl {
    /// Most bytes that certificates and lists of one kind of authority take together; what does not fit waits.
    pub(super) max_bytes: usize,
}

impl Default for Crl {
    fn default() -> Self {
        Self {
            max_bytes: CRL_MAX_BYTES,
        }
    }
}

/// What the server revokes by itself.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Revocation {
    /// Revoke what a pod had when a watch shows that it is gone.
    pub(super) on_pod_deletion: bool,
}

/// Trust bootstrap of agents.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Trust {
    /// Where the anchors of the control authority are written (PEM, by rename). Default: `<data_dir>/control-anchors.pem`.
    pub(super) control_anchors_file: Option<PathBuf>,
}

/// The audit log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Audit {
    /// Appended to; absent, audit lines go to standard output.
    pub(super) file: Option<PathBuf>,
    /// From so many lines that nobody has taken on it is full.
    pub(super) max_backlog: u64,
    /// What then happens: `stop_issuing` or `drop_counted`.
    pub(super) when_full: WhenFull,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            file: None,
            max_backlog: MAX_BACKLOG,
            when_full: WhenFull::default(),
        }
    }
}

/// The diagnostic log.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// `text` or `json`.
    pub(super) format: LogFormat,
}

const fn hours(n: u64) -> HumanDuration {
    HumanDuration::new(Duration::from_secs(n * 3600))
}

const fn minutes(n: u64) -> HumanDuration {
    HumanDuration::new(Duration::from_secs(n * 60))
}
