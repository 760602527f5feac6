//! The trust stream as a value that is always there: what was last believed, kept over every interruption.

mod kept_out;
mod public;

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use signet_certs::authority::AuthorityId;
use signet_certs::id::TrustDomain;
use signet_certs::serial::SerialNumber;
use signet_certs::time::rfc3339;
use signet_runtime::backoff::Backoff;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::pace::random_unit;
use signet_runtime::ready::Condition;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub(crate) use self::kept_out::KeptOut;
use self::kept_out::lasts;
use self::public::next_read;
use super::anchors::ControlAnchors;
use super::objections::Objections;
use super::trust::{Accepted, TrustError, TrustFile, TrustState, accept, complete};
use super::{Answer, ServerApi, ServerError, TrustReport, TrustUpdate};
use crate::cache::Affected;
use crate::time::AgentTime;

/// Answers that wait to go out.
const ANSWERS: usize = 4;

/// News that is not state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Notice {
    /// Verdicts may have changed.
    Affected(Affected),
    /// The stream is open (again) and its first update is believed.
    Connected,
}

/// How the agent stands with its server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Connection {
    /// The trust stream is open.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: SystemTime,
    /// Last trouble, empty when none.
    pub problem: String,
    /// Why the server cannot issue, in its own words; empty when it can.
    pub not_issuing: Vec<String>,
}

impl Connection {
    /// Of an agent that starts.
    pub(crate) fn none_since(now: SystemTime) -> Self {
        Self {
            connected: false,
            since: now,
            problem: String::new(),
            not_issuing: Vec::new(),
        }
    }
}

/// What the sync task works with.
pub(crate) struct TrustSync {
    /// The server.
    pub api: Arc<dyn ServerApi>,
    /// Told about new control authorities.
    pub anchors: Arc<ControlAnchors>,
    /// Whose.
    pub trust_domain: TrustDomain,
    /// Told what the server says that it is.
    pub time: Arc<AgentTime>,
    /// Serial of the agent's own certificate; the stream needs one and is renewed with it.
    pub certificate: watch::Receiver<Option<SerialNumber>>,
    /// Told when the server does not accept the certificate.
    pub objections: Arc<Objections>,
    /// What the manager holds.
    pub reports: watch::Receiver<TrustReport>,
    /// Where believed states go.
    pub state: watch::Sender<Option<Arc<TrustState>>>,
    /// Where news goes.
    pub notices: mpsc::Sender<Notice>,
    /// Where the newest one is kept for a restart.
    pub file: Arc<TrustFile>,
    /// Told since when the API server of this node's cluster cannot be reached, as the server said last.
    pub outage: watch::Sender<Option<SystemTime>>,
    /// For people.
    pub connection: watch::Sender<Connection>,
    /// Waiting times between attempts.
    pub backoff: Backoff,
    /// Stands while a bundle has been kept out for long.
    pub not_believed: Condition,
    /// The bundle that was pushed last, if it is not believed.
    pub kept_out: Option<KeptOut>,
}

type Updates = BoxStream<'static, Result<TrustUpdate, ServerError>>;

impl TrustSync {
    /// Runs until draining starts.
    pub(crate) async fn run(mut self, drain: Drain) {
        tokio::select! {
            () = drain.signalled() => {}
            () = self.keep_in_sync() => {}
        }
    }

