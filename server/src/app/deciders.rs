//! Who decides about identities: attestation, rules, the issuer.

use std::sync::Arc;

use ring::rand::SystemRandom;
use signet_runtime::drain::Drain;
use tokio::sync::{mpsc, watch};

use super::{Base, trust::Trust};
use crate::{
    agents::Agents,
    attest::{
        self, Attestor,
        cluster::{Calls, Follow, KubernetesAttestor},
    },
    gone_pods::{self, GonePod, TellGone},
    issuer::{Issuer, IssuerParts},
    kubernetes::pods::{PodEvent, PodEventKind},
    live_rules::{LiveRules, LiveRulesParts, NotStarted},
    metrics::Metrics,
    rules::RuleSet,
};

/// Who decides about identities.
pub(super) struct Deciders {
    pub(super) attestor: Arc<dyn Attestor>,
    pub(super) issuer: Arc<Issuer>,
    pub(super) rules: LiveRules,
    /// Pods that are gone, where their certificates are to go with them.
    pub(super) gone: Option<mpsc::Receiver<GonePod>>,
}

impl Base {
    /// Begins to watch the clusters, with so many calls of callers under way, and makes the issuer that believes them.
    pub(super) async fn start_deciders(
        &self,
        trust: &Trust,
        metrics: &Arc<Metrics>,
        calls: usize,
    ) -> anyhow::Result<Deciders> {
        let asks_for_labels = watch::Sender::new(false);
        let told = trust.agents.clone();
        let (tell_gone, gone) = self.config.revoke_gone_pods.then(gone_pods::channel).unzip();
        let attestor = KubernetesAttestor::start(
            &self.config.attestation,
            self.config.clock_skew,
            self.clock.clone(),
            self.store.clone(),
            &self.drain,
            Follow {
                tell: Arc::new(move |event| tell(&told, tell_gone.as_ref(), event)),
                namespaces: asks_for_labels.subscribe(),
            },
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
        let rules = self.start_rules(trust, &attestor, metrics).await?;
        tell_whether_labels_are_asked_for(rules.current(), asks_for_labels, &self.drain);
        let issuer = Issuer::new(IssuerParts {
            trust_domain: self.config.trust_domain.clone(),
            store: self.store.clone(),
            audit: self.audit.clone(),
            attestor: attestor.clone(),
            rules: rules.current(),
            authorities: trust.authorities.current(),
            clock: self.clock.clone(),
            rng: SystemRandom::new(),
            profile: self.config.workload_profile.clone(),
            longest_ttl: self.config.longest_ttl(),
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
            gone,
        })
    }

    /// Whoever owns the rules from now on.
    async fn start_rules(
        &self,
        trust: &Trust,
        attestor: &Arc<dyn Attestor>,
        metrics: &Arc<Metrics>,
    ) -> Result<LiveRules, NotStarted> {
        LiveRules::start(LiveRulesParts {
            source: self.rules.clone(),
            first: self.config.rules.clone(),
            confirm_above: self.config.rules_confirm_above,
            longest_ttl: self.config.longest_ttl(),
            store: self.store.clone(),
            attestor: attestor.clone(),
            agents: trust.agents.clone(),
            metrics: metrics.clone(),
            clock: self.clock.clone(),
            reread: self.reread.clone(),
            drain: self.drain.clone(),
        })
        .await
    }
}

/// Keeps `asks` as it is: whether any rule in force asks for labels of namespaces.
fn tell_whether_labels_are_asked_for(
    mut rules: watch::Receiver<Arc<RuleSet>>,
    asks: watch::Sender<bool>,
    drain: &Drain,
) {
    let drain_of_task = drain.clone();
    drain.spawn(async move {
        loop {
            let now = rules.borrow_and_update().asks_for_namespace_labels();
            asks.send_if_modified(|before| std::mem::replace(before, now) != now);
            tokio::select! {
                () = drain_of_task.signalled() => return,
                changed = rules.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    });
}

/// A changed pod may get another verdict; a pod that is gone needs none: its volume goes with it.
fn tell(agents: &Agents, gone: Option<&TellGone>, event: PodEvent) {
    match (event.kind, gone) {
        (PodEventKind::Changed, _) => {
            agents.pod_affected(&event.cluster, &event.node_name, &event.pod_uid);
        }
        (PodEventKind::Gone, Some(gone)) => gone.tell(GonePod {
            cluster: event.cluster,
            pod_uid: event.pod_uid,
        }),
        (PodEventKind::Gone, None) => {}
    }
}
