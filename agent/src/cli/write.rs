//! `write`: an identity kept as files.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::Signal;
use signet_runtime::cli::Program;
use signet_runtime::config::HumanDuration;
use signet_runtime::environment::ENDPOINT_SOCKET;
use signet_runtime::telemetry::LogFormat;
use signet_workload::SpiffeId;

use super::layout::LayoutArgs;
use crate::write::{Command, DRAIN_LIMIT, Hook, Plan, Post, Target, Which, Writer, parse_signal};

/// How long a hook may take where nobody says otherwise.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for all that is done once.
const ONCE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    /// Workload API, for instance unix:///run/signet-agent/public/api.sock.
    #[arg(long, env = ENDPOINT_SOCKET)]
    socket: String,
    /// Where the files are kept. What is opened through DIR/..data, resolved once, fits together.
    #[arg(id = "write", long = "dir", value_name = "DIR")]
    directory: PathBuf,
    /// Write the identity of this SPIFFE ID instead of the default one.
    #[arg(long, value_name = "ID", value_parser = spiffe_id, conflicts_with = "hint")]
    spiffe_id: Option<SpiffeId>,
    /// Write the identity with this hint instead of the default one.
    #[arg(long)]
    hint: Option<String>,
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    hook: HookArgs,
    /// End once a set is written and its hook has succeeded, with status 0; 1 otherwise. For init containers.
    #[arg(long)]
    once: bool,
    /// How long that may take [default: 60s].
    #[arg(long, requires = "once")]
    timeout: Option<HumanDuration>,
    /// Serve /live, /ready, /ready/issue and /metrics here, for instance 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "once")]
    telemetry: Option<SocketAddr>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// What is done after each set.
#[derive(Debug, Args)]
struct HookArgs {
    /// After each set send this signal to the process that --pid-file names, for instance HUP.
    #[arg(long, value_parser = parse_signal, requires = "pid_file", group = "hook")]
    signal: Option<Signal>,
    /// The first line is the number of the process. Without --program one that began after the file was written gets no signal.
    #[arg(long, value_name = "FILE", requires = "signal")]
    pid_file: Option<PathBuf>,
    /// Its name, as `ps -o comm` shows it: one of another name gets no signal. Better than the age of the file, which clocks change.
    #[arg(long, value_name = "NAME", requires = "pid_file")]
    program: Option<String>,
    /// After each set send a POST there, over plain HTTP to this machine alone; 2xx is a success.
    #[arg(long, value_name = "URL", group = "hook")]
    http_post: Option<Post>,
    /// How long a hook may take before it is killed, a command with all of its process group [default: 30s].
    #[arg(long, value_name = "DURATION", requires = "hook")]
    hook_timeout: Option<HumanDuration>,
    /// After each set run this command, without a shell. All that follows is the command's, so this comes last.
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true, group = "hook")]
    run: Option<Vec<OsString>>,
}

pub(super) fn spiffe_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|error| error.to_string())
}

impl HookArgs {
    fn hook(self) -> Option<Hook> {
        if let Some((signal, pid_file)) = self.signal.zip(self.pid_file) {
            let program = self.program;
            return Some(Hook::Signal(Target {
                signal,
                pid_file,
                program,
            }));
        }
        let run = self.run.and_then(Command::new).map(Hook::Run);
        run.or_else(|| self.http_post.map(Hook::Post))
    }
}

impl WriteArgs {
    fn plan(self) -> anyhow::Result<Plan> {
        let which = match (self.spiffe_id, self.hint) {
            (Some(id), _) => Which::Id(id),
            (None, Some(hint)) => Which::Hint(hint),
            (None, None) => Which::Default,
        };
        let or = |given: Option<HumanDuration>, usual| given.map_or(usual, HumanDuration::get);
        Ok(Plan {
            endpoint: self.socket.parse()?,
            which,
            directory: std::path::absolute(&self.directory).context("--dir")?,
            layout: self.layout.layout().context("--file")?,
            hook_timeout: or(self.hook.hook_timeout, HOOK_TIMEOUT),
            hook: self.hook.hook(),
            telemetry: self.telemetry,
            once: self.once.then(|| or(self.timeout, ONCE_TIMEOUT)),
        })
    }
}

/// Keeps them until SIGTERM or SIGINT, or writes them once.
pub(super) fn write(program: Program, args: WriteArgs) -> ExitCode {
    let log_format = args.log_format;
    let building = async { Writer::build(args.plan()?).await };
    program.serve_flags(log_format, DRAIN_LIMIT, building, Writer::run)
}
