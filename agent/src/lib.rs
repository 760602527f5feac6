//! Signet's node agent: the SPIFFE Workload API for the workloads of one node.

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
pub mod server_client;
pub mod uds;
pub mod unix;
pub mod workload_api;
