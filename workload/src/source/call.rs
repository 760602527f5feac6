//! The calls of the Workload API that a source makes.

use std::time::Duration;

use super::error::SourceError;
use crate::endpoint::Endpoint;
use crate::grpc::{self, Answers, Ended};

/// X.509-SVIDs with the bundles to verify peers by.
pub(super) const SVIDS: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// The bundles alone.
pub(super) const BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";

/// Calls the agent: a message now, and another with each change.
pub(super) async fn open(
    endpoint: &Endpoint,
    path: &str,
    keep_alive: Duration,
) -> Result<Answers, SourceError> {
    let socket = endpoint.connect().await?;
    grpc::call(socket, path, keep_alive)
        .await
        .map_err(|end| ended(end, keep_alive))
}

/// How a call ended, in the agent's words.
pub(super) fn ended(end: Ended, keep_alive: Duration) -> SourceError {
    match end {
        Ended::Status(code, message) => SourceError::Stream { code, message },
        Ended::Silent => SourceError::Hung(keep_alive),
    }
}
