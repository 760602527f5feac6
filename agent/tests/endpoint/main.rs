//! The agent's workload sockets from outside: real Unix sockets, scripted source, well and badly behaved clients.

mod bounds;
mod ending;
mod filter;
mod header;
mod http2;
mod sockets;
mod support;
mod workload_api;
