//! Who asks for certificates of workloads. What it can prove, what its certificates take and by what it asks is its own to say:
//! the issuer knows no more of it.

use futures_util::future::{BoxFuture, FutureExt as _};
use signet_certs::{id::SpiffeId, serial::SerialNumber};

use super::Evidence;
use crate::{
    attest::{AgentIdentity, AttestError, AttestedPod, Attestor},
    rules::{Facts, UnixFacts},
    store::AgentShare,
};

/// Who asks for certificates of workloads.
pub(crate) trait Requester: Send + Sync {
    /// Tells it from all others who ask: what it may have under way is kept by this name, and audit lines and logs say it.
    fn name(&self) -> &str;

    /// The certificate that it asks by, which is judged once more with the rows; none where it asks by none.
    fn certificate(&self) -> Option<SerialNumber>;

    /// The agent that rows name as the one that brought the workload; none where the workload came itself.
    fn agent(&self) -> Option<&SpiffeId>;

    /// Proves a workload by what this one brings.
    fn prove<'a>(
        &'a self,
        attestor: &'a dyn Attestor,
        evidence: &'a Evidence,
    ) -> BoxFuture<'a, Result<Proven, AttestError>>;

    /// What a certificate takes of what this one may have, where the workload was found to have so many identities.
    fn share(&self, attestor: &dyn Attestor, proven: &Proven, identities: u32) -> AgentShare;
}

/// A workload that was proved.
pub(crate) enum Proven {
    /// A pod, by its own token.
    Pod(Box<AttestedPod>),
    /// A process outside pods, by an agent's word.
    Process {
        /// What the agent saw of it.
        facts: UnixFacts,
        /// UID of the agent's node.
        node_uid: String,
    },
}

impl Proven {
    /// What rules go by.
    pub(super) fn facts(&self) -> Facts<'_> {
        match self {
            Self::Pod(pod) => Facts::Pod(pod),
            Self::Process { facts, .. } => Facts::Unix(facts),
        }
    }
}

/// An agent, which asks for the workloads of its node.
pub(crate) struct CallingAgent {
    identity: AgentIdentity,
    certificate: SerialNumber,
}

impl CallingAgent {
    /// The agent asks by this certificate.
    pub(crate) const fn new(identity: AgentIdentity, certificate: SerialNumber) -> Self {
        Self {
            identity,
            certificate,
        }
    }
}

impl Requester for CallingAgent {
    fn name(&self) -> &str {
        self.identity.spiffe_id.as_str()
    }

    fn certificate(&self) -> Option<SerialNumber> {
        Some(self.certificate)
    }

    fn agent(&self) -> Option<&SpiffeId> {
        Some(&self.identity.spiffe_id)
    }

    fn prove<'a>(
        &'a self,
        attestor: &'a dyn Attestor,
        evidence: &'a Evidence,
    ) -> BoxFuture<'a, Result<Proven, AttestError>> {
        async move {
            match evidence {
                Evidence::PodToken { token, .. } => {
                    let pod = attestor.attest_pod(&self.identity, token).await?;
                    Ok(Proven::Pod(Box::new(pod)))
                }
                Evidence::Unix {
                    uid,
                    gid,
                    path,
                    sha256,
                } => Ok(Proven::Process {
                    facts: UnixFacts {
                        cluster: self.identity.cluster.clone(),
                        node_name: self.identity.node_name.clone(),
                        uid: *uid,
                        gid: *gid,
                        path: path.clone(),
                        sha256: *sha256,
                    },
                    node_uid: self.identity.node_uid.clone(),
                }),
            }
        }
        .boxed()
    }

    fn share(&self, attestor: &dyn Attestor, proven: &Proven, identities: u32) -> AgentShare {
        match proven {
            Proven::Pod(_) => AgentShare::Pods {
                pods: u32::try_from(attestor.pods_on_node(&self.identity)).unwrap_or(u32::MAX),
                identities,
            },
            Proven::Process { .. } => AgentShare::ItsWord,
        }
    }
}
