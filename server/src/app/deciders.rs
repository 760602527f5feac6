//! Who decides about identities: attestation, rules, the issuer.

use std::sync::Arc;

use ring::rand::SystemRandom;
use tokio::sync::watch;

use super::{Base, trust::Trust};
use crate::{
    agents::Agents,
    attest::{
        self, Attestor,
        cluster::{Calls, KubernetesAttestor},
    },
    issuer::{Issuer, IssuerParts},
    kubernetes::pods::{PodEvent, PodEventKind},
    metrics::Metrics,
    rules::RuleSet,
};

/// Who decides about identities.
pub(super) struct Deciders {
    pub(super) attestor: Arc<dyn Attestor>,
    pub(super) issuer: Arc<Issuer>,
    pub(super) rules: watch::Receiver<Arc<RuleSet>>,
}

impl Base {
    /// Begins to watch the clusters, with so many calls of callers under way, and makes the issuer that believes them.
    pub(super) async fn start_deciders(
        &self,
        trust: &Trust,
        metrics: &Arc<Metrics>,
        calls: usize,
    ) -> anyhow::Result<Deciders> {
        let told = trust.agents.clone();
        let attestor = KubernetesAttestor::start(
            &self.config.attestation,
            self.config.clock_skew,
            self.clock.clone(),
            self.store.clone(),
            &self.drain,
            Arc::new(move |event| tell(&told, &event)),
            Calls {
                rooms: calls,
                refusals: metrics.refusals("attestation", attest::REASONS),
            },
        )
        .await?;
        let attestor: Arc<dyn Attestor> = Arc::new(attestor);
        let pods = attestor.clone();
        trust
            .agents
            .watch_pods(move |cluster, pod_uid| pods.is_pod_gone(cluster, pod_uid));
        let rules = watch::Sender::new(self.config.rules.clone()).subscribe();
        let issuer = Issuer::new(IssuerParts {
            trust_domain: self.config.trust_domain.clone(),
            store: self.store.clone(),
            audit: self.audit.clone(),
            attestor: attestor.clone(),
            rules: rules.clone(),
            authorities: trust.authorities.current(),
            clock: self.clock.clone(),
            rng: SystemRandom::new(),
            profile: self.config.workload_profile.clone(),
            control_profile: self.config.control_profile.clone(),
            max_live: self.config.max_live,
            agents: trust.agents.clone(),
            metrics: metrics.clone(),
            backlog: self.backlog.clone(),
        });
        Ok(Deciders {
            attestor,
            issuer: Arc::new(issuer),
            rules,
        })
    }
}

/// A changed pod may get another verdict; a pod that is gone needs none: its volume goes with it.
fn tell(agents: &Agents, event: &PodEvent) {
    if event.kind == PodEventKind::Changed {
        agents.pod_affected(&event.cluster, &event.node_name, &event.pod_uid);
    }
}
