//! How a process is told to end.

use std::io::Read;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves on the first SIGINT or SIGTERM and returns its name.
///
/// When the handlers cannot be installed this never resolves, and the signals keep their default effect: they kill.
pub async fn shutdown_signal() -> &'static str {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (mut interrupt, mut terminate) = match (interrupt, terminate) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "cannot listen for signals, they end this process at once");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// Returns when standard input ends, for children that end with the parent holding the other end of the pipe. What is
/// read is dropped.
///
/// It blocks, and wants a thread of its own: tokio's standard input would hold the runtime's end back.
pub fn until_stdin_closes() {
    until_end(std::io::stdin().lock());
}

/// Reads and drops everything until the end or an error.
fn until_end(mut input: impl Read) {
    let mut buffer = [0; 256];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn sigterm_is_named() {
        let mut waiting = Box::pin(shutdown_signal());
        // The handlers exist once the future has been polled; only then may the signal be raised.
        tokio::select! {
            biased;
            name = &mut waiting => panic!("{name} before it was sent"),
            () = std::future::ready(()) => {}
        }
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(waiting.await, "SIGTERM");
    }

    #[test]
    fn reading_ends_with_the_input() {
        until_end(&b"ignored"[..]);
    }
}
