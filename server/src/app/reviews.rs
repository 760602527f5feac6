//! What the server revokes by itself.

use std::sync::Arc;

use super::{Base, deciders::Deciders, trust::Trust};
use crate::{gone_pods::GonePods, late_review::LateReview, metrics::Metrics};

impl Base {
    /// What was issued while a cluster was away is looked at when it is back; and pods that are gone lose what they had, where that is
    /// wanted.
    pub(super) fn start_reviews(&self, trust: &Trust, deciders: &mut Deciders, metrics: &Arc<Metrics>) {
        let review = LateReview {
            store: self.store.clone(),
            attestor: deciders.attestor.clone(),
            publisher: trust.publisher.clone(),
            agents: trust.agents.clone(),
            metrics: metrics.clone(),
            clock: self.clock.clone(),
        };
        self.drain
            .spawn_vital("late review", review.run(self.drain.clone()));
        let Some(gone) = deciders.gone.take() else {
            return;
        };
        let pods = GonePods {
            store: self.store.clone(),
            attestor: deciders.attestor.clone(),
            publisher: trust.publisher.clone(),
            agents: trust.agents.clone(),
            metrics: metrics.clone(),
            clock: self.clock.clone(),
        };
        self.drain
            .spawn_vital("pods that are gone", pods.run(gone, self.drain.clone()));
    }
}
