//! One cluster: the way of a token through local check, review, live pod and verdict.

mod finding;
mod keeping;
mod namespaces;
mod nodes;
mod outage;
mod pin;
#[cfg(test)]
mod tests;
mod token;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::refusals::Refusals;
use signet_runtime::sync::Mutex;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, timeout};

use self::keeping::forgetting;
use self::namespaces::Looks;
use self::nodes::SeenNodes;
use self::outage::tell;
use self::pin::PIN_AGAIN_AFTER;
pub(super) use self::pin::PinError;
use self::token::{Brought, Role};
use crate::attest::config::{AttestationConfig, ClusterConfig};
use crate::attest::jwks::SigningKeys;
use crate::attest::policy::{ReviewedToken, ServiceAccountName, judge_node, judge_pod};
use crate::attest::reach::Reach;
use crate::attest::refused::RefusedTokens;
use crate::attest::remembered::Remembered;
use crate::attest::token_review::TokenReviewer;
use crate::attest::vouched::Vouched;
use crate::attest::{
    AgentIdentity, AttestError, AttestedNode, AttestedPod, Bearer, ClusterHealth, Outages, RefusedReason,
};
use crate::clock::TrustedClock;
use crate::kubernetes::api::{CallError, Client, KubeApi, Purpose};
use crate::kubernetes::budget::Budget;
use crate::kubernetes::namespaces::NamespaceWatch;
use crate::kubernetes::pods::{LivePod, PodWatch, TellPod, get_pod};

/// How long one attestation may take, whatever it waits for: agents wait 30 s for an answer, and what follows needs some of that.
const LONGEST_ATTESTATION: Duration = Duration::from_secs(24);
const ATTESTING: Purpose = Purpose {
    doing: "attesting a token, with all that it takes",
    permission: "do that",
};
const READING_POD: Purpose = Purpose {
    doing: "reading a pod",
    permission: "get pods in every namespace",
};
const READING_NODE: Purpose = Purpose {
    doing: "reading a node",
    permission: "get nodes",
};

/// What one cluster needs of the configuration.
pub(super) struct Settings {
    pub(super) name: Arc<str>,
    expected_uid: Option<String>,
    node_audience: String,
    pod_audience: String,
    agents: Vec<ServiceAccountName>,
    more_issuers: Vec<String>,
    clock_skew: Duration,
    max_token_lifetime: Duration,
    grace: Duration,
    calls: (u32, u32),
    /// Calls of callers that may be under way.
    rooms: usize,
}

impl Settings {
    pub(super) fn new(
        config: &AttestationConfig,
        cluster: &ClusterConfig,
        clock_skew: Duration,
        rooms: usize,
    ) -> Self {
        Self {
            name: cluster.name.as_str().into(),
            expected_uid: cluster.uid.clone(),
            node_audience: config.node_audience.clone(),
            pod_audience: config.pod_audience.clone(),
            agents: cluster.agents.clone(),
            more_issuers: cluster.more_issuers.clone(),
            clock_skew,
            max_token_lifetime: config.max_token_lifetime,
            grace: config.grace,
            calls: config.calls,
            rooms,
        }
    }
}

/// Who hears what of a cluster, and what is asked of it.
#[derive(Clone)]
pub(super) struct Told {
    /// Of its pods.
    pub(super) pods: TellPod,
    /// Whether anybody asks for labels of its namespaces.
    pub(super) namespaces: watch::Receiver<bool>,
    /// Of its being away.
    pub(super) outages: watch::Sender<Outages>,
    /// Of callers who are told to come back.
    pub(super) refusals: Refusals,
}

/// One cluster.
pub(super) struct Cluster {
    pub(super) settings: Settings,
    clock: Arc<TrustedClock>,
    api: Arc<KubeApi>,
    keys: SigningKeys,
    reviewer: Arc<TokenReviewer>,
    vouched: Arc<Vouched>,
    refused: RefusedTokens,
    reach: Reach,
    /// Where it is told whether it can be reached, with all others.
    outages: watch::Sender<Outages>,
    /// When it was away last, in elapsed time; none in this process.
    away_at: Mutex<Option<Duration>>,
    nodes: SeenNodes,
    remembered: Arc<Remembered>,
    pub(super) watch: PodWatch,
    namespaces: NamespaceWatch,
    looks: Looks,
    uid: OnceCell<String>,
    pin_problem: Mutex<Option<(Instant, PinError)>>,
}

impl Cluster {
    pub(super) fn new(
        settings: Settings,
        client: Client,
        clock: Arc<TrustedClock>,
        remembered: Arc<Remembered>,
        vouched: Arc<Vouched>,
        told: Told,
    ) -> Self {
        let Told {
            pods,
            namespaces,
            outages,
            refusals,
        } = told;
        let (per_second, burst) = settings.calls;
        let api = Arc::new(KubeApi::new(
            client,
            Arc::clone(&settings.name),
            Budget::new(per_second, burst, settings.rooms),
            Arc::clone(&clock),
            refusals,
        ));
        let reviewer = Arc::new(TokenReviewer::new(Arc::clone(&api)));
        let tell_pod = forgetting(Arc::clone(&reviewer), pods);
        let since = remembered.row().unreachable_since;
        tell(&outages, &settings.name, since);
        let watch = PodWatch::new(Arc::clone(&settings.name), tell_pod, &clock);
        Self {
            namespaces: NamespaceWatch::new(watch.tell_namespaces(), namespaces, &clock),
            looks: Looks::default(),
            outages,
            away_at: Mutex::default(),
            reach: Reach::new(Arc::clone(&clock), settings.grace, since),
            keys: SigningKeys::new(
                Arc::clone(&api),
                settings.more_issuers.clone(),
                Arc::clone(&remembered),
            ),
            remembered,
            reviewer,
            vouched,
            refused: RefusedTokens::default(),
            nodes: SeenNodes::default(),
            watch,
            clock,
            api,
            uid: OnceCell::new(),
            pin_problem: Mutex::default(),
            settings,
        }
    }

