//! The trust stream: what is true now goes out, what the agent holds comes back.

mod heard;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use signet_certs::{
    authority::{AuthorityId, AuthorityKind},
    dates::WhoseClock,
    time::unix_millis,
    verify::VerifiedSvid,
};
use signet_proto::agent::{self as wire, objection};
use signet_runtime::{
    bucket::{Bucket, Rate},
    drain::Drain,
    ready::{Level, Readiness},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tonic::{Status, Streaming};

use super::{
    evidence::Evidence,
    frames::{Frames, Rendered, Renderings},
};
use crate::{
    agents::{Affected, STREAM_AFTER_END, Session},
    attest::Outages,
    clock::TrustedClock,
    rules::RuleSet,
    trust::TrustSnapshot,
};

/// Trust states that are sent only because other reasons keep the server from issuing: each may carry every list. The first
/// comes at once, for a server that has just been started cannot issue for a moment.
pub(super) const OTHER_REASONS: Rate = Rate {
    per_second: 0.2,
    burst: 1.0,
};
/// How long an agent that names the lists it holds has for its first report, before it is sent all of them.
const FIRST_REPORT: Duration = Duration::from_secs(2);
/// How long an agent may leave what it was told untaken. A stream that waits for it longer ends: it would neither hear that its
/// certificate counts no more nor give up its turn to be asked for a list.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// Streams that are told something at the same time. With as many as there are, a certificate that is asked for would wait
/// until all have been served.
const AT_ONCE: usize = 64;

/// Turns of streams that have something to say.
pub(crate) type Pace = Arc<Semaphore>;

/// For all streams of a server.
#[must_use]
pub(crate) fn pace() -> Pace {
    Arc::new(Semaphore::new(AT_ONCE))
}

/// One open trust stream.
pub(super) struct SyncStream {
    pub(super) session: Session,
    pub(super) svid: Arc<VerifiedSvid>,
    pub(super) trust: watch::Receiver<Arc<TrustSnapshot>>,
    pub(super) clock: Arc<TrustedClock>,
    pub(super) outages: watch::Receiver<Outages>,
    /// Says whether the server issues.
    pub(super) readiness: Readiness,
    pub(super) rules: watch::Receiver<Arc<RuleSet>>,
    pub(super) renderings: Arc<Renderings>,
    pub(super) pace: Pace,
    /// Digests of the lists that the agent holds, by authority, so far as is known; `None` where it is sent all of them.
    pub(super) held: Option<HashMap<AuthorityId, [u8; 32]>>,
    /// Of the store; `None` for an agent of minor version 0, which gets what it got then.
    pub(super) epoch: Option<u64>,
    /// What is made of the lists that the agent reports.
    pub(super) evidence: Evidence,
    pub(super) sender: mpsc::Sender<Result<Frames, Status>>,
    /// When it is told of nothing but other reasons.
    pub(super) reasons: Bucket,
    /// When the next report is read.
    pub(super) reports_from: Instant,
    /// The sequence that was last objected to, so that it is said once.
    pub(super) objected_to: Option<u64>,
}

/// What the agent was told last.
struct Said {
    state: Arc<Rendered>,
    /// Since when its cluster cannot be reached.
    away: Option<SystemTime>,
    /// Why the server does not issue.
    reasons: Vec<&'static str>,
}

/// The agent has gone, or takes nothing.
struct NotTaken;

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
        let (mut affected, mut wanted) = (self.begin(&mut reports, &drain).await, None);
        loop {
            let snapshot = self.trust.borrow_and_update().clone();
            self.outages.mark_unchanged();
            let policy_revision = self.rules.borrow_and_update().revision();
            let away = self.cluster_away();
            let next = match self.rejected(&snapshot) {
                Some(status) => Next::End(status),
                None => {
                    let mut state = told(std::mem::take(&mut affected));
                    state.policy_revision = policy_revision;
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
                        state: self.renderings.of(&snapshot),
                        away,
                        reasons,
                    };
                    self.say(&state, &said, &mut reports, &drain).await
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

    /// Hears from an agent that names the lists it holds which these are, before it is sent any. Something may have changed
    /// while it was away: the rules, or with the store's epoch all that was denied.
    async fn begin(&mut self, reports: &mut Streaming<wire::TrustReport>, drain: &Drain) -> Affected {
        if self.held.is_none() {
            return Affected::Nothing;
        }
        let report = tokio::select! {
            report = timeout(FIRST_REPORT, reports.message()) => report,
            () = drain.signalled() => return Affected::Nothing,
        };
        // A stream that ended is found out when it is read next.
        let Ok(Ok(Some(report))) = report else {
            return Affected::Nothing;
        };
        let seen = (report.epoch, report.policy_revision);
        let now = (self.epoch.unwrap_or_default(), self.rules.borrow().revision());
        let missed = report.epoch > 0 && seen != now;
        let state = self.renderings.of(&self.trust.borrow().clone());
        self.hear(report, &state).await;
        if missed { Affected::All } else { Affected::Nothing }
    }

    /// Hands a state to the connection, in turn with the other streams. Whose connection has not taken the one before waits
    /// without taking anybody's turn.
    async fn tell(&mut self, own: &wire::TrustState, state: &Rendered) -> Result<(), NotTaken> {
        let room = timeout(TAKEN_WITHIN, self.sender.reserve()).await;
        let room = room.map_err(|_| NotTaken)?.map_err(|_| NotTaken)?;
        // Nobody closes it.
        let _turn = self.pace.acquire().await;
        let held = self.held.as_ref();
        let is_held = |authority: &AuthorityId, digest: &[u8; 32]| {
            held.is_some_and(|held| held.get(authority) == Some(digest))
        };
        room.send(Ok(state.message(own, is_held)));
        if let Some(held) = &mut self.held {
            // Until it says otherwise.
            held.extend(state.lists());
        }
        // The turn ends when its connection, if it can, has taken what was said: both stand in one queue.
        yield_now().await;
        Ok(())
    }

    /// Sends `state`, then takes reports in until there is something new.
    async fn say(
        &mut self,
        state: &wire::TrustState,
        said: &Said,
        reports: &mut Streaming<wire::TrustReport>,
        drain: &Drain,
    ) -> Next {
        let stopping = || Next::End(Status::unavailable("the server is stopping"));
        tokio::select! {
            sent = self.tell(state, &said.state) => if sent.is_err() { return Next::Gone },
            () = drain.signalled() => return stopping(),
        }
        let reasons_from = Instant::now() + self.reasons.check(Instant::now()).err().unwrap_or_default();
        loop {
            tokio::select! {
                changed = self.trust.changed() => match changed {
                    // Revisions of the revoked set move without any list changing.
                    Ok(()) if self.trust.borrow().same_content(said.state.snapshot()) => {}
                    Ok(()) => return Next::Say(Affected::Nothing),
                    Err(_) => return stopping(),
                },
                // Whoever has a verdict of other rules asks again.
                Ok(()) = self.rules.changed() => return Next::Say(Affected::Nothing),
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
                    self.reasons.spend(1.0, Instant::now());
                    return Next::Say(Affected::Nothing);
                }
                report = next_report(self.reports_from, reports) => match report {
                    Ok(Some(report)) => if self.hear(report, &said.state).await {
                        return Next::Say(Affected::Nothing);
                    },
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

    /// Expiry does not end the stream for seven days, revocation does. Judged by the very lists that are about to be sent.
    fn rejected(&self, snapshot: &TrustSnapshot) -> Option<Status> {
        let time = self.clock.time();
        if time.is_over_for(self.svid.not_after(), STREAM_AFTER_END) {
            let dates = self.svid.over_at(time.now).by(WhoseClock::Server);
            return Some(Status::unauthenticated(format!(
                "the agent certificate {dates}; attest the node again"
            )));
        }
        let mut control = snapshot.kind(AuthorityKind::Control).iter();
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

/// Which workloads to ask about again, in the agent's own part of a state.
fn told(affected: Affected) -> wire::TrustState {
    let (affected_pod_uids, all_affected) = match affected {
        Affected::Nothing => (Vec::new(), false),
        Affected::Pods(pods) => (pods.into_iter().collect(), false),
        Affected::All => (Vec::new(), true),
    };
    wire::TrustState {
        affected_pod_uids,
        all_affected,
        ..wire::TrustState::default()
    }
}
