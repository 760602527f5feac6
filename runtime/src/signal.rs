//! How a process is told to end.

use std::future::poll_fn;
use std::io::{self, Read};
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Resolves on the first SIGINT or SIGTERM and returns its name.
///
/// When the handlers cannot be installed this never resolves, and the signals keep their default effect: they kill.
pub async fn shutdown_signal() -> &'static str {
    first_of([
        ("SIGINT", SignalKind::interrupt()),
        ("SIGTERM", SignalKind::terminate()),
    ])
    .await
}

/// As [`shutdown_signal`], for a program that belongs to a terminal: it ends with it (SIGHUP).
pub async fn end_of_session() -> &'static str {
    first_of([
        ("SIGINT", SignalKind::interrupt()),
        ("SIGTERM", SignalKind::terminate()),
        ("SIGHUP", SignalKind::hangup()),
    ])
    .await
}

async fn first_of<const N: usize>(kinds: [(&'static str, SignalKind); N]) -> &'static str {
    let mut listening = Vec::with_capacity(N);
    for (name, kind) in kinds {
        match signal(kind) {
            Ok(signal) => listening.push((name, signal)),
            Err(error) => {
                tracing::warn!(%error, "cannot listen for signals, they end this process at once");
                return std::future::pending().await;
            }
        }
    }
    poll_fn(|cx| {
        let heard = listening.iter_mut().find_map(|(name, signal)| {
            let received = signal.poll_recv(cx).is_ready();
            received.then_some(*name)
        });
        heard.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Says each time that the process was told, by SIGHUP, to read its files again. Clones hear the same.
#[derive(Clone, Debug)]
pub struct Reread(watch::Receiver<()>);

impl Reread {
    /// For a process that is never told.
    #[must_use]
    pub fn never() -> Self {
        Self(watch::Sender::default().subscribe())
    }

    /// For a process that is told by somebody else: each change says so.
    #[must_use]
    pub fn by(told: watch::Receiver<()>) -> Self {
        Self(told)
    }

    /// Resolves when it was told since the last time.
    pub async fn told(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a service hears beside the signals that end it: SIGHUP, which has its files read again, and those of log rotation
/// and debugging, which would kill it and are only logged.
#[derive(Debug)]
pub struct Asides {
    hangup: Signal,
    harmless: [(&'static str, Signal); 2],
    reread: watch::Sender<()>,
}

impl Asides {
    /// From here on these signals do not kill. Needs a tokio runtime.
    ///
    /// # Errors
    /// From the kernel.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            harmless: [
                ("SIGUSR1", signal(SignalKind::user_defined1())?),
                ("SIGUSR2", signal(SignalKind::user_defined2())?),
            ],
            reread: watch::Sender::default(),
        })
    }

    /// Who is told to read files again.
    #[must_use]
    pub fn reread(&self) -> Reread {
        Reread(self.reread.subscribe())
    }

    /// Hears them, for ever.
    pub async fn attend(mut self) {
        let [(first, usr1), (second, usr2)] = &mut self.harmless;
        loop {
            let ignored = tokio::select! {
                _ = self.hangup.recv() => {
                    tracing::info!(
                        "SIGHUP: what this program reads, opens or keeps as files is read, opened or written again; of a configuration only a server's rules, any other change of it needs a restart"
                    );
                    self.reread.send_replace(());
                    continue;
                }
                _ = usr1.recv() => &first,
                _ = usr2.recv() => &second,
            };
            tracing::info!(signal = ignored, "this signal does nothing here");
        }
    }
}

/// Returns when standard input ends, for children that end with the parent holding the other end of the pipe. What is
/// read is dropped.
///
/// It blocks, and wants a thread of its own: tokio's standard input would hold the runtime's end back.
pub fn until_stdin_closes() {
    until_end(io::stdin().lock());
}

/// Reads and drops everything until the end or an error.
fn until_end(mut input: impl Read) {
    let mut buffer = [0; 256];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
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

    #[tokio::test]
    async fn signals_of_log_rotation_do_not_kill_and_a_hangup_has_files_read_again() {
        let asides = Asides::listen().unwrap();
        let mut reread = asides.reread();
        let attending = tokio::spawn(asides.attend());
        for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGHUP] {
            raise(signal).unwrap();
        }
        reread.told().await;
        raise(Signal::SIGHUP).unwrap();
        reread.told().await;
        attending.abort();
    }

    #[test]
    fn reading_ends_with_the_input() {
        until_end(&b"ignored"[..]);
    }
}
