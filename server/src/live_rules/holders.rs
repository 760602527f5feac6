//! Who holds live certificates: the ledger says under which identities, the watches of the clusters what the pods are now.

use std::{sync::Arc, time::SystemTime};

use signet_certs::id::SpiffeId;
use tokio::task::JoinError;

use super::weigh::{Holder, Known, Weighed, weigh};
use crate::{
    agents::Agents,
    attest::{Attestor, KnownPod},
    rules::{RuleSet, UnixFacts},
    store::{EvidenceKind, LiveIdentity, Store, StoreError},
};

/// Why nobody knows what other rules would take away.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotWeighed {
    /// The ledger could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that compared them is gone.
    #[error("the comparison of the rules did not end")]
    Thread(#[from] JoinError),
}

/// What two sets of rules make of those who hold live certificates at `earliest`; with the holders that the new ones concern.
pub(super) async fn compare(
    (store, attestor): (&dyn Store, Arc<dyn Attestor>),
    (old, new): (Arc<RuleSet>, Arc<RuleSet>),
    earliest: SystemTime,
) -> Result<(Weighed, Vec<LiveIdentity>), NotWeighed> {
    let live = store.live_identities(earliest).await?;
    // A large cluster takes a while.
    let work = move || {
        let known = |live: LiveIdentity| Holder {
            known: known(&live, attestor.as_ref()),
            live,
        };
        let holders: Vec<_> = live.into_iter().map(known).collect();
        let weighed = weigh(&old, &new, &holders);
        let concerned = weighed.concerned.iter();
        let concerned = concerned.filter_map(|place| holders.get(*place));
        let concerned = concerned.map(|holder| holder.live.clone()).collect();
        (weighed, concerned)
    };
    Ok(signet_runtime::spans::spawn_blocking(work).await?)
}

fn known(live: &LiveIdentity, attestor: &dyn Attestor) -> Known {
    let workload = &live.workload;
    let agent = SpiffeId::parse(&workload.agent_id);
    let Some(cluster) = agent.as_ref().ok().and_then(SpiffeId::cluster_of_agent) else {
        return Known::Unknown;
    };
    if live.evidence == EvidenceKind::Unix {
        let process = UnixFacts::of_process(cluster, &workload.node_name, &workload.process);
        return process.map_or(Known::Unknown, Known::Unix);
    }
    match attestor.known_pod(cluster, &workload.pod_uid) {
        KnownPod::There(pod) => Known::Pod(pod),
        KnownPod::Gone => Known::Gone,
        KnownPod::Unknown => Known::Unknown,
    }
}

/// Names workloads to their agents, who ask about them again.
pub(super) fn name(concerned: &[LiveIdentity], agents: &Agents) {
    for LiveIdentity { workload, .. } in concerned {
        let agent = SpiffeId::parse(&workload.agent_id);
        let cluster = agent.as_ref().ok().and_then(SpiffeId::cluster_of_agent);
        match cluster {
            Some(cluster) if !workload.pod_uid.is_empty() => {
                agents.pod_affected(cluster, &workload.node_name, &workload.pod_uid);
            }
            // Only pods have names on the wire.
            _ => agents.agent_affected(&workload.agent_id),
        }
    }
}
