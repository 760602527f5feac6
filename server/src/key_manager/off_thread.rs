//! Signatures that take their time are made off the threads that serve.

use std::time::Duration;

use signet_certs::signer::AuthoritySigner;
use signet_runtime::spans::spawn_blocking;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a key that is elsewhere is waited for.
const LONGEST: Duration = Duration::from_secs(30);
/// So many threads may wait for such keys: those of a token that does not answer wait on when nobody waits for them any more.
static WAITING: Semaphore = Semaphore::const_new(16);

/// Why nothing was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    /// The thread that was to sign panicked, or the process ends.
    #[error("the signing thread stopped")]
    Thread,
    /// The key is elsewhere, and does not answer.
    #[error("no answer within {} s from where the key is", LONGEST.as_secs())]
    NoAnswer,
}

/// Does what signs with `signer`: at once where the key is in this process and `long` is false, on a thread for blocking work
/// otherwise.
///
/// # Errors
/// [`Stopped`].
pub(crate) async fn off_thread<T: Send + 'static>(
    signer: &dyn AuthoritySigner,
    long: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stopped> {
    if signer.is_remote() {
        let signed = timeout(LONGEST, elsewhere(work)).await;
        return signed.unwrap_or(Err(Stopped::NoAnswer));
    }
    if long {
        return spawn_blocking(work).await.map_err(|_| Stopped::Thread);
    }
    Ok(work())
}

async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    let turn = WAITING.acquire().await.map_err(|_| Stopped::Thread)?;
    let work = move || {
        let _turn = turn;
        work()
    };
    spawn_blocking(work).await.map_err(|_| Stopped::Thread)
}
