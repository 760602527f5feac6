//! The agent behind a socket: whether it speaks gRPC, and what it says of its caller.

use std::path::Path;
use std::time::{Duration, SystemTime};

use signet_proto::explain as wire;
use signet_proto::explain::explain_client::ExplainClient;
use signet_runtime::clock::{Clock as _, SystemClock};
use signet_runtime::error::excerpt;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::story::{Checked, Fault};
use crate::cli::local::{channel, reason};

/// Longest wait for one answer. A caller outside pods is attested meanwhile.
const LIMIT: Duration = Duration::from_secs(12);
/// Longest answer.
const MAX_MESSAGE: usize = 4 << 20;
/// Longest text of another that is shown.
const LONGEST: usize = 300;

/// What the agent says of its caller.
#[derive(Debug)]
pub(super) enum Why {
    /// This, at that time of this machine, within that long.
    Said {
        answer: Box<wire::WhyResponse>,
        at: SystemTime,
        took: Duration,
    },
    /// It has no such call.
    TooOld,
    /// Its words, or what became of the call.
    Not(String),
}

/// The agent at a socket.
pub(super) struct Agent {
    channel: Channel,
}

impl Agent {
    /// Connects when it is asked.
    pub(super) fn at(path: &Path) -> Self {
        Self {
            channel: channel(path),
        }
    }

    /// Whether it speaks gRPC: by the health service, which needs no header.
    pub(super) async fn speaks(&self) -> Checked<()> {
        let mut client = HealthClient::new(self.channel.clone());
        let asked = timeout(LIMIT, client.check(HealthCheckRequest::default())).await;
        let Ok(asked) = asked else {
            return Err(Fault::new(
                format!(
                    "it takes the connection and did not answer within {} s",
                    LIMIT.as_secs()
                ),
                "the agent hangs: look at its log, and whether its process gets any CPU",
            ));
        };
        match asked {
            Ok(answer) => Ok(((), by_its_word(answer.get_ref().status()))),
            Err(status) if status.code() == Code::Unimplemented => {
                Ok(((), "it speaks gRPC, and has no health service".to_owned()))
            }
            Err(status) if is_of_the_connection(&status) => Err(Fault::new(
                format!("it speaks no gRPC: {}", excerpt(&cause(&status), LONGEST)),
                "another program listens here, or the agent is ending: is this the path of the agent's socket?",
            )),
            Err(status) => Err(Fault::new(
                format!(
                    "it answers with {:?}: {}",
                    status.code(),
                    excerpt(status.message(), LONGEST)
                ),
                "the agent's words say what to do; its log says more",
            )),
        }
    }

    /// What it says of its caller.
    pub(super) async fn why(&self) -> Why {
        let mut client = ExplainClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let mut request = Request::new(wire::WhyRequest {});
        request.metadata_mut().insert(
            "workload.spiffe.io",
            tonic::metadata::MetadataValue::from_static("true"),
        );
        let (at, began) = (SystemClock.now(), Instant::now());
        match timeout(LIMIT, client.why(request)).await {
            Ok(Ok(answer)) => Why::Said {
                answer: Box::new(answer.into_inner()),
                at,
                took: began.elapsed(),
            },
            Ok(Err(status)) if status.code() == Code::Unimplemented => Why::TooOld,
            Ok(Err(status)) if is_of_the_connection(&status) => Why::Not(cause(&status)),
            Ok(Err(status)) => Why::Not(excerpt(status.message(), LONGEST)),
            Err(_) => Why::Not(format!("no answer within {} s", LIMIT.as_secs())),
        }
    }
}

/// What it says of its own health. What ails it the next steps show.
fn by_its_word(status: ServingStatus) -> String {
    match status {
        ServingStatus::Serving => "it speaks gRPC, and is healthy by its own word".to_owned(),
        other => format!(
            "it speaks gRPC, and is not healthy by its own word: {}",
            other.as_str_name()
        ),
    }
}

/// Whether it is not the other side's word.
fn is_of_the_connection(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn cause(status: &Status) -> String {
    std::error::Error::source(status).map_or_else(|| status.message().to_owned(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_says_it_is_ill_is_not_called_healthy() {
        assert!(by_its_word(ServingStatus::Serving).ends_with("and is healthy by its own word"));
        assert!(by_its_word(ServingStatus::NotServing).ends_with("not healthy by its own word: NOT_SERVING"));
    }
}
