//! The task behind a source: calls the agent, takes its messages, calls again.

use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use signet_proto::workload::X509svidResponse;
use signet_runtime::backoff::Backoff;
use signet_runtime::pace::random_unit;
use tokio::time::Instant;
use tonic::Status;

use super::call::{ended, open};
use super::{Options, Shared, SourceError, X509Context};
use crate::endpoint::Endpoint;
use crate::message::{GrantedSvid, MessageError, Reader, svids};

/// A stream that gave good messages for at least this long is followed by the next one at once.
const GOOD_STREAM: Duration = Duration::from_secs(1);

/// Share of each wait that is left to chance.
const JITTER: f64 = 0.5;

/// Follows the agent until trying again is useless.
pub(super) async fn follow(options: Options, shared: Arc<Shared>) {
    let (min, max) = options.backoff;
    let mut backoff = Backoff::between(min, max).jittered(JITTER);
    let mut follower = Follower {
        shared,
        hint: options.hint,
        reader: Reader::new(),
        rng: SystemRandom::new(),
    };
    loop {
        let begun = Instant::now();
        let (problem, fed) = follower.one_stream(&options.endpoint).await;
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
    hint: Option<String>,
    reader: Reader,
    rng: SystemRandom,
}

impl Follower {
    /// Follows one stream to its end: why it ended, and whether a message of it was good.
    async fn one_stream(&mut self, endpoint: &Endpoint) -> (SourceError, bool) {
        let mut stream = match open(endpoint).await {
            Ok(stream) => stream,
            Err(problem) => return (problem, false),
        };
        let mut fed = false;
        loop {
            match stream.message().await {
                Ok(Some(message)) => match self.take(&message) {
                    Ok(()) => fed = true,
                    Err(error) => {
                        // The next message is complete again, so the stream is kept.
                        tracing::warn!(%error, "a message of the agent is not used");
                        self.shared.trouble(error.into());
                    }
                },
                Ok(None) => return (ended(&Status::ok("")), fed),
                Err(status) => return (ended(&status), fed),
            }
        }
    }

    /// Verifies a message and publishes it. Whom to trust is put in force even when our own half of the message is
    /// unusable: it is about others, and revocations must not wait for us.
    fn take(&mut self, message: &X509svidResponse) -> Result<(), MessageError> {
        let now = self.shared.clock.now();
        let roots = Arc::new(self.reader.trust(message, now)?);
        self.shared.trust(&roots);
        let svids = svids(message, &roots, &self.rng, now)?;
        let presented = &self.choose(&svids)?.svid;
        self.shared
            .presented
            .set(presented)
            .map_err(|error| MessageError::Svid {
                id: presented.spiffe_id().clone(),
                source: signet_certs::verify::VerifyError::Chain(error.to_string()),
            })?;
        tracing::info!(spiffe_id = %presented.spiffe_id(), serial = %presented.serial(), "an identity is in use");
        self.shared.publish(X509Context {
            svids: svids.into(),
            roots,
        });
        Ok(())
    }

    fn choose<'s>(&self, svids: &'s [GrantedSvid]) -> Result<&'s GrantedSvid, MessageError> {
        match &self.hint {
            None => svids.first().ok_or(MessageError::NoSvids),
            Some(hint) => svids
                .iter()
                .find(|granted| granted.hint == *hint)
                .ok_or_else(|| MessageError::NoHint(hint.clone())),
        }
    }
}
