//! What is done once a set is published, so that its reader takes it: a signal, a command, or a request. Dropped while it goes on it ends,
//! a command with all of its group.

mod command;
mod post;
mod signal;

use std::fmt;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

pub(crate) use self::command::Command;
pub(crate) use self::post::Post;
pub(crate) use self::signal::{Target, parse_signal};

/// What is done.
#[derive(Clone, Debug)]
pub(crate) enum Hook {
    Signal(Target),
    Run(Command),
    Post(Post),
}

/// Why it is not done; each is tried again.
#[derive(Debug, Error)]
pub(crate) enum HookError {
    #[error("no signal is sent: {0}")]
    Signal(#[from] signal::SignalError),
    #[error("the command failed: {0}")]
    Run(#[from] command::CommandError),
    #[error("the request failed: {0}")]
    Post(#[from] post::PostError),
    #[error("it did not end within {} s, and was ended", .0.as_secs_f64())]
    Hangs(Duration),
}

impl Hook {
    /// Does it, within this time.
    ///
    /// # Errors
    /// [`HookError`].
    pub(super) async fn call(&self, limit: Duration) -> Result<(), HookError> {
        timeout(limit, self.unbounded())
            .await
            .map_err(|_| HookError::Hangs(limit))?
    }

    async fn unbounded(&self) -> Result<(), HookError> {
        match self {
            Self::Signal(target) => Ok(target.send()?),
            Self::Run(command) => Ok(command.run().await?),
            Self::Post(post) => Ok(post.send().await?),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(target) => target.fmt(f),
            Self::Run(command) => command.fmt(f),
            Self::Post(post) => post.fmt(f),
        }
    }
}
