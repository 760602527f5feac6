//! The moment by which a process has ended that was told to, whatever is stuck.

use std::sync::mpsc;
use std::time::Duration;

use super::{LAST_LINES, exit};
use crate::telemetry::Log;

/// A disk or a descriptor that hangs may keep any thread; this one waits for none of them.
pub(super) fn end_at_the_latest(limit: Duration, log: Log) {
    let watching = std::thread::Builder::new().name("deadline".to_owned());
    let watching = watching.spawn(move || {
        let (_held, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(limit);
        tracing::error!("the end took too long and is cut short");
        log.flush(LAST_LINES);
        std::process::exit(i32::from(exit::FAILURE));
    });
    if let Err(error) = watching {
        tracing::warn!(%error, "nothing bounds the end of this process");
    }
}
