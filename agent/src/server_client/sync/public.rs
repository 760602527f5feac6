//! What is signed and public, read while no trust stream can be opened.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use signet_runtime::pace::random_unit;
use tokio::time::{Instant, sleep_until};

use super::TrustSync;
use crate::server_client::TrustUpdate;

/// How often what is public is read while no trust stream can be opened, and by how much later at most, so that the agents of
/// a cluster spread.
const EVERY: Duration = Duration::from_secs(10);
const SPREAD: Duration = Duration::from_secs(5);

/// When it is read next.
pub(super) fn next_read() -> Instant {
    Instant::now() + EVERY + SPREAD.mul_f64(random_unit())
}

impl TrustSync {
    /// Reads what is public, now and then, until `over`: an agent without a certificate that counts hears of new lists too.
    pub(super) async fn read_until<T>(&mut self, over: impl Future<Output = T>, read_at: &mut Instant) -> T {
        let mut over = pin!(over);
        loop {
            tokio::select! {
                over = &mut over => return over,
                () = self.read(read_at) => {}
            }
        }
    }

    async fn read(&mut self, at: &mut Instant) {
        sleep_until(*at).await;
        *at = next_read();
        match self.api.read_trust().await {
            Ok(update) => {
                // Of the rules nothing is said to whoever asks without a certificate.
                let held = self.state.borrow().as_ref().map(|state| state.policy_revision);
                let policy_revision = held.unwrap_or_default();
                let public = TrustUpdate {
                    policy_revision,
                    affected: None,
                    ..update
                };
                if self.believe(&public).is_ok() {
                    self.keep().await;
                }
            }
            Err(error) => tracing::debug!(%error, "what is public of the trust domain cannot be read"),
        }
    }
}
