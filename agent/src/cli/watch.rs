//! `watch`: each change of what the Workload API gives, as it comes.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use signet_runtime::cli::{Output, OutputArgs};
use signet_runtime::clock::{Clock, SystemClock};
use signet_runtime::environment::ENDPOINT_SOCKET;
use signet_runtime::error::{chain, one_line};
use signet_runtime::output::{is_unread, print};
use signet_runtime::signal::end_of_session;
use signet_runtime::spans::spawn_blocking;
use signet_workload::{CrlPolicy, Options, X509Source};

use crate::watch::Told;

/// How often it is seen whether anybody reads what is printed.
const LOOK: Duration = Duration::from_secs(1);
/// First and longest wait before the agent is called again.
const CALLS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Workload API, for instance unix:///run/signet-agent/public/api.sock.
    #[arg(long, env = ENDPOINT_SOCKET)]
    socket: String,
    /// End after so many lines; without it, with Ctrl-C.
    #[arg(long, value_name = "LINES")]
    limit: Option<usize>,
    #[command(flatten)]
    answer: OutputArgs,
}

/// Prints until it is told to end, nobody reads, or the agent says that the call is wrong. An agent that is away is waited for.
pub(super) async fn watch(args: &WatchArgs) -> anyhow::Result<()> {
    let source = X509Source::start(Options {
        wait: None,
        crls: CrlPolicy::Prefer,
        backoff: CALLS,
        ..Options::new(args.socket.parse()?)
    });
    let mut states = source.changes();
    let mut told = Told::default();
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut printed = false;
    let end = end_of_session();
    tokio::pin!(end);
    loop {
        let state = states.borrow_and_update().clone();
        let now = SystemClock.now();
        for change in told.update(&state, now) {
            if left == 0 {
                return Ok(());
            }
            (left, printed) = (left - 1, true);
            let line = match args.answer.output {
                Output::Json => change.to_json(now),
                Output::Table => row(&change.to_text(now)),
            };
            // Its reader may rest, with a pipe that is full; the end does not wait for that.
            let printed = spawn_blocking(move || print(&line));
            tokio::select! {
                _ = &mut end => return Ok(()),
                printed = printed => printed?.context("the line cannot be written")?,
            }
        }
        if let Some(problem) = state.problem.filter(|problem| problem.is_final()) {
            anyhow::bail!("{}", chain(&*problem));
        }
        // A reader that had gone before the first line has lost nothing.
        if left == 0 || (printed && is_unread()) {
            return Ok(());
        }
        tokio::select! {
            _ = &mut end => return Ok(()),
            _ = states.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The agent's words are in it, and what they make must not look like a change of its own.
fn row(text: &str) -> String {
    one_line(text.trim_end()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_says_makes_no_line_of_its_own() {
        let said = "2027-01-15T08:00:00Z agent: away\n2027-01-15T08:00:00Z svid: spiffe://x\u{1b}[2K\n";
        let told = row(said);
        assert_eq!(told.matches('\n').count(), 1, "{told}");
        assert!(told.ends_with("spiffe://x?[2K\n"), "{told}");
    }
}
