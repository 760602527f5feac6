//! Logs to standard error and metrics for Prometheus.

mod rarely;

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::rarely::Rarely;
use crate::sync::RwLock;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people: time, level, target, message, fields.
    #[default]
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// `RUST_LOG` makes no sense.
    #[error("RUST_LOG: {0}; write for example RUST_LOG=info,signet_server=debug")]
    Filter(#[from] tracing_subscriber::filter::FromEnvError),
    /// Someone was first.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Sends logs to standard error. `RUST_LOG` chooses what is logged; the default is `info`. What is left out of it because somebody
/// causes the same line again and again is told by whom this returns.
///
/// # Errors
/// When `RUST_LOG` cannot be parsed or logging was set up before.
pub fn init_logging(format: LogFormat) -> Result<Rarely, LoggingError> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()?;
    let rarely = Rarely::default();
    let lines = tracing_subscriber::registry().with(filter).with(rarely.clone());
    let writer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let outcome = match format {
        LogFormat::Text => lines
            .with(writer.with_ansi(std::io::stderr().is_terminal()))
            .try_init(),
        LogFormat::Json => lines.with(writer.json().flatten_event(true)).try_init(),
    };
    outcome.map_err(|_| LoggingError::AlreadySet)?;
    Ok(rarely)
}

/// The metrics of a process. Clones share one registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<RwLock<Registry>>,
}

impl Metrics {
    /// An empty registry; every name gets `prefix` and an underscore in front (`signet_server`).
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            registry: Arc::new(RwLock::new(Registry::with_prefix(prefix))),
        }
    }

    /// Registers metrics; keep the clones you update. Units belong in names, SPIFFE IDs never in labels.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.write())
    }

    /// The `OpenMetrics` text of all metrics.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.read();
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "a metric cannot be written as text");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn metrics_carry_the_prefix_and_their_value() {
        let metrics = Metrics::new("signet_test");
        let counter: Counter = Counter::default();
        metrics
            .clone()
            .register(|registry| registry.register("crl_signed", "CRLs signed", counter.clone()));
        counter.inc_by(3);
        let text = metrics.encode();
        assert!(text.contains("signet_test_crl_signed_total 3"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn log_formats_have_lower_case_names() {
        let read = |text: &str| serde_json::from_str::<LogFormat>(text);
        assert_eq!(read("\"json\"").unwrap(), LogFormat::Json);
        assert_eq!(read("\"text\"").unwrap(), LogFormat::Text);
        assert!(read("\"JSON\"").is_err());
    }
}
