//! The trust stream: what is true now goes out, what the agent holds comes back.

use std::{
    cmp::Ordering,
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use signet_certs::{authority::AuthorityId, crl::CrlNumber, time::unix_millis, verify::VerifiedSvid};
use signet_proto::agent::{self as wire, objection};
use signet_runtime::{
    drain::Drain,
    error::excerpt,
    ready::{Level, Readiness},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};

use super::evidence::Evidence;
use crate::{
    agents::{Affected, Report, STREAM_AFTER_END, Session},
    attest::Outages,
    clock::TrustedClock,
    trust::{PublishedAuthority, TrustSnapshot},
};

/// Pause after a report before the next one is read. Each report wakes those who wait for a bundle to spread: an agent
/// that sends them without end waits, and nobody else.
const REPORT_PAUSE: Duration = Duration::from_millis(100);
/// Shortest time between a trust state and one that is sent only because other reasons keep the server from issuing: each
/// carries every list.
const REASONS_PAUSE: Duration = Duration::from_secs(5);
/// Pods on one node that a report may name; Kubernetes recommends at most 110.
const MAX_PODS: usize = 4096;

/// Characters of an agent's reason for not believing a bundle.
const MAX_PROBLEM: usize = 256;

/// One open trust stream.
pub(super) struct SyncStream {
    pub(super) session: Session,
    pub(super) svid: Arc<VerifiedSvid>,
    pub(super) trust: watch::Receiver<Arc<TrustSnapshot>>,
    pub(super) clock: Arc<TrustedClock>,
    pub(super) outages: watch::Receiver<Outages>,
    /// Says whether the server issues.
    pub(super) readiness: Readiness,
    pub(super) policy_revision: u64,
    /// Of the store; `None` for an agent of minor version 0, which gets what it got then.
    pub(super) epoch: Option<u64>,
    /// What is made of the lists that the agent reports.
    pub(super) evidence: Evidence,
    pub(super) sender: mpsc::Sender<Result<wire::TrustState, Status>>,
    /// When the next report is read.
    pub(super) reports_from: Instant,
    /// The sequence that was last objected to, so that it is said once.
    pub(super) objected_to: Option<u64>,
}

/// What the agent was told last.
struct Said {
    snapshot: Arc<TrustSnapshot>,
    /// Since when its cluster cannot be reached.
    away: Option<SystemTime>,
    /// Why the server does not issue.
    reasons: Vec<&'static str>,
}

/// Why a trust stream goes on or ends.
enum Next {
    /// There is something to say.
    Say(Affected),
    /// The agent is to hand over its list of this authority.
    Ask(AuthorityId),
    /// The agent is gone.
    Gone,
    /// Told to the agent as the last thing.
    End(Status),
}

impl SyncStream {
    /// Serves the stream until either side ends it.
    pub(super) async fn run(mut self, mut reports: Streaming<wire::TrustReport>, drain: Drain) {
        let (mut affected, mut wanted) = (Affected::Nothing, None);
        loop {
            let snapshot = self.trust.borrow_and_update().clone();
            self.outages.mark_unchanged();
            let away = self.cluster_away();
            let next = match self.rejected(&snapshot) {
                Some(status) => Next::End(status),
                None => {
                    let mut state = state(&snapshot, self.policy_revision, std::mem::take(&mut affected));
                    let reasons = self.readiness.names(Level::Issue);
                    if let Some(epoch) = self.epoch {
                        state.epoch = epoch;
                        state.clock_unix_ms = unix_millis(self.clock.now());
                        state.cluster_unreachable_since_unix_ms = away.map_or(0, unix_millis);
                        state.not_issuing = reasons.iter().map(ToString::to_string).collect();
                    }
                    let wanted = wanted.take().into_iter();
                    state.wanted_crls = wanted
                        .map(|id: AuthorityId| Bytes::copy_from_slice(id.as_bytes()))
                        .collect();
                    let said = Said {
                        snapshot,
                        away,
                        reasons,
                    };
                    self.say(state, &said, &mut reports, &drain).await
                }
            };
            match next {
                Next::Say(pods) => affected = pods,
                Next::Ask(authority) => wanted = Some(authority),
                Next::Gone => {
                    self.evidence.gone();
                    break;
                }
                Next::End(status) => {
                    // An agent that does not read learns it from the end of the connection.
                    let _ = self.sender.try_send(Err(status));
                    break;
                }
            }
        }
        self.session.end(self.clock.now());
    }

    /// Sends `state`, then takes reports in until there is something new.
    async fn say(
        &mut self,
        state: wire::TrustState,
        said: &Said,
        reports: &mut Streaming<wire::TrustReport>,
        drain: &Drain,
    ) -> Next {
        let stopping = || Next::End(Status::unavailable("the server is stopping"));
        tokio::select! {
            sent = self.sender.send(Ok(state)) => if sent.is_err() { return Next::Gone },
            () = drain.signalled() => return stopping(),
        }
        let reasons_from = Instant::now() + REASONS_PAUSE;
        loop {
            tokio::select! {
                changed = self.trust.changed() => match changed {
                    // Revisions of the revoked set move without any list changing.
                    Ok(()) if self.trust.borrow().same_content(&said.snapshot) => {}
                    Ok(()) => return Next::Say(Affected::Nothing),
                    Err(_) => return stopping(),
                },
                Ok(()) = self.outages.changed() => if self.cluster_away() != said.away {
                    return Next::Say(Affected::Nothing);
                },
                next = self.session.next_affected() => {
                    return next.map_or_else(
                        || Next::End(Status::unavailable("another stream of this agent took over, or its certificate counts no more")),
                        Next::Say,
                    );
                }
                () = other_reasons(&self.readiness, reasons_from, &said.reasons), if self.epoch.is_some() => {
                    return Next::Say(Affected::Nothing);
                }
                report = next_report(self.reports_from, reports) => match report {
                    Ok(Some(report)) => {
                        // Who has expired hears, and is not heard.
                        if self.svid.not_after() >= self.clock.now() {
                            self.hear(report, &said.snapshot).await;
                        }
                        self.reports_from = Instant::now() + REPORT_PAUSE;
                    }
                    Ok(None) | Err(_) => return Next::Gone,
                },
                next = self.evidence.next() => match next {
                    Ok(authority) => return Next::Ask(authority),
                    Err(alarm) => self.session.unproven(&alarm),
                },
                () = drain.signalled() => return stopping(),
            }
        }
    }

    /// Since when the agent's own cluster cannot be reached.
    fn cluster_away(&self) -> Option<SystemTime> {
        let cluster = self.svid.spiffe_id().cluster_of_agent()?;
        self.outages.borrow().get(cluster).copied()
    }

    async fn hear(&mut self, mut report: wire::TrustReport, said: &TrustSnapshot) {
        let held = std::mem::take(&mut report.held_crls);
        let confirmed = self.confirmed(&report, said);
        let mut report = self.report(report, confirmed);
        report.unproven = self.evidence.hear(&report.crls, &held).await;
        self.session.report(report);
    }

    /// Expiry does not end the stream for seven days, revocation does. Judged by the very lists that are about to be sent.
    fn rejected(&self, snapshot: &TrustSnapshot) -> Option<Status> {
        let time = self.clock.time();
        if time.is_over_for(self.svid.not_after(), STREAM_AFTER_END) {
            return Some(Status::unauthenticated(
                "the agent certificate has expired long ago: attest the node again",
            ));
        }
        let mut control = snapshot.control.iter();
        let serial = self.svid.serial();
        match control.find(|published| published.certificate.id() == self.svid.authority_id()) {
            None => Some(Status::unauthenticated(
                "the agent certificate is refused: its authority is no longer trusted",
            )),
            Some(published) if published.crl.is_revoked(&serial) => {
                let status = Status::unauthenticated("the agent certificate is refused: it is revoked");
                Some(objection::revoked(status, &serial.to_string()))
            }
            Some(_) => None,
        }
    }

    /// The sequence that a report stands for. One that this stream has not said, or that stands for another content here, is
    /// none: an older store was restored, or the agent lies.
    fn confirmed(&mut self, report: &wire::TrustReport, said: &TrustSnapshot) -> u64 {
        match report.sequence_number.cmp(&said.sequence) {
            Ordering::Less => report.sequence_number,
            Ordering::Equal if report.bundle_digest.as_ref() == said.bundle().digest() => said.sequence,
            Ordering::Equal | Ordering::Greater if self.objected_to == Some(report.sequence_number) => 0,
            Ordering::Equal | Ordering::Greater => {
                self.objected_to = Some(report.sequence_number);
                tracing::warn!(
                    agent = %self.svid.spiffe_id(),
                    reported = report.sequence_number,
                    sequence = said.sequence,
                    "an agent holds a bundle that this server does not know"
                );
                0
            }
        }
    }

    fn report(&self, report: wire::TrustReport, confirmed: u64) -> Report {
        let authority = |bytes: &[u8]| AuthorityId::try_from(bytes).ok();
        Report {
            sequence: report.sequence_number,
            confirmed,
            crls: report
                .crls
                .iter()
                .take(64)
                .filter_map(|crl| {
                    Some((
                        authority(&crl.authority_id)?,
                        CrlNumber(crl.number),
                        crl.sha256.as_ref().try_into().ok()?,
                    ))
                })
                .collect(),
            in_use: report
                .authorities_in_use
                .iter()
                .take(64)
                .filter_map(|used| Some((authority(&used.authority_id)?, used.current_svids)))
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

async fn other_reasons(readiness: &Readiness, from: Instant, said: &[&str]) {
    sleep_until(from).await;
    readiness.differs(Level::Issue, said).await;
}

/// Loses nothing when it is given up: a message is taken only when it is complete.
async fn next_report(
    from: Instant,
    reports: &mut Streaming<wire::TrustReport>,
) -> Result<Option<wire::TrustReport>, Status> {
    sleep_until(from).await;
    reports.message().await
}

pub(super) fn state(snapshot: &TrustSnapshot, policy_revision: u64, affected: Affected) -> wire::TrustState {
    let authorities = |all: &[PublishedAuthority]| {
        all.iter()
            .map(|authority| wire::Authority {
                certificate: Bytes::copy_from_slice(authority.certificate.der()),
                crl: authority.crl.der().clone(),
                tainted: false,
            })
            .collect()
    };
    let (affected_pod_uids, all_affected) = match affected {
        Affected::Nothing => (Vec::new(), false),
        Affected::Pods(pods) => (pods.into_iter().collect(), false),
        Affected::All => (Vec::new(), true),
    };
    wire::TrustState {
        sequence_number: snapshot.sequence,
        refresh_hint_seconds: u32::try_from(snapshot.refresh_hint.as_secs()).unwrap_or(u32::MAX),
        x509_authorities: authorities(&snapshot.x509),
        control_authorities: authorities(&snapshot.control),
        policy_revision,
        affected_pod_uids,
        all_affected,
        ..wire::TrustState::default()
    }
}
