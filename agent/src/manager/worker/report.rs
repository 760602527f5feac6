//! What the worker says of itself, for the server to know what is in use.

use super::Worker;
use crate::server_client::TrustReport;
use crate::time::Moment;

impl Worker {
    /// After publishing: what is reported has reached the workloads' channels.
    pub(super) fn report(&self, now: Moment) {
        let report = TrustReport {
            authorities_in_use: self.cache.authorities_in_use(now).into_iter().collect(),
            knows_in_use: self.left.is_known(),
            pod_uids: self.admitted.pods().cloned().collect(),
            ..self.trust().map(|trust| trust.report()).unwrap_or_default()
        };
        self.reports.send_if_modified(|current| {
            let changed = *current != report;
            *current = report;
            changed
        });
    }
}
