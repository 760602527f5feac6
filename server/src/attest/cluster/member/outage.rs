//! Whether the cluster is away, and what goes on meanwhile.

use std::time::{Duration, SystemTime};

use signet_runtime::clock::Clock as _;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Cluster;
use crate::attest::reach::Probe;
use crate::attest::{AttestError, NodeInOutage, Outages, Place, RefusedReason};
use crate::kubernetes::claims::{ClaimsError, ClaimsPolicy, KubernetesClaims};
use crate::kubernetes::pods::LivePod;

const VERSION_BYTES: usize = 16 * 1024;
/// Answers count as a clock for a minute; two that are lost in between change nothing.
const PROBE_EVERY: Duration = Duration::from_secs(20);
/// While there is no answer.
pub(super) const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// For whoever asks when the grace is over.
const AFTER_GRACE: Duration = Duration::from_secs(60);

/// Says since when the cluster of this name cannot be reached, if it cannot be.
pub(super) fn tell(outages: &watch::Sender<Outages>, cluster: &str, since: Option<SystemTime>) {
    outages.send_if_modified(|all| match since {
        Some(since) => all.insert(cluster.to_owned(), since) != Some(since),
        None => all.remove(cluster).is_some(),
    });
}

impl Cluster {
    /// Asks the API server whether it is there. Keeps a fresh answer at hand too: its `Date` is the server's second clock.
    pub(super) async fn probe(&self) {
        loop {
            let answer = self.api.get_bytes("/version", VERSION_BYTES).await;
            if let Err(error) = &answer {
                tracing::debug!(cluster = %self.settings.name, %error, "the API server does not tell its version");
            }
            let probe = Probe::of(&answer);
            self.probed(probe).await;
            sleep(match probe {
                Probe::Answered => PROBE_EVERY,
                Probe::Failed | Probe::Unclear => PROBE_AGAIN_AFTER,
            })
            .await;
        }
    }

    async fn probed(&self, probe: Probe) {
        let before = self.reach.unreachable_since();
        if before.is_some() {
            *self.away_at.lock() = Some(self.clock.elapsed());
        }
        let since = self.reach.probed(probe, self.watch.is_whole());
        match (before, since) {
            (None, Some(_)) => {
                tracing::error!(cluster = %self.settings.name, "the API server cannot be reached");
            }
            (Some(_), None) => tracing::info!(cluster = %self.settings.name, "the API server is back"),
            _ => {}
        }
        tell(&self.outages, &self.settings.name, since);
        // Every time, so that what could not be written once is written soon.
        let kept = self.remembered.change(|row| row.unreachable_since = since).await;
        if let Err(error) = kept {
            tracing::error!(cluster = %self.settings.name, %error, "the store did not take the state of the cluster");
        }
    }

    /// The time by which a token must not have expired: in an outage the moment when it began, for kubelet gets no newer
    /// ones since.
    pub(super) fn good_at(&self) -> SystemTime {
        let now = self.clock.now();
        self.reach.in_grace().map_or(now, |since| since.min(now))
    }

    /// Checks a token's claims by the time. True for one that has expired since the outage began: it was good then, and kubelet
    /// gets no newer one.
    pub(super) fn check_age(
        &self,
        claims: &KubernetesClaims,
        policy: &ClaimsPolicy<'_>,
    ) -> Result<bool, RefusedReason> {
        let now = self.clock.now();
        let checked = claims.check(policy, now);
        match self.reach.unreachable_since() {
            Some(since)
                if matches!(checked, Err(ClaimsError::Expired(_)))
                    && claims.check(policy, since.min(now)).is_ok() =>
            {
                Ok(true)
            }
            _ => Ok(checked.map(|()| false)?),
        }
    }

    /// Not a verdict: nobody can ask about the pod, and what was known of it is too old.
    pub(super) fn away_for_too_long(&self) -> AttestError {
        let cluster = &self.settings.name;
        AttestError::Unavailable {
            message: format!(
                "cluster `{cluster}`: its API server has been away for longer than `attestation.grace`, and the token has \
                 expired meanwhile"
            ),
            retry_after: AFTER_GRACE,
        }
    }

    pub(super) fn is_watch_believed(&self) -> bool {
        self.watch.holds() || self.reach.in_grace().is_some()
    }

    /// What an outage put off: whether a pod and its node, or a node alone, are there. The watch says so once it has come up to
    /// a moment after the last that the cluster was away at; a node is read once after that.
    pub(in crate::attest::cluster) async fn is_there(&self, place: Place<'_>) -> Option<bool> {
        let away_at = *self.away_at.lock();
        if self.reach.unreachable_since().is_some() || !self.watch.is_current(away_at) {
            return None;
        }
        let of_pod = !place.pod_uid.is_empty();
        let pod = self.watch.pod(place.pod_uid);
        let is_on_node = |pod: &LivePod| *pod.node_name == *place.node_name && !pod.phase.is_over();
        if of_pod && !pod.is_some_and(|pod| is_on_node(&pod)) {
            return Some(false);
        }
        self.has_node(place.node_name, place.node_uid, away_at).await
    }

    /// In an outage that is not older than the grace: the node that a token names, if the cluster signed it, it was unexpired
    /// when the outage began, and its pod was there when the watch last showed anything. `None` otherwise.
    pub(in crate::attest::cluster) fn node_in_outage(&self, token: &str) -> Option<NodeInOutage> {
        self.reach.in_grace()?;
        let claims = self.check_in_outage(token).ok()?;
        let (pod, node) = (claims.pod?, claims.node?);
        let was_there = match self.watch.pod(&pod.uid) {
            Some(live) => *live.node_name == *node.name && !live.phase.is_over(),
            None => !self.watch.was_listed(),
        };
        was_there.then(|| NodeInOutage {
            cluster_uid: self
                .uid
                .get()
                .cloned()
                .or_else(|| self.remembered.row().uid)
                .unwrap_or_default(),
            node_name: node.name,
            node_uid: node.uid,
        })
    }
}
