//! What an agent says over its trust stream.

use std::{cmp::Ordering, collections::HashSet, time::Duration};

use signet_certs::{authority::AuthorityId, crl::CrlNumber, time::unix_millis};
use signet_proto::agent as wire;
use signet_runtime::error::excerpt;
use tokio::time::Instant;

use super::{super::frames::Rendered, SyncStream};
use crate::agents::Report;

/// Pause after a report before the next one is read. Each report wakes those who wait for a bundle to spread: an agent
/// that sends them without end waits, and nobody else.
const REPORT_PAUSE: Duration = Duration::from_millis(100);
/// Pause after a report that misses a list, which may be as long as the longest.
const LACK_PAUSE: Duration = Duration::from_secs(1);
/// Pods on one node that a report may name; Kubernetes recommends at most 110.
const MAX_PODS: usize = 4096;
/// Authorities that a report may name.
const MAX_AUTHORITIES: usize = 64;
/// Characters of an agent's reason for not believing a bundle.
const MAX_PROBLEM: usize = 256;

impl SyncStream {
    /// Takes a report in; whether it misses a list.
    pub(super) async fn hear(&mut self, report: wire::TrustReport, said: &Rendered) -> bool {
        let lacks = !report.lacking_crls.is_empty();
        self.note_lists(&report);
        // Who has expired hears, and is not heard.
        if self.svid.not_after() >= self.clock.now() {
            self.believe(report, said).await;
        }
        let lacks = lacks && self.held.is_some();
        self.reports_from = Instant::now() + if lacks { LACK_PAUSE } else { REPORT_PAUSE };
        lacks
    }

    fn note_lists(&mut self, report: &wire::TrustReport) {
        let Some(held) = &mut self.held else {
            return;
        };
        let said = report.crls.iter().take(MAX_AUTHORITIES);
        *held = said
            .filter_map(|crl| {
                Some((
                    authority_id(&crl.authority_id)?,
                    crl.sha256.as_ref().try_into().ok()?,
                ))
            })
            .collect();
        for lacking in report.lacking_crls.iter().take(MAX_AUTHORITIES) {
            authority_id(lacking).map(|id| held.remove(&id));
        }
    }

    async fn believe(&mut self, mut report: wire::TrustReport, said: &Rendered) {
        let held = std::mem::take(&mut report.held_crls);
        let confirmed = self.confirmed(&report, said);
        let mut report = self.report(report, confirmed);
        report.unproven = self.evidence.hear(&report.crls, &held).await;
        self.session.report(report);
    }

    /// The sequence that a report stands for. One that this stream has not said, or that stands for another content here, is
    /// none: an older store was restored, or the agent lies.
    fn confirmed(&mut self, report: &wire::TrustReport, said: &Rendered) -> u64 {
        let sequence = said.snapshot().sequence;
        match report.sequence_number.cmp(&sequence) {
            Ordering::Less => report.sequence_number,
            Ordering::Equal if report.bundle_digest.as_ref() == said.bundle_digest => sequence,
            Ordering::Equal | Ordering::Greater if self.objected_to == Some(report.sequence_number) => 0,
            Ordering::Equal | Ordering::Greater => {
                self.objected_to = Some(report.sequence_number);
                tracing::warn!(
                    agent = %self.svid.spiffe_id(),
                    reported = report.sequence_number,
                    sequence,
                    "an agent holds a bundle that this server does not know"
                );
                0
            }
        }
    }

    fn report(&self, report: wire::TrustReport, confirmed: u64) -> Report {
        Report {
            sequence: report.sequence_number,
            confirmed,
            crls: report
                .crls
                .iter()
                .take(MAX_AUTHORITIES)
                .filter_map(|crl| {
                    Some((
                        authority_id(&crl.authority_id)?,
                        CrlNumber(crl.number),
                        crl.sha256.as_ref().try_into().ok()?,
                    ))
                })
                .collect(),
            in_use: report
                .authorities_in_use
                .iter()
                .take(MAX_AUTHORITIES)
                .filter_map(|used| Some((authority_id(&used.authority_id)?, used.current_svids)))
                .collect(),
            pod_uids: report
                .pod_uids
                .into_iter()
                .filter(|uid| uid.len() <= 64)
                .take(MAX_PODS)
                .collect::<HashSet<_>>(),
            problem: excerpt(&report.problem, MAX_PROBLEM),
            unproven: String::new(),
            clock_skew_ms: report.clock_unix_ms.saturating_sub(unix_millis(self.clock.now())),
        }
    }
}

fn authority_id(bytes: &[u8]) -> Option<AuthorityId> {
    AuthorityId::try_from(bytes).ok()
}
