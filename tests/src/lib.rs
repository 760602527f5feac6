//! What tests of Signet stand on: a Kubernetes API server that exists only in memory, and kubelet's part towards a CSI
//! driver. `signet-dev` uses both.

pub mod agent_client;
pub mod any_server;
pub mod crash;
pub mod domain;
pub mod envoy;
pub mod fake_kube;
pub mod http;
pub mod kubelet;
pub mod part;
pub mod process;
pub mod raw_grpc;
pub mod repository;
pub mod uds;
pub mod wait;
pub mod workload;
