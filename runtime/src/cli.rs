//! What every Signet command line shares: how a process that serves is set up and ended, how a question is answered for
//! people and for programs, and the exit codes.

mod cells;
mod deadline;
mod health;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, ValueEnum};
use serde_json::Value;

pub use self::cells::{or_dash, when, when_text};
use self::deadline::end_at_the_latest;
pub use self::health::{Health, NotReady};
use crate::config::{Configuration, Doubts, load, load_and_try};
use crate::drain::Drain;
use crate::notify::Notify;
use crate::output::{complain, print};
use crate::signal::{Asides, Reread, shutdown_signal};
use crate::telemetry::{Log, LogFormat};
use crate::trial::Trial;
use crate::{limits, telemetry};

/// Exit codes of every Signet binary.
pub mod exit {
    /// All went well.
    pub const OK: u8 = 0;
    /// The work failed; trying again may help.
    pub const FAILURE: u8 = 1;
    /// The command line makes no sense (clap's own code), or names what cannot be read.
    pub const USAGE: u8 = 2;
    /// The configuration file is missing or wrong (`EX_CONFIG` of sysexits).
    pub const CONFIG: u8 = 78;
}

/// A blocked thread must not hold up the end that was asked for.
const RUNTIME_END: Duration = Duration::from_secs(1);
/// Nor must a log that nobody reads.
const LAST_LINES: Duration = Duration::from_millis(500);
/// What a process may take to end beyond its own bound, whatever is stuck.
const GRACE: Duration = Duration::from_secs(2);

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

