//! What an agent says over its trust stream.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashSet},
    time::Duration,
};

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
            in_use: in_use(&report),
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

/// Nothing where the agent does not know, and where what it says is not all or not understood.
fn in_use(report: &wire::TrustReport) -> Option<Vec<(AuthorityId, u32)>> {
    let said = &report.authorities_in_use;
    if !report.knows_in_use || said.len() > MAX_AUTHORITIES {
        return None;
    }
    let mut counts = BTreeMap::new();
    for used in said {
        let count: &mut u32 = counts.entry(authority_id(&used.authority_id)?).or_default();
        *count = count.saturating_add(used.current_svids);
    }
    Some(counts.into_iter().collect())
}

fn authority_id(bytes: &[u8]) -> Option<AuthorityId> {
    AuthorityId::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(knows: bool, said: &[(&[u8], u32)]) -> wire::TrustReport {
        let used = said.iter().map(|(id, count)| wire::AuthorityUse {
            authority_id: id.to_vec().into(),
            current_svids: *count,
        });
        wire::TrustReport {
            knows_in_use: knows,
            authorities_in_use: used.collect(),
            ..wire::TrustReport::default()
        }
    }

    #[test]
    fn what_is_in_use_is_summed_up_and_what_is_not_all_is_not_known() {
        let (one, other): (&[u8], &[u8]) = (&[1; 20], &[2; 20]);
        let id = |bytes| authority_id(bytes).unwrap();
        let said = report(true, &[(one, u32::MAX), (other, 2), (one, 7)]);
        assert_eq!(in_use(&said), Some(vec![(id(one), u32::MAX), (id(other), 2)]));
        assert_eq!(in_use(&report(true, &[])), Some(Vec::new()));
        assert_eq!(in_use(&report(false, &[])), None);
        assert_eq!(in_use(&report(true, &[(&[1; 3], 1)])), None);
        assert_eq!(in_use(&report(true, &vec![(one, 1); MAX_AUTHORITIES + 1])), None);
    }
}
