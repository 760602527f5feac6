//! Kubernetes clusters as attestors: local check, review, live pod, verdict.

mod member;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use signet_runtime::drain::Drain;
use signet_runtime::refusals::Refusals;
use signet_runtime::spans;
use tokio::sync::watch;
use tracing::Instrument as _;

use self::member::{Cluster, PinError, Settings, Told};
use super::config::AttestationConfig;
use super::remembered::Remembered;
use super::vouched::Vouched;
use super::{
    AgentIdentity, AttestError, AttestedNode, AttestedPod, Attestor, Bearer, ClusterHealth, Found, KnownPod,
    NodeInOutage, Outages, Place, PodsLike, RefusedReason,
};
use crate::clock::TrustedClock;
use crate::kubernetes::pods::{LivePod, TellPod};
use crate::store::Store;

/// Proves nodes and pods of the configured clusters.
pub struct KubernetesAttestor {
    clusters: Vec<Arc<Cluster>>,
    outages: watch::Sender<Outages>,
}

/// What is followed of clusters.
pub(crate) struct Follow {
    /// Who hears of changes of pods, each as it comes: it must not wait for anything.
    pub tell: TellPod,
    /// Whether anybody asks for labels of namespaces, as that changes: only then are namespaces followed.
    pub namespaces: watch::Receiver<bool>,
}

/// Calls to API servers that callers cause.
pub(crate) struct Calls {
    /// How many may be under way at once, to all of them; each cluster has an equal part.
    pub rooms: usize,
    /// Who is told to come back.
    pub refusals: Refusals,
}

/// Why attestation cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cluster `{cluster}`: {problem}")]
pub(crate) struct StartError {
    /// Name of the cluster.
    pub cluster: String,
    /// What is wrong and what to do.
    pub problem: String,
}

/// Whether each cluster that answers is the one that the configuration means.
async fn each_is_the_one_meant(clusters: &[Arc<Cluster>]) -> Result<(), StartError> {
    let pinned = join_all(clusters.iter().map(|cluster| cluster.pin())).await;
    for (cluster, pinned) in clusters.iter().zip(pinned) {
        if let Err(PinError::OtherCluster(problem)) = pinned {
            return Err(StartError {
                cluster: cluster.settings.name.to_string(),
                problem,
            });
        }
    }
    Ok(())
}

impl KubernetesAttestor {
    /// Makes a client for every cluster, checks that each is the one meant, and begins to watch them.
    ///
    /// A cluster that cannot be reached is no error: it is tried again until `drain` starts.
    pub(crate) async fn start(
        config: &AttestationConfig,
        clock_skew: Duration,
        clock: Arc<TrustedClock>,
        store: Arc<dyn Store>,
        drain: &Drain,
        follow: Follow,
        calls: Calls,
    ) -> Result<Self, StartError> {
        let vouched = Vouched::load(store.as_ref(), &clock).await;
        let vouched = Arc::new(vouched.unwrap_or_else(|error| {
            tracing::error!(%error, "the tokens in the ledger cannot be read: each is reviewed once more");
            Vouched::none()
        }));
        let mut clusters = Vec::with_capacity(config.clusters.len());
        let outages = watch::Sender::default();
        let told = Told {
            pods: follow.tell,
            namespaces: follow.namespaces,
            outages: outages.clone(),
            refusals: calls.refusals,
        };
        let rooms = calls.rooms / config.clusters.len().max(1);
        for cluster in &config.clusters {
            let problem = |problem| StartError {
                cluster: cluster.name.clone(),
                problem,
            };
            let client = cluster.access.client().await.map_err(problem)?;
            let remembered = Remembered::load(Arc::clone(&store), &cluster.name).await;
            let remembered = remembered.map_err(|error| problem(error.to_string()))?;
            let settings = Settings::new(config, cluster, clock_skew, rooms);
            clusters.push(Arc::new(Cluster::new(
                settings,
                client,
                Arc::clone(&clock),
                Arc::new(remembered),
                Arc::clone(&vouched),
                told.clone(),
            )));
        }
        each_is_the_one_meant(&clusters).await?;
        for cluster in &clusters {
            let (cluster, drain_of_task) = (Arc::clone(cluster), drain.clone());
            let name = Arc::clone(&cluster.settings.name);
            let running = async move {
                tokio::select! {
                    () = drain_of_task.signalled() => {}
                    () = cluster.run() => {
                        // It is another cluster than the one meant: said in the log and in `status`. Others go on.
                        drain_of_task.signalled().await;
                    }
                }
            };
            drain.spawn_vital("attestation", async move {
                running.instrument(spans::cluster(&name)).await;
            });
        }
        Ok(Self { clusters, outages })
    }

