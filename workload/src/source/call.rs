//! The call of the Workload API that gives X.509-SVIDs.

use signet_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use signet_proto::workload::{X509svidRequest, X509svidResponse};
use signet_runtime::error::excerpt;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use super::SourceError;
use crate::endpoint::Endpoint;

/// Every call carries it, so that nobody can be tricked into calling on behalf of others (SPIFFE Workload Endpoint §3).
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Largest message taken: agents keep to 4 MiB, some room is left for others.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Calls the agent: a message now, and another with each change.
pub(super) async fn open(endpoint: &Endpoint) -> Result<Streaming<X509svidResponse>, SourceError> {
    let channel = endpoint.connect().await?;
    let mut client = SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let mut request = Request::new(X509svidRequest {});
    request
        .metadata_mut()
        .insert(SECURITY_HEADER, MetadataValue::from_static("true"));
    match client.fetch_x509svid(request).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(ended(&status)),
    }
}

/// How a stream ended, in the agent's words.
pub(super) fn ended(status: &Status) -> SourceError {
    let message = match status.code() {
        Code::Ok => "it gave no reason".to_owned(),
        _ => excerpt(status.message(), 300),
    };
    SourceError::Stream {
        code: status.code(),
        message,
    }
}
