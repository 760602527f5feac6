//! Accepting connections of any listener until told to stop. It never fails: what cannot be accepted, for lack of file
//! descriptors above all, is logged and tried again after a pause, while who calls waits in the kernel's queue.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::net::Listener;

use crate::backoff::Backoff;
use crate::drain::Drain;

const PAUSES: Backoff = Backoff::between(Duration::from_millis(20), Duration::from_secs(1));

/// Hands every connection to `take` until `stop` resolves. `name` tells listeners apart in the log.
pub async fn each<L: Listener>(
    listener: L,
    name: &'static str,
    stop: impl Future<Output = ()>,
    mut take: impl FnMut(L::Io, L::Addr),
) {
    let mut door = Door::new(listener, name);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return,
            (stream, peer) = door.accept() => take(stream, peer),
        }
    }
}

/// Runs `serve` for at most `places` connections at once, each in a task that the drain waits for, until the drain
/// starts; further callers wait in the kernel's queue. `name` tells listeners apart in the log.
pub async fn bounded<L, F>(
    listener: L,
    name: &'static str,
    places: usize,
    drain: &Drain,
    mut serve: impl FnMut(L::Io, L::Addr) -> F,
) where
    L: Listener,
    F: Future<Output = ()> + Send + 'static,
{
    let mut door = Door::new(listener, name);
    let places = Arc::new(Semaphore::new(places));
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, door.accept().await)
        };
        tokio::select! {
            biased;
            () = drain.signalled() => return,
            (place, (stream, peer)) = next => {
                let connection = serve(stream, peer);
                drain.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
        }
    }
}

/// A listener with its bad luck.
struct Door<L> {
    listener: L,
    name: &'static str,
    pauses: Backoff,
    failures: u64,
    not_before: Instant,
}

impl<L: Listener> Door<L> {
    fn new(listener: L, name: &'static str) -> Self {
        Self {
            listener,
            name,
            pauses: PAUSES,
            failures: 0,
            not_before: Instant::now(),
        }
    }

    /// The next connection. Nothing is lost when it is dropped while it waits.
    async fn accept(&mut self) -> (L::Io, L::Addr) {
        loop {
            if self.failures > 0 {
                sleep_until(self.not_before).await;
            }
            match self.listener.accept().await {
                Ok(accepted) => {
                    self.recovered();
                    return accepted;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let pause = self.pauses.next(0.0);
        self.not_before = Instant::now() + pause;
        self.failures += 1;
        // The first, and then ever more rarely: the log needs the disk that may be the next to run out.
        if self.failures.is_power_of_two() {
            tracing::warn!(%error, listener = self.name, failures = self.failures, ?pause, "cannot accept connections");
        }
    }

    fn recovered(&mut self) {
        if self.failures > 0 {
            tracing::info!(
                listener = self.name,
                failures = self.failures,
                "connections are accepted again"
            );
            self.failures = 0;
            self.pauses.reset();
        }
    }
}

/// Whether the failure is that of a caller who hung up in the queue (accept(2)), so that the next can be taken at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests;