    /// Watches the cluster once it is known to be the right one; ends where it is another one.
    pub(super) async fn run(&self) {
        tokio::select! {
            () = self.follow() => {}
            () = self.probe() => {}
        }
    }

    async fn follow(&self) {
        loop {
            match self.pin().await {
                Ok(_) => break,
                Err(PinError::OtherCluster(problem)) => {
                    tracing::error!(cluster = %self.settings.name, problem, "another cluster than the one configured");
                    return;
                }
                Err(PinError::Unavailable(_)) => sleep(PIN_AGAIN_AFTER).await,
            }
        }
        tokio::join!(
            self.keys.run(),
            self.watch.run(Arc::clone(&self.api)),
            self.namespaces.run(Arc::clone(&self.api)),
            self.sweep(),
        );
    }

    pub(super) async fn attest_node(
        &self,
        bearer: Bearer<'_>,
        token: &str,
    ) -> Result<AttestedNode, AttestError> {
        self.in_time(self.prove_node(bearer, token)).await
    }

    async fn prove_node(&self, bearer: Bearer<'_>, token: &str) -> Result<AttestedNode, AttestError> {
        let reference = self.reference().await?;
        let brought = self.bring(Role::Node(bearer), token).await?;
        let verdict = async {
            let review = self.review(&brought).await?;
            let under_way = self.admit(&brought, &review.node_uid, READING_NODE).await?;
            let read = self.node_uid(&review.node_name).await;
            drop(under_way);
            let node_uid = read.map_err(|error| self.api.unavailable(READING_NODE, &error))?;
            let (node_uid, agents) = (node_uid.as_deref(), &self.settings.agents);
            let judge = |live: &LivePod| judge_node(reference, &review, live, node_uid, agents);
            self.judge(&brought, &review, judge).await
        };
        self.unless_refused(&brought, verdict).await
    }

    /// The outcome of an attestation, if there is one while whoever asked still waits.
    async fn in_time<T>(
        &self,
        attestation: impl Future<Output = Result<T, AttestError>>,
    ) -> Result<T, AttestError> {
        match timeout(LONGEST_ATTESTATION, attestation).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.api.unavailable(ATTESTING, &CallError::Timeout).into()),
        }
    }

    pub(super) async fn attest_pod(
        &self,
        agent: &AgentIdentity,
        token: &str,
    ) -> Result<AttestedPod, AttestError> {
        self.in_time(self.prove_pod(agent, token)).await
    }

    async fn prove_pod(&self, agent: &AgentIdentity, token: &str) -> Result<AttestedPod, AttestError> {
        // Asked before and after: an outage that begins or ends meanwhile counts.
        let away = self.reach.in_grace().is_some();
        let reference = self.reference().await?;
        let brought = self.bring(Role::PodOf(agent), token).await?;
        let verdict = async {
            let review = self.review(&brought).await?;
            self.still_has_node(&review).await?;
            let judge = |live: &LivePod| judge_pod(reference, &review, live, agent);
            self.judge(&brought, &review, judge).await
        };
        let pod = self.unless_refused(&brought, verdict).await?;
        Ok(AttestedPod {
            outage: away || self.reach.in_grace().is_some(),
            ..pod
        })
    }

    /// Judges with the watch's pod if it may be believed and leads to a proof; otherwise with one read live.
    async fn judge<T>(
        &self,
        brought: &Brought<'_>,
        review: &ReviewedToken,
        verdict: impl Fn(&LivePod) -> Result<T, RefusedReason>,
    ) -> Result<T, AttestError> {
        if self.is_watch_believed()
            && let Some(live) = self.watch.pod(&review.pod_uid)
        {
            match verdict(&live) {
                Err(reason) if reason.rests_on_live_pod() => {}
                settled => return Ok(settled?),
            }
        }
        let under_way = self.admit(brought, &review.node_uid, READING_POD).await?;
        let read = get_pod(&self.api, &review.namespace, &review.pod_name).await;
        drop(under_way);
        let live = read.map_err(|error| self.api.unavailable(READING_POD, &error))?;
        let gone = || RefusedReason::PodGone {
            pod: format!("{}/{}", review.namespace, review.pod_name),
        };
        Ok(verdict(&live.ok_or_else(gone)?)?)
    }

    pub(super) fn health(&self) -> ClusterHealth {
        let pin_problem = || match &*self.pin_problem() {
            Some((_, PinError::OtherCluster(problem))) => Some(problem.clone()),
            Some((_, PinError::Unavailable(error))) => Some(error.to_string()),
            None => None,
        };
        let (kept_reviews, displaced_reviews) = self.reviewer.kept_and_displaced();
        ClusterHealth {
            kept_reviews,
            displaced_reviews,
            name: self.settings.name.to_string(),
            // What a name means holds for good, also while nobody answers to it.
            uid: self.uid.get().cloned().or_else(|| self.remembered.row().uid),
            synced: self.watch.is_synced(),
            unreachable_since: self.reach.unreachable_since(),
            last_seen: self.watch.last_seen(),
            pods: self.watch.pod_count(),
            problem: if self.uid.initialized() {
                self.watch.problem().or_else(|| self.namespaces.problem())
            } else {
                pin_problem()
            },
        }
    }
}