    async fn keep_in_sync(&mut self) {
        let mut read_at = next_read();
        loop {
            let mut certificate = self.certificate.clone();
            let certified = async { certificate.wait_for(Option::is_some).await.is_ok() };
            if !self.read_until(certified, &mut read_at).await {
                return;
            }
            let present = *self.certificate.borrow();
            let (answers, said) = mpsc::channel(ANSWERS);
            let error = match self.api.sync_trust(self.reports.clone(), said).await {
                Ok(updates) => {
                    let followed = self.follow(updates, &answers).await;
                    read_at = next_read();
                    match followed {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            self.lost(&error);
            let wait = self.backoff.next(random_unit());
            // One that is newer than the attempt is a reason to try at once.
            let newer = certificate.wait_for(|serial| *serial != present);
            let retry = tokio::time::timeout(wait, newer);
            let _ = self.read_until(retry, &mut read_at).await;
        }
    }

    /// Takes updates until the stream breaks, or until a newer certificate asks for a newer connection (then `Ok`).
    async fn follow(
        &mut self,
        mut updates: Updates,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), ServerError> {
        let before = self.state.borrow().as_ref().map(|state| state.policy_revision);
        let present = *self.certificate.borrow();
        let mut first = true;
        loop {
            let kept_out = self.kept_out.as_ref().and_then(KeptOut::alarms_at);
            let update = tokio::select! {
                update = updates.next() => Some(update),
                () = lasts(kept_out) => None,
                newer = self.certificate.wait_for(|serial| *serial != present) => match newer {
                    Ok(_) => return Ok(()),
                    Err(_) => return Err(ServerError::unavailable("the agent is ending")),
                },
            };
            let Some(update) = update else {
                self.alarm();
                continue;
            };
            let mut update =
                update.ok_or_else(|| ServerError::unavailable("the server ended the trust stream"))??;
            let lacking = complete(self.state.borrow().as_deref(), &mut update);
            let believed = self.take(&update);
            if believed {
                self.keep().await;
            }
            if believed && first {
                first = false;
                self.backoff.reset();
                self.notify(Notice::Connected).await;
                // Whom the change concerned was said while we were away.
                let missed = before.is_some_and(|before| before != update.policy_revision);
                if missed && update.affected != Some(Affected::All) {
                    self.notify(Notice::Affected(Affected::All)).await;
                }
            }
            self.answer(&update.wanted, lacking, answers);
            if let Some(affected) = update.affected {
                self.notify(Notice::Affected(affected)).await;
            }
        }
    }

    /// Believes an update of the stream, or keeps what is held and says why.
    fn take(&mut self, update: &TrustUpdate) -> bool {
        self.tell_of_outage(update.unreachable_since);
        let believed = self.believe(update);
        let is_believed = believed.is_ok();
        let problem = believed.unwrap_or_else(|error| error.to_string());
        self.say(true, problem, update.not_issuing.clone());
        is_believed
    }

    /// Believes what can be believed of an update; what of it is not, empty when all is.
    fn believe(&mut self, update: &TrustUpdate) -> Result<String, TrustError> {
        if let Some(date) = update.clock {
            self.time.tell(date);
        }
        let now = self.time.now();
        let held = self.state.borrow().clone();
        match accept(
            held.as_deref(),
            update,
            &self.trust_domain,
            &self.anchors.word(),
            now,
        ) {
            Ok(Accepted { state }) => {
                for (authority, error) in &state.refused {
                    tracing::error!(%authority, %error, "a CRL from the server is not believed; the older one stays, if there is one");
                }
                match state.problem.is_empty() {
                    true => self.anchors.update(&state.control, &update.said),
                    // What is held was said by others.
                    false => self.anchors.update_lists(&state.control),
                }
                self.anchors.refuse(state.departed.clone());
                let (sequence, problem) = (state.bundle.sequence_number, state.problem.clone());
                let problems = state.problems();
                self.state.send_replace(Some(Arc::new(state)));
                if problem.is_empty() {
                    tracing::info!(sequence, "trust state received");
                    self.kept_out = None;
                    self.not_believed.set(None);
                } else {
                    tracing::error!(
                        problem,
                        sequence,
                        "the server's bundle is not believed, the one that is held stays"
                    );
                    self.kept_out
                        .get_or_insert_with(|| KeptOut::since(Instant::now()));
                }
                Ok(problems)
            }
            Err(error) => {
                tracing::error!(%error, "the server's trust state is not believed, what is held stays");
                Err(error)
            }
        }
    }

    /// Whatever becomes of the bundle beside it.
    fn tell_of_outage(&self, since: Option<SystemTime>) {
        let is_new = self
            .outage
            .send_if_modified(|held| std::mem::replace(held, since) != since);
        match since.filter(|_| is_new) {
            Some(since) => tracing::warn!(
                since = rfc3339(since),
                "the API server of this node's cluster is away: tokens that were good then count on"
            ),
            None if is_new => tracing::info!("the API server of this node's cluster is back"),
            None => {}
        }
    }

    /// Hands over what the server asks for, so far as it is held: lists are public, and prove what its store may lack. And says
    /// which of the lists that it named are not held.
    fn answer(&self, wanted: &[AuthorityId], lacking: Vec<AuthorityId>, answers: &mpsc::Sender<Answer>) {
        let state = self.state.borrow().clone();
        let answer = Answer {
            lists: state.map(|state| state.lists_of(wanted)).unwrap_or_default(),
            lacking,
        };
        if answer != Answer::default() {
            // Those that are still on their way are answers too, and the server asks again.
            let _ = answers.try_send(answer);
        }
    }

    /// After it was passed on: a slow disk holds up no revocation.
    async fn keep(&self) {
        let (file, state) = (self.file.clone(), self.state.borrow().clone());
        let write = move || state.map_or(Ok(()), |state| file.write(&state));
        let written = signet_runtime::spans::spawn_blocking(write).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            // Served all the same; a restart then begins with an older one.
            tracing::warn!(%error, "cannot keep the trust state");
        }
    }

    fn lost(&self, error: &ServerError) {
        tracing::warn!(%error, "no trust stream, will retry");
        self.objections.hear(error);
        self.say(false, error.to_string(), Vec::new());
    }

    /// A bundle has been kept out for long enough to say so by not being ready.
    fn alarm(&mut self) {
        if let Some(kept_out) = &mut self.kept_out {
            kept_out.is_said = true;
            let problem = self.connection.borrow().problem.clone();
            self.not_believed.set(Some(problem));
        }
    }

    async fn notify(&self, notice: Notice) {
        // Fails only when the manager has ended, and then nobody needs the news.
        let _ = self.notices.send(notice).await;
    }

    fn say(&self, connected: bool, problem: String, not_issuing: Vec<String>) {
        let now = self.time.now();
        self.connection.send_if_modified(|current| {
            let same = current.connected == connected;
            let connection = Connection {
                connected,
                since: if same { current.since } else { now },
                problem,
                not_issuing,
            };
            let changed = *current != connection;
            *current = connection;
            changed
        });
    }
}

#[cfg(test)]
mod tests;
