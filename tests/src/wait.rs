//! Waiting for a condition, never for a time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(15);

/// How long a test waits for anything: far longer than it ever takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `probe` until it answers.
///
/// # Panics
/// When [`PATIENCE`] ends first; the message names `what`.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    match within(PATIENCE, probe).await {
        Some(value) => value,
        None => panic!("waited {} s in vain for {what}", PATIENCE.as_secs()),
    }
}

/// Asks `probe` until it answers; `None` when `limit` ends first.
pub async fn within<T>(limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(EVERY).await;
    }
}
