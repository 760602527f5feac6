//! Signatures that take their time are made off the threads that serve.

use signet_certs::signer::AuthoritySigner;

/// The thread that was to sign panicked, or the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signing thread stopped")]
pub(crate) struct Stopped;

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
    if long || signer.is_remote() {
        return signet_runtime::spans::spawn_blocking(work)
            .await
            .map_err(|_| Stopped);
    }
    Ok(work())
}
