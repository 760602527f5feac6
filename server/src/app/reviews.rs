//! What the server revokes by itself.

use std::sync::Arc;

use super::{Base, deciders::Deciders, trust::Trust};
use crate::{gone_pods::GonePods, late_review::LateReview, metrics::Metrics, unasked::Unasked};

impl Base {
    /// What was issued while a cluster was away is looked at when it is back; and pods that are gone lose what they had, where that is
    /// wanted.
    pub(super) fn start_reviews(&self, trust: &Trust, deciders: &mut Deciders, metrics: &Arc<Metrics>) {
        let unasked = || Unasked {
            store: self.store.clone(),
            publisher: trust.publisher.clone(),
            agents: trust.agents.clone(),
            metrics: metrics.clone(),
            clock: self.clock.clone(),
        };
        let review = LateReview {
            unasked: unasked(),
            attestor: deciders.attestor.clone(),
        };
        self.drain
            .spawn_vital("late review", review.run(self.drain.clone()));
        let Some(gone) = deciders.gone.take() else {
            return;
        };
        let pods = GonePods {
            unasked: unasked(),
            attestor: deciders.attestor.clone(),
        };
        self.drain
            .spawn_vital("pods that are gone", pods.run(gone, self.drain.clone()));
    }
}
