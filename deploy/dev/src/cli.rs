//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use signet_runtime::{cli::Program, signal::shutdown_signal};
use signet_tests::part;

use crate::{
    demo,
    domain::{Domain, Times},
    layout::Layout,
};

const PROGRAM: Program = Program("signet-dev");

/// A whole trust domain on this machine: server, agent, a fake Kubernetes API and a few demo pods. Ctrl-C ends it.
#[derive(Debug, Parser)]
#[command(name = "signet-dev", version)]
struct Cli {
    /// Folder for sockets, configuration and logs; may exist and hold other files.
    #[arg(long)]
    dir: Option<PathBuf>,
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
        Ok(cli) => PROGRAM.run(run(cli)),
        Err(code) => code,
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        None => serve(cli.dir).await,
        Some(Command::Demo) => {
            let story = demo::run(cli.dir);
            tokio::select! {
                told = story => told,
                signal = shutdown_signal() => anyhow::bail!("interrupted by {signal}"),
            }
        }
    }
}

async fn serve(dir: Option<PathBuf>) -> anyhow::Result<()> {
    let stop = shutdown_signal();
    let dir =
        dir.unwrap_or_else(|| std::env::temp_dir().join(format!("signet-dev-{}", nix::unistd::getuid())));
    let layout = Layout::prepare(&dir)?;
    let times = Times::everyday();
    tokio::pin!(stop);
    let mut domain = tokio::select! {
        domain = Domain::start(layout, &times) => domain?,
        _ = &mut stop => return Ok(()),
    };
    domain.write_env()?;
    println!("{}", domain.what_next());
    tokio::select! {
        _ = &mut stop => {}
        problem = domain.watch() => {
            domain.stop().await;
            return Err(problem);
        }
    }
    println!("stopping");
    domain.stop().await;
    Ok(())
}