/// The options of `validate`, beside the file's.
#[derive(Clone, Copy, Debug, Args)]
pub struct TrialArgs {
    /// Judge what the file says alone: try none of its paths and addresses on this machine.
    #[arg(long)]
    pub file_only: bool,
    /// How the report is printed.
    #[command(flatten)]
    pub answer: OutputArgs,
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
            let printed = error.print().and_then(|()| io::stdout().flush());
            if error.use_stderr() {
                // A failed write to a closed terminal leaves nothing better to do.
                return ExitCode::from(exit::USAGE);
            }
            match printed {
                Err(problem) if problem.kind() != io::ErrorKind::BrokenPipe => self.not_printed(&problem),
                _ => ExitCode::from(exit::OK),
            }
        })
    }

    /// Serves with the configuration in `path` until SIGTERM or SIGINT. What it names is tried first; `build` takes every
    /// address and starts nothing; `run` serves until the drain starts, tells systemd so, and ends in order, within `bound`. Two seconds
    /// later a process that a signal has told to end is gone, whatever is stuck.
    pub fn serve<C, B, Building, Running>(
        self,
        path: &Path,
        bound: Duration,
        trials: impl FnOnce(&C) -> Vec<Trial<'_>>,
        build: impl FnOnce(C) -> Building,
        run: impl FnOnce(B, Drain, Reread, Notify) -> Running,
    ) -> ExitCode
    where
        C: Configuration,
        Building: Future<Output = anyhow::Result<B>>,
        Running: Future<Output = anyhow::Result<()>>,
    {
        let (config, report) = match load_and_try::<C>(path, trials, Doubts::LeftToTheStart) {
            Ok(loaded) => loaded,
            Err(report) => {
                for error in report.errors() {
                    complain(&format!("{}: {error}\n", self.0));
                }
                return ExitCode::from(exit::CONFIG);
            }
        };
        let log = match telemetry::init_logging(config.log_format()) {
            Ok(log) => log,
            Err(error) => return self.finish(Err(error.into())),
        };
        for warning in report.warnings() {
            tracing::warn!(%warning, "configuration");
        }
        let building = async { build(config).await.with_context(|| path.display().to_string()) };
        self.up(log, bound, building, run)
    }

    /// As [`serve`](Self::serve), for a command that its flags say all about.
    pub fn serve_flags<B, Running>(
        self,
        format: LogFormat,
        bound: Duration,
        building: impl Future<Output = anyhow::Result<B>>,
        run: impl FnOnce(B, Drain, Reread, Notify) -> Running,
    ) -> ExitCode
    where
        Running: Future<Output = anyhow::Result<()>>,
    {
        match telemetry::init_logging(format) {
            Ok(log) => self.up(log, bound, building, run),
            Err(error) => self.finish(Err(error.into())),
        }
    }

    fn up<B, Running>(
        self,
        log: Log,
        bound: Duration,
        building: impl Future<Output = anyhow::Result<B>>,
        run: impl FnOnce(B, Drain, Reread, Notify) -> Running,
    ) -> ExitCode
    where
        Running: Future<Output = anyhow::Result<()>>,
    {
        let (raised, forbidden) = (limits::raise_open_files(), limits::forbid_core_files());
        if let Err(error) = raised.and(forbidden) {
            tracing::warn!(%error, "the limits of this process stay as they are");
        }
        let left_out = log.rarely.clone();
        let ended = in_runtime(async {
            crate::spans::spawn(left_out.tell());
            let asides = Asides::listen().context("cannot listen for signals")?;
            let (reread, notify) = (asides.reread(), Notify::of_environment());
            crate::spans::spawn(asides.attend());
            let limit = bound + GRACE;
            until_signal((limit, log.clone()), building, |built, stop| {
                run(built, stop, reread, notify)
            })
            .await
        });
        self.conclude(ended, &log)
    }

    /// As [`finish`](Self::finish), on the way of the log, which waits for no reader.
    fn conclude(self, ended: anyhow::Result<()>, log: &Log) -> ExitCode {
        let code = match ended {
            Ok(()) => exit::OK,
            Err(error) => {
                log.say(&format!("{}: {error:#}", self.0));
                exit::FAILURE
            }
        };
        log.flush(LAST_LINES);
        ExitCode::from(code)
    }

    /// Reads and checks the configuration in `path`, tries what it names and leaves nothing behind, and prints the report:
    /// with faults on standard error for people, always on standard output for programs.
    pub fn validate<C: Configuration>(
        self,
        args: &TrialArgs,
        trials: impl FnOnce(&C) -> Vec<Trial<'_>>,
        path: &Path,
    ) -> ExitCode {
        let (Ok((_, report)) | Err(report)) = match args.file_only {
            true => load::<C>(path),
            false => load_and_try::<C>(path, trials, Doubts::Told),
        };
        let output = args.answer.output;
        let code = if report.is_ok() { exit::OK } else { exit::CONFIG };
        let printed = match output {
            Output::Json => print(&format!("{:#}\n", report.to_json())),
            Output::Table if report.is_ok() => print(&report.to_string()),
            Output::Table => {
                complain(&report.to_string());
                Ok(())
            }
        };
        match printed {
            Ok(()) => ExitCode::from(code),
            Err(error) => self.not_printed(&error),
        }
    }

    /// Asks and prints the answer.
    pub fn ask(self, output: Output, question: impl Future<Output = anyhow::Result<Answer>>) -> ExitCode {
        self.ask_or(exit::FAILURE, output, question)
    }

    /// As [`ask`](Self::ask), for questions that have a no for an answer: that is the answer's problem, and where there is no
    /// answer the status is [`exit::USAGE`].
    pub fn judge(self, output: Output, question: impl Future<Output = anyhow::Result<Answer>>) -> ExitCode {
        self.ask_or(exit::USAGE, output, question)
    }

    fn ask_or(
        self,
        unanswered: u8,
        output: Output,
        question: impl Future<Output = anyhow::Result<Answer>>,
    ) -> ExitCode {
        let answer = match in_runtime(question) {
            Ok(answer) => answer,
            Err(error) => {
                self.finish(Err(error));
                return ExitCode::from(unanswered);
            }
        };
        let printed = print(&match output {
            Output::Table => answer.text,
            Output::Json => format!("{:#}\n", answer.json),
        });
        match (answer.problem, printed) {
            (Some(problem), _) => self.finish(Err(anyhow::anyhow!(problem))),
            (None, Err(error)) => self.not_printed(&error),
            (None, Ok(())) => ExitCode::from(exit::OK),
        }
    }

    /// Does some work in a runtime of its own and says how it ended.
    pub fn run(self, work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
        self.finish(in_runtime(work))
    }

    fn finish(self, result: anyhow::Result<()>) -> ExitCode {
        match result {
            Ok(()) => ExitCode::from(exit::OK),
            Err(error) => {
                complain(&format!("{}: {error:#}\n", self.0));
                ExitCode::from(exit::FAILURE)
            }
        }
    }

    /// What was asked for is done, and nobody has been told.
    fn not_printed(self, error: &io::Error) -> ExitCode {
        complain(&format!(
            "{}: the command was carried out, but its answer cannot be written: {error}\n",
            self.0
        ));
        ExitCode::from(exit::FAILURE)
    }
}

fn in_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // Said here, or tokio would read it from the environment.
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build();
    runtime.context("cannot start the runtime").and_then(|runtime| {
        let result = runtime.block_on(work);
        runtime.shutdown_timeout(RUNTIME_END);
        result
    })
}

/// A signal ends the start as well: what has been taken by then is given back, and nothing was served.
async fn until_signal<B, Running: Future<Output = anyhow::Result<()>>>(
    (limit, log): (Duration, Log),
    building: impl Future<Output = anyhow::Result<B>>,
    run: impl FnOnce(B, Drain) -> Running,
) -> anyhow::Result<()> {
    let stop = Drain::new();
    let asked = stop.clone();
    let watching = crate::spans::spawn(async move {
        let signal = shutdown_signal().await;
        tracing::info!(signal, "told to stop");
        end_at_the_latest(limit, log);
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
