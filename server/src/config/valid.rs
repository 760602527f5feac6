//! The configuration that the rest of the server sees: complete, checked, parsed once.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use signet_certs::{authority::AuthorityKind, id::TrustDomain, svid::SvidProfile, tls::Hybrid};
use signet_runtime::telemetry::LogFormat;

use crate::{
    attest::config::AttestationConfig,
    audit::{AuditBound, AuditSink},
    authority::LifePolicy,
    rules::RuleSet,
};

/// What the server does, where, and for whom.
#[derive(Debug)]
pub(crate) struct Config {
    /// The one trust domain this server serves.
    pub trust_domain: TrustDomain,
    /// Everything the server must not lose. Created with mode 0700.
    pub data_dir: PathBuf,
    /// Addresses and sockets.
    pub listen: Listen,
    /// Whether key exchanges at the agents' door are hybrid; with everybody else [`Hybrid::with_anybody`].
    pub hybrid: Hybrid,
    /// The bundle over HTTPS, where `listen.bundle` is.
    pub bundle: BundlePage,
    /// How often readers of the bundle should come back.
    pub refresh_hint: Duration,
    /// Key-encryption key: 32 random bytes; made (0600) for an empty store only.
    pub kek_file: PathBuf,
    /// Where the anchors of the control authority are written for agents (PEM, by rename).
    pub control_anchors_file: PathBuf,
    /// Lives of authorities and of what they sign.
    pub lives: Lives,
    /// What workloads' certificates have in common, unless a rule says otherwise.
    pub workload_profile: SvidProfile,
    /// What certificates of agents and of the server itself have in common.
    pub control_profile: SvidProfile,
    /// How far notBefore and thisUpdate lie back, for peers with slow clocks.
    pub clock_skew: Duration,
    /// Unexpired certificates of one workload for one SPIFFE ID that displace no other.
    pub max_live: u32,
    /// Most bytes that certificates and lists of one kind of authority take together; what does not fit waits.
    pub crl_max_bytes: usize,
    /// Whether what a pod had is revoked when it is gone.
    pub revoke_gone_pods: bool,
    /// Kubernetes clusters whose pods and nodes are attested.
    pub attestation: AttestationConfig,
    /// From attested facts to SPIFFE IDs.
    pub rules: Arc<RuleSet>,
    /// Most live identities that an edit of the rules may withdraw unconfirmed.
    pub rules_confirm_above: u64,
    /// All of the file, as it was read.
    pub text: String,
    /// Where audit lines go.
    pub audit: AuditSink,
    /// How many of them may wait.
    pub audit_bound: AuditBound,
    /// How the diagnostic log looks, on standard error.
    pub log: LogFormat,
}

/// Addresses and sockets.
#[derive(Debug)]
pub(crate) struct Listen {
    /// gRPC for agents, TLS 1.3.
    pub agents: SocketAddr,
    /// gRPC for admins, mode 0660.
    pub admin_socket: PathBuf,
    /// CRLs and CA certificates, plain HTTP: signed objects only.
    pub publish: SocketAddr,
    /// The trust bundle over HTTPS; absent, it is not served there.
    pub bundle: Option<SocketAddr>,
    /// `/live`, `/ready`, `/ready/issue`, `/metrics`.
    pub telemetry: SocketAddr,
}

/// How the bundle is served over HTTPS.
#[derive(Debug)]
pub(crate) struct BundlePage {
    /// Path of the document, with its slash.
    pub path: String,
    /// Files of profile https_web; absent, the server's own X.509-SVID is used (https_spiffe).
    pub certificate: Option<WebFiles>,
}

/// A certificate that somebody else renews.
#[derive(Debug)]
pub(crate) struct WebFiles {
    /// PEM certificate chain.
    pub certificate: PathBuf,
    /// PEM private key to it.
    pub key: PathBuf,
}

/// Checked lives of the authorities of each kind.
pub(crate) type Lives = BTreeMap<AuthorityKind, LifePolicy>;

impl Config {
    /// The longest life of a certificate of a workload, from which the authorities have theirs.
    pub(crate) fn longest_ttl(&self) -> Duration {
        let workloads = self.lives.get(&AuthorityKind::X509);
        workloads.map(LifePolicy::leaf_ttl).unwrap_or_default()
    }
}
