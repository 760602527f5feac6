//! Logs to standard error and metrics for Prometheus.
//!
//! Whoever logs waits for nobody: lines go through a bounded queue, and are lost and counted where nobody takes them.

#[cfg(test)]
pub(crate) mod captured;
mod rarely;
mod writer;

use std::backtrace::Backtrace;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::rarely::Rarely;
use self::writer::Writer;
use crate::environment::{self, RUST_BACKTRACE, RUST_LOG};
use crate::limits::{Limit, bytes};
use crate::output::{self, Lines};
use crate::spans;
use crate::sync::RwLock;

/// Log lines that this process has lost. There is one log in a process.
static LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

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
    Filter(#[from] ParseError),
    /// The thread that writes could not be started.
    #[error("nobody can write the log: {0}")]
    Writer(#[from] std::io::Error),
    /// Someone was first.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// The log of this process.
#[derive(Clone, Debug)]
pub struct Log {
    /// What is left out because somebody causes the same line again and again.
    pub rarely: Rarely,
    lines: Lines,
}

impl Log {
    /// Says a line that is not the log's, on the same way.
    pub fn say(&self, line: &str) {
        self.lines.push(format!("{line}\n").as_bytes());
    }

    /// Waits until all lines are written, at most so long.
    pub fn flush(&self, limit: Duration) {
        self.rarely.tell_now();
        self.lines.flush(limit);
    }
}

/// Sends logs to standard error, panics among them. `RUST_LOG` chooses what is logged; the default is `info`.
///
/// # Errors
/// When `RUST_LOG` cannot be parsed or logging was set up before.
pub fn init_logging(format: LogFormat) -> Result<Log, LoggingError> {
    let chosen = environment::text(RUST_LOG).unwrap_or_default();
    let lines = Lines::to(
        std::os::fd::AsFd::as_fd(&std::io::stderr()),
        LOST.clone(),
        tell_lost,
    )?;
    let rarely = Rarely::default();
    let colours = std::io::stderr().is_terminal();
    let log = dispatch(format, &chosen, rarely.clone(), colours, Writer(lines.clone()))?;
    log.try_init().map_err(|_| LoggingError::AlreadySet)?;
    // The hook of the standard library writes to standard error and waits for its reader.
    std::panic::set_hook(Box::new(tell_panic));
    Ok(Log { rarely, lines })
}

/// A log of this form: the lines that `chosen` chooses as `RUST_LOG` does, each with the [spans] it was written in.
///
/// # Errors
/// When `chosen` cannot be parsed.
pub fn dispatch<W>(
    format: LogFormat,
    chosen: &str,
    rarely: Rarely,
    colours: bool,
    writer: W,
) -> Result<Dispatch, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(chosen)?
        .add_directive(format!("{}=info", spans::TARGET).parse()?);
    let chosen = tracing_subscriber::registry().with(filter).with(rarely);
    let writer = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match format {
        LogFormat::Text => chosen.with(writer.with_ansi(colours)).into(),
        LogFormat::Json => {
            // All of them, of which the last is the current one.
            let writer = writer.json().flatten_event(true).with_current_span(false);
            chosen.with(writer).into()
        }
    })
}

fn tell_lost(lost: u64) {
    tracing::warn!(target: rarely::NEVER_LEFT_OUT, lost, "log lines were lost: nobody took them");
}

fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let backtrace = match environment::text(RUST_BACKTRACE).as_deref() {
        None | Some("0") => Backtrace::disabled(),
        Some(_) => Backtrace::force_capture(),
    };
    tracing::error!(%panic, %backtrace, "a thread panicked");
}

/// Row of the table of limits, for a process whose metrics begin with a prefix; `metric` is the counter with it.
#[must_use]
pub fn limit(metric: &'static str) -> Limit {
    Limit {
        who: "the log",
        what: "bytes of lines that nobody takes",
        share: "none".to_owned(),
        cap: bytes(output::MAX_BYTES as u64),
        counted: "runtime::output",
        metric,
    }
}

/// The metrics of a process. Clones share one registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<RwLock<Registry>>,
}

impl Metrics {
    /// A registry with what every process counts; every name gets `prefix` and an underscore in front (`signet_server`).
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let mut registry = Registry::with_prefix(prefix);
        registry.register(
            "log_lines_lost",
            "Log lines lost because nobody took them",
            LOST.clone(),
        );
        Self {
            registry: Arc::new(RwLock::new(registry)),
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

    use super::captured::Captured;
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

    /// Programs find the spans of a line in one list, whatever lines were chosen.
    #[test]
    fn both_forms_show_the_spans_of_a_line() {
        let say = || {
            let connection = spans::Connection::new("agents").with("192.0.2.1:5");
            let _in_call = connection.call("/x/AttestNode").entered();
            tracing::warn!(target: "signet_server", reason = "why\n\u{1b}[1m", "refused");
        };
        let text = Captured::new(LogFormat::Text, "signet_server=warn", Rarely::default());
        say();
        let [line] = &text.lines()[..] else {
            panic!("{:?}", text.lines())
        };
        let spans = "peer=192.0.2.1:5}:call{rpc=\"AttestNode\" number=";
        assert!(
            line.contains("}: signet_server: refused reason=\"why\\n"),
            "{line}"
        );
        assert!(
            line.contains(spans) && line.contains("connection{door=\"agents\" number="),
            "{line}"
        );
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        drop(text);
        let json = Captured::new(LogFormat::Json, "off,signet_server=warn", Rarely::default());
        say();
        let line: serde_json::Value = serde_json::from_str(&json.lines()[0]).unwrap();
        assert_eq!(line["spans"][0]["door"], "agents", "{line}");
        assert_eq!(line["spans"][1]["rpc"], "AttestNode", "{line}");
        assert!(line["span"].is_null() && line["message"] == "refused", "{line}");
    }

    #[test]
    fn log_formats_have_lower_case_names() {
        let read = |text: &str| serde_json::from_str::<LogFormat>(text);
        assert_eq!(read("\"json\"").unwrap(), LogFormat::Json);
        assert_eq!(read("\"text\"").unwrap(), LogFormat::Text);
        assert!(read("\"JSON\"").is_err());
    }
}
