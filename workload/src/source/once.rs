//! One answer and no more, for commands and probes.

use ring::rand::SystemRandom;
use signet_runtime::clock::Clock;
use tonic::Status;

use super::call::{ended, open};
use super::{SourceError, X509Context};
use crate::endpoint::Endpoint;
use crate::message::whole;

impl X509Context {
    /// Asks the agent once and verifies all of its answer, CRLs included. For programs that end at once; others follow
    /// an [`X509Source`](super::X509Source), which hears of renewals and revocations.
    ///
    /// # Errors
    /// Whatever keeps the answer from being used. Where the agent is away, starting or has nothing yet, asking again may
    /// help: see [`SourceError::may_pass`].
    pub async fn fetch(endpoint: &Endpoint, clock: &dyn Clock) -> Result<Self, SourceError> {
        let mut stream = open(endpoint).await?;
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(ended(&Status::ok(""))),
            Err(status) => return Err(ended(&status)),
        };
        let (svids, roots) = whole(&message, &SystemRandom::new(), clock.now())?;
        Ok(Self {
            svids: svids.into(),
            roots: roots.into(),
        })
    }
}
