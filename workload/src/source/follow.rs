//! The task behind a source: calls the agent, takes its messages, calls again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use ring::rand::SystemRandom;
use signet_certs::verify::VerifyError;
use signet_proto::workload::{X509BundlesResponse, X509svidResponse};
use signet_runtime::backoff::Backoff;
use signet_runtime::clock::Clock;
use signet_runtime::pace::{random_unit, sleep_until};
use tokio::time::Instant;

use super::call::{BUNDLES, SVIDS, ended, open};
use super::error::SourceError;
use super::options::Options;
use super::renewal::next_look;
use super::shared::Shared;
use super::state::X509Context;
use crate::message::{GrantedSvid, MessageError, Reader, svids};

/// A stream that gave good messages for at least this long is followed by the next one at once.
const GOOD_STREAM: Duration = Duration::from_secs(1);

/// Share of each wait that is left to chance.
const JITTER: f64 = 0.5;

/// What a source asks the agent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Who we are and whom to trust.
    Svids,
    /// Whom to trust.
    Bundles,
}

/// Says that the task has ended, however it does: by a panic of the program's own picker, with the runtime, or because trying again
/// is useless, which has been said by then.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// Follows the agent until trying again is useless.
pub(super) async fn follow(options: Options, asks: Asks, shared: Arc<Shared>) {
    let _ending = Ending(Arc::clone(&shared));
    let (min, max) = options.backoff;
    let mut backoff = Backoff::between(min, max).jittered(JITTER);
    let mut follower = Follower {
        shared,
        reader: Reader::new(options.crls, options.federated.clone()),
        rng: SystemRandom::new(),
        look: None,
        asks,
        options,
    };
    loop {
        let begun = Instant::now();
        let (problem, fed) = follower.one_stream().await;
        let is_final = problem.is_final();
        let at_once = fed && begun.elapsed() >= GOOD_STREAM;
        if is_final {
            tracing::error!(error = %problem, "the agent will not give an identity");
        } else {
            tracing::warn!(error = %problem, "the connection to the agent ended");
        }
        follower.shared.trouble(problem);
        if is_final {
            return;
        }
        if at_once {
            backoff.reset();
        } else {
            tokio::time::sleep(backoff.next(random_unit())).await;
        }
    }
}

struct Follower {
    shared: Arc<Shared>,
    options: Options,
    asks: Asks,
    reader: Reader,
    rng: SystemRandom,
    /// When to see whether the identity was renewed, and the end of the one that is in use.
    look: Option<(SystemTime, SystemTime)>,
}

impl Follower {
    /// Follows one stream to its end: why it ended, and whether a message of it was good.
    async fn one_stream(&mut self) -> (SourceError, bool) {
        let keep_alive = self.options.keep_alive;
        let path = match self.asks {
            Asks::Svids => SVIDS,
            Asks::Bundles => BUNDLES,
        };
        let mut answers = match open(&self.options.endpoint, path, keep_alive).await {
            Ok(answers) => answers,
            Err(problem) => return (problem, false),
        };
        let mut fed = false;
        loop {
            let message = tokio::select! {
                message = answers.next() => message,
                not_after = late(&*self.shared.clock, self.look) => {
                    self.look_later();
                    return (SourceError::NotRenewed(not_after), fed);
                }
            };
            match message.map(|message| self.take(message)) {
                Ok(Ok(())) => fed = true,
                Ok(Err(error)) => {
                    // The next message is complete again, so the stream is kept.
                    tracing::warn!(%error, "a message of the agent is not used");
                    self.shared.trouble(error.into());
                }
                Err(end) => return (ended(end, keep_alive), fed),
            }
        }
    }

    fn take(&mut self, message: Bytes) -> Result<(), MessageError> {
        match self.asks {
            Asks::Svids => self.take_svids(message),
            Asks::Bundles => self.take_bundles(message),
        }
    }

    fn take_bundles(&mut self, message: Bytes) -> Result<(), MessageError> {
        let message = X509BundlesResponse::decode(message).map_err(MessageError::malformed)?;
        let roots = self.reader.trust_bundles(&message, self.shared.clock.now())?;
        self.shared.trust(&Arc::new(roots));
        self.shared.publish(None);
        Ok(())
    }

    /// Puts in force what a message says. Whom to trust takes effect even when the half about ourselves is
    /// unusable: it is about others, and revocations must not wait for us.
    fn take_svids(&mut self, message: Bytes) -> Result<(), MessageError> {
        let message = X509svidResponse::decode(message).map_err(MessageError::malformed)?;
        let now = self.shared.clock.now();
        let roots = Arc::new(self.reader.trust(&message, now)?);
        self.shared.trust(&roots);
        let svids = svids(&message, &roots, &self.rng, now)?;
        let chosen = self.options.pick.choose(&svids)?;
        let presented = &svids
            .get(chosen)
            .ok_or(MessageError::NotPicked(svids.len()))?
            .svid;
        self.shared
            .presented
            .set(presented)
            .map_err(|error| MessageError::Svid {
                id: presented.spiffe_id().clone(),
                source: VerifyError::Chain(error.to_string()),
            })?;
        tracing::info!(spiffe_id = %presented.spiffe_id(), serial = %presented.serial(), "an identity is in use");
        self.look = first_look(&svids, now);
        self.shared.publish(Some(X509Context {
            svids: svids.into(),
            roots,
        }));
        Ok(())
    }

    /// After a look that found nothing new.
    fn look_later(&mut self) {
        let context = self.shared.context();
        self.look = context.and_then(|context| first_look(&context.svids, self.shared.clock.now()));
    }
}

/// The earliest look that any of the identities needs, and the end of that one.
fn first_look(svids: &[GrantedSvid], now: SystemTime) -> Option<(SystemTime, SystemTime)> {
    let look = |granted: &GrantedSvid| (next_look(&granted.svid, now), granted.svid.not_after());
    svids.iter().map(look).min()
}

/// Resolves at the look, with the end of the identity that should have been renewed.
async fn late(clock: &dyn Clock, look: Option<(SystemTime, SystemTime)>) -> SystemTime {
    let Some((at, not_after)) = look else {
        return std::future::pending().await;
    };
    sleep_until(clock, at).await;
    not_after
}
