//! Pods without a token of theirs: what the watch shows of them, for whoever wants to know what rules would make of it.

use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::{Cluster, READING_POD};
use crate::attest::{AttestedPod, Found, FoundPod, KnownPod, PodsLike};
use crate::kubernetes::api::CallError;
use crate::kubernetes::budget::Payer;
use crate::kubernetes::pods::{LivePod, get_pod};

/// How long an admin waits for a pod that the watch does not show.
const LONGEST_FIND: Duration = Duration::from_secs(5);

impl Cluster {
    pub(in crate::attest::cluster) fn known_pod(&self, pod_uid: &str) -> KnownPod {
        match self.watch.pod(pod_uid) {
            Some(live) if !live.phase.is_over() => KnownPod::There(Box::new(self.without_token(&live))),
            None if !self.watch.is_synced() => KnownPod::Unknown,
            _ => KnownPod::Gone,
        }
    }

    /// The pod of this name: as the watch shows it, else as the API server has it.
    pub(in crate::attest::cluster) async fn find_pod(&self, namespace: &str, name: &str) -> Found {
        if let Some(live) = self.watch.pod_named(namespace, name) {
            return Found::There(Box::new(self.found(&live, false)));
        }
        let read = async {
            let _under_way = self.api.admit(Payer::Admin).await?;
            get_pod(&self.api, namespace, name).await
        };
        let read = timeout(LONGEST_FIND, read).await;
        match read.unwrap_or(Err(CallError::Timeout)) {
            Ok(Some(live)) => Found::There(Box::new(self.found(&live, true))),
            Ok(None) => Found::Nowhere,
            Err(error) => Found::Unknown(self.api.unavailable(READING_POD, &error).message),
        }
    }

    /// Pods of the watch that are not over, and whether there are more.
    pub(in crate::attest::cluster) fn pods_like(
        &self,
        like: &PodsLike,
        most: usize,
    ) -> (Vec<AttestedPod>, bool) {
        let (pods, more) = self.watch.pods_where(&|live| is_like(live, like), most);
        let pods = pods.iter().map(|live| self.without_token(live));
        (pods.collect(), more)
    }

    fn found(&self, live: &LivePod, from_api: bool) -> FoundPod {
        FoundPod {
            pod: self.without_token(live),
            phase: live.phase.as_str(),
            is_over: live.phase.is_over(),
            from_api,
        }
    }

    /// What only a token tells is empty.
    fn without_token(&self, live: &LivePod) -> AttestedPod {
        AttestedPod {
            cluster: self.settings.name.to_string(),
            cluster_uid: self.uid.get().cloned().unwrap_or_default(),
            namespace: live.namespace.to_string(),
            service_account: live.service_account.to_string(),
            pod_name: live.name.to_string(),
            pod_uid: live.uid.to_string(),
            node_name: live.node_name.to_string(),
            node_uid: String::new(),
            labels: live.labels.clone(),
            namespace_labels: self.known_labels(&live.namespace),
            jti: String::new(),
            expires: SystemTime::UNIX_EPOCH,
            terminating: live.terminating,
            outage: false,
        }
    }
}

fn is_like(live: &LivePod, like: &PodsLike) -> bool {
    let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
    !live.phase.is_over()
        && is(&like.namespace, &live.namespace)
        && is(&like.service_account, &live.service_account)
        && is(&like.name, &live.name)
        && is(&like.uid, &live.uid)
        && is(&like.node_name, &live.node_name)
}
