//! One answer and no more, for commands and probes.

use prost::Message as _;
use ring::rand::SystemRandom;
use signet_proto::workload::X509svidResponse;
use signet_runtime::clock::Clock;

use super::call::{SVIDS, ended, open};
use super::error::SourceError;
use super::options::KEEP_ALIVE;
use super::state::X509Context;
use crate::endpoint::Endpoint;
use crate::message::{MessageError, whole};

impl X509Context {
    /// Asks the agent once and verifies all of its answer, CRLs included. For programs that end at once; others follow
    /// an [`X509Source`](crate::X509Source), which hears of renewals and revocations. Bound it with a timeout: an agent that
    /// has nothing for us yet may take its time.
    ///
    /// # Errors
    /// Whatever keeps the answer from being used. Where the agent is away, starting or has nothing yet, asking again may
    /// help: see [`SourceError::may_pass`].
    pub async fn fetch(endpoint: &Endpoint, clock: &dyn Clock) -> Result<Self, SourceError> {
        let mut answers = open(endpoint, SVIDS, KEEP_ALIVE).await?;
        let message = answers.next().await.map_err(|end| ended(end, KEEP_ALIVE))?;
        let message = X509svidResponse::decode(message).map_err(MessageError::malformed)?;
        let (svids, roots) = whole(&message, &SystemRandom::new(), clock.now())?;
        Ok(Self {
            svids: svids.into(),
            roots: roots.into(),
        })
    }
}
