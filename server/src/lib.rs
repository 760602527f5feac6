//! Signet's server: the certificate authority of a trust domain.
//!
//! | module | does |
//! |---|---|
//! | [`cli`], `config`, `app` | command line, `server.yaml`, composition |
//! | `kubernetes` | API servers: calls, watches, what a token says |
//! | `attest`, `rules` | which pod holds a token, and which identities its facts allow |
//! | `live_rules` | which rules are in force, and when others come to be |
//! | `issuer` | what is granted, recorded, signed, and how much at once |
//! | `authority`, `key_manager` | the life of CA keys; where they are kept |
//! | `store` | what survives: ledger, revocations, lists, journals, agents, audit events |
//! | `clock` | which time it is, and what may be done by it |
//! | `publisher`, `trust` | revocation lists; what is published at this moment |
//! | `put_back` | whether an older store was put in this one's place, and how agents prove it |
//! | `agents` | the agents that are connected, which authorities they know, which certificate is their newest |
//! | `api`, `publish_http`, `publish_https` | what agents and admins call; lists and bundles for everybody |
//! | `late_review` | what was issued while a cluster was away is looked at when it is back |
//! | `own_svid` | the server's certificate of its own |
//! | `audit_event`, `audit` | what is audited; how it leaves the house |
//! | `metrics`, `readiness` | what is counted; what keeps the server from serving or issuing |
//! | `limits` | what each caller may use: the table |
//!
//! What is not public here is nobody's but the server's, so that the compiler tells what is not used.

pub mod cli;

mod agents;
mod anchors;
mod api;
mod app;
mod attest;
mod audit;
mod audit_event;
mod authority;
mod clock;
mod config;
#[cfg(test)]
mod fixtures;
mod gone_pods;
mod issuer;
mod key_manager;
mod kubernetes;
mod late_review;
mod limits;
mod live_rules;
mod metrics;
mod own_svid;
mod publish_http;
mod publish_https;
mod publisher;
mod put_back;
mod readiness;
mod rules;
mod store;
mod trust;
mod unasked;

/// The attestor, and the whole server in memory, for the tests of the workspace that stand outside of this crate. Not an interface; it follows what those
/// need.
pub mod testing {
    pub use crate::app::{Dial, InMemory, KeptInMemory};
    pub use crate::attest::cluster::KubernetesAttestor;
    pub use crate::attest::config::{AttestationConfig, ClusterConfig};
    pub use crate::attest::policy::ServiceAccountName;
    pub use crate::attest::{
        AgentIdentity, AttestError, AttestedNode, AttestedPod, Attestor, Bearer, RefusedReason,
    };
    pub use crate::clock::TrustedClock;
    pub use crate::kubernetes::access::Access;
    pub use crate::kubernetes::claims::ClaimsError;
    pub use crate::kubernetes::pods::{PodEvent, PodEventKind};

    /// The table of limits.
    #[must_use]
    pub fn limits() -> Vec<signet_runtime::limits::Limit> {
        crate::limits::table()
    }

    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use signet_certs::id::TrustDomain;
    use signet_runtime::drain::Drain;

    /// In what ways the audit log in these files is not whole; what heads vouch for is vouched for.
    #[must_use]
    pub fn audit_faults(files: &[PathBuf]) -> Vec<String> {
        use crate::audit::verify::{Trusted, verify};
        match verify(files, &Trusted::default(), None) {
            Ok(verdict) => verdict.faults.told().iter().map(ToString::to_string).collect(),
            Err(unreadable) => vec![unreadable.to_string()],
        }
    }

    /// An attestor over a store of its own in `data_dir`, which follows namespaces too.
    ///
    /// # Errors
    /// What is in the way, as text.
    pub async fn attestor(
        data_dir: &Path,
        config: &AttestationConfig,
        clock_skew: Duration,
        clock: Arc<TrustedClock>,
        drain: &Drain,
        tell: Arc<dyn Fn(PodEvent) + Send + Sync>,
    ) -> Result<KubernetesAttestor, String> {
        let domain = TrustDomain::parse("example.org").map_err(|error| error.to_string())?;
        let store =
            crate::store::sqlite::SqliteStore::open(data_dir, &domain).map_err(|error| error.to_string())?;
        let follow = crate::attest::cluster::Follow {
            tell,
            namespaces: tokio::sync::watch::Sender::new(true).subscribe(),
        };
        let calls = crate::attest::cluster::Calls {
            rooms: 1024,
            refusals: signet_runtime::refusals::Refusals::untold("attestation"),
        };
        KubernetesAttestor::start(config, clock_skew, clock, Arc::new(store), drain, follow, calls)
            .await
            .map_err(|error| error.to_string())
    }
}
