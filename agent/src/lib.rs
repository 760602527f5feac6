//! Signet's node agent: the SPIFFE Workload API for the workloads of one node.
//!
//! | module | does |
//! |---|---|
//! | [`cli`], [`config`], [`app`] | command line, `agent.yaml`, composition |
//! | [`node`], [`server_client`] | the agent's own certificate, the server, what is pushed |
//! | [`cache`], [`manager`] | who holds what and what to ask for when (pure); the task that does it |
//! | [`csi`], [`unix`] | who is a workload: pods by their volumes, processes by their credentials |
//! | [`token`] | a pod's token on its way from kubelet to the server |
//! | [`context`], [`workload_api`] | what workloads see |
//! | [`sockets`] | over which sockets: who calls, what each may use, what is let in |
//! | [`admin`] | what a person at the node sees |

pub mod admin;
pub mod app;
pub mod cache;
pub mod cli;
pub mod config;
pub mod context;
pub mod csi;
pub mod manager;
pub mod node;
pub mod server_client;
mod shared;
pub mod sockets;
pub mod token;
pub mod unix;
pub mod workload_api;
