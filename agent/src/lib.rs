//! Signet's node agent: the SPIFFE Workload API for the workloads of one node.
//!
//! | module | does |
//! |---|---|
//! | [`cli`], `config`, `app` | command line, `agent.yaml`, composition |
//! | `node`, `server_client` | the agent's own certificate, the server, what is pushed |
//! | `cache`, `manager` | who holds what and what to ask for when (pure); the task that does it |
//! | `csi`, `unix` | who is a workload: pods by their volumes, processes by their credentials |
//! | `peer` | the process behind a connection, and whether it still is what connected |
//! | `time` | what time it is |
//! | `token` | a pod's token on its way from kubelet to the server |
//! | `kept` | where keys are written for a restart |
//! | `files`, `write` | an identity as files, for programs that read files; kept for as long as they run |
//! | `papers` | files of identities as people find them: what is in them, what is wrong, whether they verify |
//! | `watch` | what changes of what a workload is given |
//! | `context`, `workload_api`, `sds` | what workloads see, and sidecar proxies |
//! | `streams` | what watch streams have in common |
//! | `sockets` | over which sockets: who calls, what each may use, what is let in |
//! | `explain` | what a workload may ask about itself |
//! | `limits` | what each caller may use: the table |
//! | `admin` | what a person at the node sees |
//!
//! What is not public here is nobody's but the agent's, so that the compiler tells what is not used.

pub mod cli;

mod admin;
mod app;
mod cache;
mod config;
mod context;
mod csi;
mod explain;
mod files;
mod kept;
mod limits;
mod manager;
mod node;
mod papers;
mod peer;
mod readiness;
mod sds;
mod server_client;
mod shared;
mod sockets;
mod streams;
mod time;
mod token;
mod unix;
mod watch;
mod workload_api;
mod write;

pub use csi::volumes::SOCKET_NAME;

/// The sockets of the agent as workloads, kubelet and fuzzers meet them, and the whole agent without a network: for tests
/// that stand outside of this crate. Not an interface; it follows what those tests need.
pub mod testing {
    pub use crate::app::{InMemory, Services};
    pub use crate::context::{
        AttachError, Caller, GrantedSvid, Lists, PrivateKey, WorkloadSource, WorkloadState, X509Context,
    };
    pub use crate::csi::mount::LinkMounter;
    pub use crate::csi::standing::Standing;
    pub use crate::csi::volumes::{VolumeRecord, Volumes};
    pub use crate::csi::{Driver, DriverConfig, TokensFrom, VolumeSink};
    pub use crate::sockets::filter::limits::{MAX_AUTHORITY, MAX_FRAME_PAYLOAD, MAX_HEADER_LIST};
    pub use crate::sockets::filter::{AuthorityFilter, Rewriter, Violation};
    pub use crate::sockets::{Call, Endpoint, Origin, ServedSocket, Settings};
    pub use crate::token::PodToken;

    use std::sync::Arc;
    use std::time::Duration;

    use signet_runtime::clock::Clock;

    use crate::streams::Following;

    /// What a workload socket offers for this source; a stream may have nothing to serve for so long as `patience`.
    #[must_use]
    pub fn services(source: Arc<dyn WorkloadSource>, clock: Arc<dyn Clock>, patience: Duration) -> Services {
        let following = Following::new(source, clock, patience);
        #[expect(clippy::expect_used, reason = "for tests only")]
        crate::app::services(following, crate::sds::Sds::default()).expect("the descriptors can be read")
    }

    /// The table of limits.
    #[must_use]
    pub fn limits() -> Vec<signet_runtime::limits::Limit> {
        crate::limits::table()
    }
}
