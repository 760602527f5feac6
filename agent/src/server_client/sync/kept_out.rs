//! For how long a bundle has been kept out.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A bundle that is kept out for longer makes the agent unready: another authority may sign by now.
pub(super) const KEPT_OUT: Duration = Duration::from_secs(60);

/// A bundle that is not believed.
#[derive(Debug)]
pub(crate) struct KeptOut {
    since: Instant,
    /// It has lasted for long, and that was said.
    pub(super) is_said: bool,
}

impl KeptOut {
    pub(super) fn since(since: Instant) -> Self {
        Self {
            since,
            is_said: false,
        }
    }

    /// When it has lasted for long; `None` when that is said.
    pub(super) fn alarms_at(&self) -> Option<Instant> {
        (!self.is_said).then(|| self.since + KEPT_OUT)
    }
}

/// Resolves at that moment; never without one.
pub(super) async fn lasts(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
