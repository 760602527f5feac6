//! Wire types and gRPC stubs, generated from `proto/` into `src/gen` and committed, so that building needs no `protoc`; and
//! what the two sides of a protocol must both know to open a connection.
//!
//! Only the modules that speak a protocol import this crate; they convert at the door (ARCHITECTURE.md, invariant 7).
#![allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::or_fun_call
)]

/// SPIFFE Workload API. The file has no package, so paths are `/SpiffeWorkloadAPI/<Method>`.
pub mod workload {
    include!("gen/_.rs");
}

/// Container Storage Interface, the node-only part.
#[cfg(feature = "stubs")]
pub mod csi {
    include!("gen/csi.v1.rs");
}

/// kubelet's plugin registration.
#[cfg(feature = "stubs")]
pub mod registration {
    include!("gen/pluginregistration.rs");
}

/// `signet.agent.v1`: agent to server.
#[cfg(feature = "stubs")]
pub mod agent {
    pub mod objection;
    pub mod opening;

    include!("gen/signet.agent.v1.rs");
}

/// `signet.admin.v1`: admin to server.
#[cfg(feature = "stubs")]
pub mod admin {
    include!("gen/signet.admin.v1.rs");
}

/// `signet.local.v1`: a person at the node to the agent.
#[cfg(feature = "stubs")]
pub mod local {
    include!("gen/signet.local.v1.rs");
}

/// `signet.explain.v1`: a workload to its agent, about itself.
#[cfg(feature = "stubs")]
pub mod explain {
    include!("gen/signet.explain.v1.rs");
}

/// Every file above as a serialised `FileDescriptorSet`, for gRPC reflection.
#[cfg(feature = "stubs")]
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");
