//! Why there is no newer state.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::time::rfc3339;
use thiserror::Error;

use crate::endpoint::EndpointError;
use crate::grpc::Code;
use crate::message::MessageError;

/// Why there is no newer state.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The address is wrong or nobody answers there.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The agent sent something that does not verify; what was verified before stays in use.
    #[error("a message of the agent is not used: {0}")]
    Message(#[from] MessageError),
    /// The agent ended the stream. Unless [`is_final`](SourceError::is_final), it is called again.
    #[error("the agent ended the stream with {code:?}: {message}")]
    Stream {
        /// gRPC's code.
        code: Code,
        /// The agent's words.
        message: String,
    },
    /// The connection was there, but nobody answered on it. The agent is called again.
    #[error("the agent has left a ping unanswered for {0:?}; it hangs, and is called again")]
    Hung(Duration),
    /// The connection is fine, but the identity grows old on it. The agent is called again.
    #[error(
        "the agent has not renewed the identity that ends at {}; it is called again", rfc3339(*.0)
    )]
    NotRenewed(SystemTime),
    /// Nothing was there within the time that the program waits at its start.
    #[error("nothing came from the agent within {waited:?}{}", because(.last.as_deref()))]
    NotInTime {
        /// How long.
        waited: Duration,
        /// The latest trouble.
        last: Option<Arc<Self>>,
    },
    /// Nobody follows the agent any more: the runtime has ended in which the source was started, the program's own picker has
    /// panicked, or the source was dropped.
    #[error("the task of the source has ended")]
    Ended,
}

fn because(last: Option<&SourceError>) -> String {
    last.map(|last| format!("; at last: {last}")).unwrap_or_default()
}

impl SourceError {
    /// Whether trying again is useless, so that the source has stopped: the agent says that our call is wrong or that it
    /// has no such call, or the address is one that is never called.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Stream { code, .. } => matches!(code, Code::InvalidArgument | Code::Unimplemented),
            Self::Endpoint(error) => matches!(error, EndpointError::Tcp(_)),
            Self::Message(_) | Self::Hung(_) | Self::NotRenewed(_) | Self::NotInTime { .. } => false,
            Self::Ended => true,
        }
    }

    /// Whether the agent has only not answered yet: it is away, it starts, or it has nothing for us so far. Anything else
    /// is a verdict, for whoever asks once.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Stream { code, .. } => matches!(code, Code::Unavailable | Code::Ok),
            Self::Endpoint(error) => matches!(error, EndpointError::Unreachable { .. }),
            Self::Hung(_) | Self::NotRenewed(_) | Self::NotInTime { .. } => true,
            Self::Message(_) | Self::Ended => false,
        }
    }

    /// Whether whoever waits for a first identity is told at once: it will not come, or not before somebody grants one.
    pub(super) fn ends_waiting(&self) -> bool {
        let denied = matches!(
            self,
            Self::Stream {
                code: Code::PermissionDenied,
                ..
            }
        );
        denied || self.is_final()
    }
}
