//! Since when the agent is connected to its server, or is not.

use std::sync::Arc;
use std::time::SystemTime;

use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use tokio::sync::watch;

use crate::server_client::sync::Connection;

/// Keeps `since` until draining starts.
pub(crate) async fn follow(
    mut connection: watch::Receiver<Connection>,
    since: watch::Sender<SystemTime>,
    clock: Arc<dyn Clock>,
    drain: Drain,
) {
    let mut connected = connection.borrow_and_update().connected;
    since.send_replace(clock.now());
    loop {
        tokio::select! {
            () = drain.signalled() => return,
            changed = connection.changed() => if changed.is_err() {
                return;
            },
        }
        let now = connection.borrow_and_update().connected;
        if std::mem::replace(&mut connected, now) != now {
            since.send_replace(clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use signet_runtime::clock::FakeClock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_change_of_being_connected_counts() {
        let clock = Arc::new(FakeClock::new(UNIX_EPOCH));
        let (connection, seen) = watch::channel(Connection::default());
        let (since, mut told) = watch::channel(UNIX_EPOCH);
        let drain = Drain::new();
        let task = tokio::spawn(follow(seen, since, clock.clone(), drain.clone()));
        told.changed().await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        connection.send_modify(|connection| connection.connected = true);
        told.changed().await.unwrap();
        assert_eq!(*told.borrow_and_update(), UNIX_EPOCH + Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(60)).await;
        connection.send_modify(|connection| connection.problem = "another".to_owned());
        tokio::task::yield_now().await;
        assert!(!told.has_changed().unwrap());
        drain.start();
        task.await.unwrap();
    }
}
