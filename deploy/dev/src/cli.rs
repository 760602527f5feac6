//! The command line.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use signet_runtime::{
    cli::{Program, exit},
    config::HumanDuration,
    signal::end_of_session,
};
use signet_tests::{envoy, part};

use crate::{
    demo,
    domain::{Domain, Times},
    layout::{self, Layout},
    voice::Voice,
};

const PROGRAM: Program = Program("signet-dev");
/// Life of the SVIDs where nobody says otherwise.
const SVID_TTL: Duration = Duration::from_hours(1);

/// A whole trust domain on this machine: server, agent, a fake Kubernetes API and a few demo pods. Ctrl-C ends it.
#[derive(Debug, Parser)]
#[command(name = "signet-dev", version)]
struct Cli {
    /// Folder for sockets, configuration and logs; may exist and hold other files.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[arg(
        long,
        help = "Life of the SVIDs, ten seconds at least; each is renewed at about half of it [default: 1h]"
    )]
    svid_ttl: Option<HumanDuration>,
    /// The story is told with sidecar proxies: Envoy, from $ENVOY or the PATH.
    #[arg(long, global = true)]
    envoy: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell the whole story in under a minute, checking every step of it; exit 0 only if all of it held.
    Demo,
}

pub(crate) fn main() -> ExitCode {
    if let Some(code) = part::play() {
        return code;
    }
    match PROGRAM.parse(std::env::args_os()) {
        Ok(cli) => match Voice::new() {
            Ok(voice) => speak(cli, voice),
            Err(error) => PROGRAM.run(async { Err(error) }),
        },
        Err(code) => code,
    }
}

fn speak(cli: Cli, voice: Voice) -> ExitCode {
    let mut failed = None;
    let code = PROGRAM.run(async {
        let outcome = match asked(&cli).await {
            Ok(envoy) => run(cli, envoy, &voice)
                .await
                .map_err(|error| (exit::FAILURE, error)),
            Err(error) => Err((exit::USAGE, error)),
        };
        if let Err((code, error)) = outcome {
            voice.warn(&format!("{}: {error:#}", PROGRAM.0));
            failed = Some(ExitCode::from(code));
        }
        Ok(())
    });
    voice.finish();
    failed.unwrap_or(code)
}

/// Whether the options fit together; the Envoy that is asked for, with its version.
async fn asked(cli: &Cli) -> anyhow::Result<Option<(PathBuf, String)>> {
    anyhow::ensure!(
        cli.command.is_none() || cli.svid_ttl.is_none(),
        "--svid-ttl does not go with demo, whose certificates have lives of their own"
    );
    if !cli.envoy {
        return Ok(None);
    }
    anyhow::ensure!(cli.command.is_some(), "--envoy goes with demo");
    let program = envoy::program();
    let program = program.context("there is no Envoy: put `envoy` on the PATH, or its path into $ENVOY")?;
    let version = envoy::version(&program).await?;
    Ok(Some((program, version)))
}

async fn run(cli: Cli, envoy: Option<(PathBuf, String)>, voice: &Voice) -> anyhow::Result<()> {
    match cli.command {
        None => {
            let svid_ttl = cli.svid_ttl.map_or(SVID_TTL, HumanDuration::get);
            serve(cli.dir, svid_ttl, voice).await
        }
        Some(Command::Demo) => {
            let story = demo::run(cli.dir, envoy, voice);
            tokio::select! {
                told = story => told,
                signal = end_of_session() => anyhow::bail!("interrupted by {signal}"),
            }
        }
    }
}

async fn serve(dir: Option<PathBuf>, svid_ttl: Duration, voice: &Voice) -> anyhow::Result<()> {
    let stop = end_of_session();
    let name = format!("signet-dev-{}", nix::unistd::getuid());
    let dir = dir.unwrap_or_else(|| layout::parent_for(&name).join(name));
    let layout = Layout::prepare(&dir)?;
    let times = Times::everyday(svid_ttl);
    tokio::pin!(stop);
    let mut domain = tokio::select! {
        domain = Domain::start(layout, &times, voice.clone()) => domain?,
        _ = &mut stop => return Ok(()),
    };
    domain.write_env()?;
    voice.say(&domain.what_next());
    tokio::select! {
        _ = &mut stop => {}
        problem = domain.watch() => {
            domain.stop().await;
            return Err(problem);
        }
    }
    voice.say("stopping");
    domain.stop().await;
    Ok(())
}
