//! What every Signet command line shares: how a process that serves is set up and ended, how a question is answered for
//! people and for programs, and the exit codes.

mod health;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, ValueEnum};
use serde_json::Value;

pub use self::health::{Health, NotReady};
use crate::config::{Configuration, load};
use crate::drain::Drain;
use crate::signal::shutdown_signal;
use crate::{limits, telemetry};

/// Exit codes of every Signet binary.
pub mod exit {
    /// All went well.
    pub const OK: u8 = 0;
    /// The work failed; trying again may help.
    pub const FAILURE: u8 = 1;
    /// The command line makes no sense (clap's own code).
    pub const USAGE: u8 = 2;
    /// The configuration file is missing or wrong (`EX_CONFIG` of sysexits).
    pub const CONFIG: u8 = 78;
}

/// A blocked thread must not hold up the end that was asked for.
const RUNTIME_END: Duration = Duration::from_secs(2);

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON object for programs.
    Json,
}

/// The option that every command with an answer has.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// Tables for people or one JSON object for programs.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// What a command prints.
#[derive(Debug)]
pub struct Answer {
    /// For programs.
    pub json: Value,
    /// For people, with a line end.
    pub text: String,
    /// Why the command fails all the same, after printing.
    pub problem: Option<String>,
}

impl Answer {
    /// An answer of a command that succeeds.
    #[must_use]
    pub const fn new(json: Value, text: String) -> Self {
        let problem = None;
        Self { json, text, problem }
    }
}

/// A binary, by the name that stands before its messages.
#[derive(Clone, Copy, Debug)]
pub struct Program(pub &'static str);

impl Program {
    /// Reads a command line, whose first word is the program's name.
    ///
    /// # Errors
    /// With the exit code, after printing help, the version, or what is wrong.
    pub fn parse<C: Parser>(self, args: impl IntoIterator<Item = OsString>) -> Result<C, ExitCode> {
        C::try_parse_from(args).map_err(|error| {
            // A failed write to a closed terminal leaves nothing better to do.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK })
        })
    }

    /// Serves with the configuration in `path` until SIGTERM or SIGINT. `build` takes every address and starts nothing;
    /// `run` serves until the drain starts and ends in order.
    pub fn serve<C, B, Building, Running>(
        self,
        path: &Path,
        build: impl FnOnce(C) -> Building,
        run: impl FnOnce(B, Drain) -> Running,
    ) -> ExitCode
    where
        C: Configuration,
        Building: Future<Output = anyhow::Result<B>>,
        Running: Future<Output = anyhow::Result<()>>,
    {
        let (config, report) = match load::<C>(path) {
            Ok(loaded) => loaded,
            Err(report) => {
                for error in report.errors() {
                    eprintln!("{}: {error}", self.0);
                }
                return ExitCode::from(exit::CONFIG);
            }
        };
        let lines = match telemetry::init_logging(config.log_format()) {
            Ok(lines) => lines,
            Err(error) => return self.finish(Err(error.into())),
        };
        for warning in report.warnings() {
            tracing::warn!(%warning, "configuration");
        }
        let (raised, forbidden) = (limits::raise_open_files(), limits::forbid_core_files());
        if let Err(error) = raised.and(forbidden) {
            tracing::warn!(%error, "the limits of this process stay as they are");
        }
        let left_out = lines.clone();
        let ended = self.run(async {
            tokio::spawn(left_out.tell());
            let building = async { build(config).await.with_context(|| path.display().to_string()) };
            until_signal(building, run).await
        });
        lines.tell_now();
        ended
    }

    /// Reads and checks the configuration in `path` and prints the report: with faults on standard error for people,
    /// always on standard output for programs.
    pub fn validate<C: Configuration>(self, path: &Path, output: Output) -> ExitCode {
        let (Ok((_, report)) | Err(report)) = load::<C>(path);
        let code = if report.is_ok() { exit::OK } else { exit::CONFIG };
        let printed = match output {
            Output::Json => print(&format!("{:#}\n", report.to_json())),
            Output::Table if report.is_ok() => print(&report.to_string()),
            Output::Table => {
                eprint!("{report}");
                Ok(())
            }
        };
        match printed {
            Ok(()) => ExitCode::from(code),
            Err(error) => self.finish(Err(error)),
        }
    }

    /// Asks and prints the answer.
    pub fn ask(self, output: Output, question: impl Future<Output = anyhow::Result<Answer>>) -> ExitCode {
        self.run(async {
            let answer = question.await?;
            print(&match output {
                Output::Table => answer.text,
                Output::Json => format!("{:#}\n", answer.json),
            })?;
            match answer.problem {
                None => Ok(()),
                Some(problem) => Err(anyhow::anyhow!(problem)),
            }
        })
    }

    /// Does some work in a runtime of its own and says how it ended.
    pub fn run(self, work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        self.finish(runtime.context("cannot start the runtime").and_then(|runtime| {
            let result = runtime.block_on(work);
            runtime.shutdown_timeout(RUNTIME_END);
            result
        }))
    }

    fn finish(self, result: anyhow::Result<()>) -> ExitCode {
        match result {
            Ok(()) => ExitCode::from(exit::OK),
            Err(error) => {
                eprintln!("{}: {error:#}", self.0);
                ExitCode::from(exit::FAILURE)
            }
        }
    }
}

/// A signal ends the start as well: what has been taken by then is given back, and nothing was served.
async fn until_signal<B, Running: Future<Output = anyhow::Result<()>>>(
    building: impl Future<Output = anyhow::Result<B>>,
    run: impl FnOnce(B, Drain) -> Running,
) -> anyhow::Result<()> {
    let stop = Drain::new();
    let asked = stop.clone();
    let watching = tokio::spawn(async move {
        let signal = shutdown_signal().await;
        tracing::info!(signal, "told to stop");
        asked.start_on(signal);
    });
    let result = async {
        let built = tokio::select! {
            built = building => built?,
            () = stop.signalled() => return Ok(()),
        };
        run(built, stop).await
    };
    let result = result.await;
    watching.abort();
    result
}

/// Unlike `print!` it does not panic when whoever read the output has gone.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write the answer")
}

/// For a cell without content.
#[must_use]
pub const fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// `2026-11-21T08:00:00Z` for milliseconds since 1970; `null` for the zero that stands for "never".
#[must_use]
pub fn when(unix_ms: i64) -> Value {
    moment(unix_ms).map_or(Value::Null, Value::String)
}

/// As [`when`], with a dash for "never".
#[must_use]
pub fn when_text(unix_ms: i64) -> String {
    moment(unix_ms).unwrap_or_else(|| "-".to_owned())
}

fn moment(unix_ms: i64) -> Option<String> {
    let whole_seconds = jiff::Timestamp::from_second(unix_ms.div_euclid(1000)).ok()?;
    (unix_ms != 0).then(|| whole_seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_and_zero_is_never() {
        assert_eq!(when(1_800_999), "1970-01-01T00:30:00Z");
        assert_eq!(when_text(1_795_248_000_000), "2026-11-21T08:00:00Z");
        assert_eq!((when(0), when_text(0)), (Value::Null, "-".to_owned()));
        assert_eq!(when(i64::MAX), Value::Null);
    }
}
