//! What both binaries need and that knows nothing of certificates.

pub mod backoff;
pub mod clock;
pub mod config;
pub mod drain;
pub mod http;
pub mod ready;
pub mod signal;
pub mod table;
pub mod telemetry;
pub mod uds;
