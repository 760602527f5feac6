//! The opening of an agent's connection: Hello comes first, and what it agrees on holds for that connection alone.

use std::sync::{Arc, OnceLock};

use signet_proto::agent::{
    HelloRequest, ProtocolVersion,
    opening::{Agreement, VERSION},
};
use tonic::Status;

/// The call that opens a connection.
pub(crate) const HELLO: &str = "/signet.agent.v1.Agent/Hello";

/// What the Hello of one connection agreed on; nothing before it. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening(Arc<OnceLock<Agreement>>);

impl Opening {
    /// Opens the connection. Only the first Hello does: calls that are under way rely on what it agreed on, so that is also
    /// the answer to any further one.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when the agent speaks another major version.
    pub(crate) fn open(&self, hello: &HelloRequest) -> Result<&Agreement, Status> {
        let agreement = Agreement::with(hello.version, &hello.features).map_err(other_major)?;
        Ok(self.0.get_or_init(|| agreement))
    }

    /// What was agreed on.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` before Hello.
    pub(crate) fn agreed(&self) -> Result<&Agreement, Status> {
        self.0.get().ok_or_else(|| {
            Status::failed_precondition(format!(
                "this connection is not open: the first call on each is {HELLO}"
            ))
        })
    }
}

fn other_major(theirs: ProtocolVersion) -> Status {
    Status::failed_precondition(format!(
        "the agent speaks protocol {}.{}, this server {}.{}: upgrade the older of the two, the server first",
        theirs.major, theirs.minor, VERSION.major, VERSION.minor
    ))
}

#[cfg(test)]
mod tests {
    use signet_proto::agent::opening::names;
    use tonic::Code;

    use super::*;

    fn hello(major: u32, minor: u32, features: Vec<String>) -> HelloRequest {
        HelloRequest {
            version: Some(ProtocolVersion { major, minor }),
            features,
            ..HelloRequest::default()
        }
    }

    #[test]
    fn the_first_hello_decides_for_its_connection_and_no_other() {
        let (one, other) = (Opening::default(), Opening::default());
        let first = one.open(&hello(1, 0, Vec::new())).unwrap().clone();
        assert_eq!(one.open(&hello(1, 1, names())).unwrap(), &first);
        assert_eq!(one.clone().agreed().unwrap(), &first);
        assert_eq!(other.agreed().unwrap_err().code(), Code::FailedPrecondition);
        assert_ne!(other.open(&hello(1, 1, names())).unwrap(), &first);
    }

    #[test]
    fn another_major_version_is_refused_with_the_remedy_and_opens_nothing() {
        for version in [Some(ProtocolVersion { major: 2, minor: 0 }), None] {
            let opening = Opening::default();
            let hello = HelloRequest {
                version,
                ..HelloRequest::default()
            };
            let refused = opening.open(&hello).unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("upgrade the older"), "{refused:?}");
            let unopened = opening.agreed().unwrap_err();
            assert!(unopened.message().contains(HELLO), "{unopened:?}");
        }
    }
}
