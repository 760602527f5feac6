//! The file of control anchors: what an agent without any other knowledge trusts when it calls the server first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signet_certs::authority::AuthorityKind;
use signet_runtime::drain::Drain;
use signet_runtime::files::{self, Durability};
use tokio::sync::watch;

use super::TrustSnapshot;

const RETRY_EVERY: Duration = Duration::from_secs(60);

/// The file could not be written; the old one is still in place.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the control anchors to {path}: check the directory and its permissions")]
pub(crate) struct AnchorsError {
    path: PathBuf,
    source: io::Error,
}

/// Writes the certificates of all control authorities as PEM, mode 0644, by rename: a reader sees the old file or the new
/// one, never a part. They are public; what counts is who can write there.
///
/// # Errors
/// [`AnchorsError`], with the old file in place.
pub(crate) fn write_anchors(path: &Path, snapshot: &TrustSnapshot) -> Result<(), AnchorsError> {
    let pem: String = snapshot
        .kind(AuthorityKind::Control)
        .iter()
        .map(|published| published.certificate.pem())
        .collect();
    let written = files::make_parent(path)
        .and_then(|()| files::replace(path, pem.as_bytes(), 0o644, Durability::Durable));
    written.map_err(|error| AnchorsError {
        path: path.to_owned(),
        source: error.into(),
    })
}

/// Writes the file now, and again whenever the control authorities change. A later failure is logged and tried again
/// every minute.
///
/// # Errors
/// The first write failed: the path is not usable.
pub(crate) async fn keep_anchors(
    path: PathBuf,
    mut snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    drain: &Drain,
) -> Result<(), AnchorsError> {
    let mut written = snapshots.borrow_and_update().clone();
    write_blocking(&path, &written).await?;
    let ending = drain.clone();
    drain.spawn_worker("anchors file", async move {
        loop {
            tokio::select! {
                Ok(()) = snapshots.changed() => {}
                () = tokio::time::sleep(RETRY_EVERY) => {}
                () = ending.signalled() => return,
            }
            let snapshot = snapshots.borrow_and_update().clone();
            if ids(&snapshot) == ids(&written) {
                continue;
            }
            match write_blocking(&path, &snapshot).await {
                Ok(()) => written = snapshot,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "control anchors not written"
                    );
                }
            }
        }
    });
    Ok(())
}

async fn write_blocking(path: &Path, snapshot: &Arc<TrustSnapshot>) -> Result<(), AnchorsError> {
    let (target, snapshot) = (path.to_owned(), snapshot.clone());
    let written = signet_runtime::spans::spawn_blocking(move || write_anchors(&target, &snapshot)).await;
    written.unwrap_or_else(|stopped| {
        Err(AnchorsError {
            path: path.to_owned(),
            source: io::Error::other(stopped),
        })
    })
}

fn ids(snapshot: &TrustSnapshot) -> Vec<signet_certs::authority::AuthorityId> {
    snapshot
        .kind(AuthorityKind::Control)
        .iter()
        .map(|published| published.certificate.id())
        .collect()
}
