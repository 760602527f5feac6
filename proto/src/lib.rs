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

/// Envoy's secret discovery: the part that proxies need to get their certificates. Modules are nested as the packages are.
#[cfg(feature = "stubs")]
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!("gen/envoy.config.core.v3.rs");
            }
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3 {
                    include!("gen/envoy.extensions.transport_sockets.tls.v3.rs");
                }
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                include!("gen/envoy.service.discovery.v3.rs");
            }
        }
        pub mod secret {
            pub mod v3 {
                include!("gen/envoy.service.secret.v3.rs");
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            include!("gen/envoy.r#type.v3.rs");
        }
    }
}

/// What Envoy's messages take from Google's.
#[cfg(feature = "stubs")]
pub mod google {
    pub mod rpc {
        include!("gen/google.rpc.rs");
    }
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

/// Every file above as a serialised `FileDescriptorSet`, for gRPC reflection.
#[cfg(feature = "stubs")]
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");
