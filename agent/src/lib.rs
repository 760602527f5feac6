//! Signet's node agent: the SPIFFE Workload API for the workloads of one node.
//!
//! | module | does |
//! |---|---|
//! | [`cli`], [`config`], [`app`] | command line, `agent.yaml`, composition |
//! | [`node`], [`server_client`] | the agent's own certificate, the server, what is pushed |
//! | [`cache`], [`manager`] | who holds what and what to ask for when (pure); the task that does it |
//! | [`csi`], [`unix`] | who is a workload: pods by their volumes, processes by their credentials |
//! | [`context`], [`uds`], [`authority_filter`], [`workload_api`] | what workloads see, over which sockets |
//! | [`admin`] | what a person at the node sees |

pub mod admin;
pub mod app;
pub mod authority_filter;
pub mod cache;
pub mod cli;
pub mod config;
pub mod context;
pub mod csi;
pub mod manager;
pub mod node;
mod scheduling;
pub mod server_client;
pub mod uds;
pub mod unix;
pub mod workload_api;