    /// Returns once the first lists of every cluster are complete.
    pub async fn first_sync(&self) {
        join_all(self.clusters.iter().map(|cluster| cluster.watch.first_sync())).await;
    }

    /// The pod with this UID as the watch shows it now.
    pub fn live_pod(&self, cluster: &str, pod_uid: &str) -> Option<Arc<LivePod>> {
        self.clusters
            .iter()
            .find(|known| &*known.settings.name == cluster)?
            .watch
            .pod(pod_uid)
    }

    fn cluster(&self, name: &str) -> Result<&Cluster, RefusedReason> {
        self.clusters
            .iter()
            .find(|cluster| &*cluster.settings.name == name)
            .map(|cluster| &**cluster)
            .ok_or_else(|| RefusedReason::UnknownCluster {
                cluster: name.chars().filter(|c| !c.is_control()).take(63).collect(),
            })
    }
}

impl Attestor for KubernetesAttestor {
    fn attest_node<'a>(
        &'a self,
        bearer: Bearer<'a>,
        cluster: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<AttestedNode, AttestError>> {
        async move { self.cluster(cluster)?.attest_node(bearer, token).await }.boxed()
    }

    fn attest_pod<'a>(
        &'a self,
        agent: &'a AgentIdentity,
        token: &'a str,
    ) -> BoxFuture<'a, Result<AttestedPod, AttestError>> {
        async move { self.cluster(&agent.cluster)?.attest_pod(agent, token).await }.boxed()
    }

    fn namespace_labels<'a>(
        &'a self,
        pod: &'a AttestedPod,
    ) -> BoxFuture<'a, Result<Arc<BTreeMap<String, String>>, AttestError>> {
        async move { self.cluster(&pod.cluster)?.namespace_labels(pod).await }.boxed()
    }

    fn node_in_outage<'a>(&'a self, cluster: &'a str, token: &'a str) -> BoxFuture<'a, Option<NodeInOutage>> {
        async move { self.cluster(cluster).ok()?.node_in_outage(token) }.boxed()
    }

    fn pods_on_node(&self, agent: &AgentIdentity) -> usize {
        self.cluster(&agent.cluster)
            .map_or(0, |cluster| cluster.watch.pods_on_node(&agent.node_name))
    }

    fn is_pod_gone(&self, cluster: &str, pod_uid: &str) -> bool {
        self.cluster(cluster)
            .is_ok_and(|cluster| cluster.watch.is_synced() && cluster.watch.pod(pod_uid).is_none())
    }

    fn known_pod(&self, cluster: &str, pod_uid: &str) -> KnownPod {
        match self.cluster(cluster) {
            Ok(cluster) => cluster.known_pod(pod_uid),
            Err(_) => KnownPod::Gone,
        }
    }

    fn find_pod<'a>(&'a self, cluster: &'a str, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Found> {
        async move {
            match self.cluster(cluster) {
                Ok(cluster) => cluster.find_pod(namespace, name).await,
                Err(_) => Found::Nowhere,
            }
        }
        .boxed()
    }

    fn pods_like(&self, cluster: &str, like: &PodsLike, most: usize) -> (Vec<AttestedPod>, bool) {
        let cluster = self.cluster(cluster).ok();
        cluster.map_or_else(Default::default, |cluster| cluster.pods_like(like, most))
    }

    fn is_there<'a>(&'a self, place: Place<'a>) -> BoxFuture<'a, Option<bool>> {
        let of_uid = |cluster: &&Arc<Cluster>| cluster.is_pinned_to(place.cluster_uid);
        async move { self.clusters.iter().find(of_uid)?.is_there(place).await }.boxed()
    }

    fn forget_reviews(&self) {
        for cluster in &self.clusters {
            cluster.forget_reviews();
        }
    }

    fn outages(&self) -> watch::Receiver<Outages> {
        self.outages.subscribe()
    }

    fn clusters(&self) -> Vec<ClusterHealth> {
        self.clusters.iter().map(|cluster| cluster.health()).collect()
    }
}
