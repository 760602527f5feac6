//! The file of control anchors: what an agent without any other knowledge trusts when it calls the server first, and whom no agent is to
//! trust whatever it is told.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signet_certs::anchors_file::{AnchorsFile, MAX_ANCHORS_FILE, MAX_DISTRUSTED, readable_distrust};
use signet_certs::authority::AuthorityKind;
use signet_runtime::drain::Drain;
use signet_runtime::files::{self, Durability};
use tokio::sync::watch;

use crate::authority::{AuthorityView, KindView, Left};
use crate::publisher::Firsts;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// After a write that failed: a bundle is held up for five seconds.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The file could not be written; the old one is still in place.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the control anchors to {path}: check the directory and its permissions")]
pub(crate) struct AnchorsError {
    path: PathBuf,
    source: io::Error,
}

/// Those that stand, and those whose keys may be in other hands: of these the ones that left last.
pub(crate) fn of(view: &KindView) -> AnchorsFile {
    let certificates = view.authorities.iter().map(|viewed| viewed.certificate().clone());
    let on_their_way_out = view
        .authorities
        .iter()
        .filter(|viewed| viewed.state.out_at().is_some());
    let departed = view
        .departed
        .iter()
        .filter(|departed| departed.left != Left::Expired);
    let distrusted = on_their_way_out
        .map(|viewed| viewed.id())
        .chain(departed.rev().map(|departed| departed.id));
    AnchorsFile::new(certificates, distrusted.take(MAX_DISTRUSTED))
}

/// Writes the file, mode 0644, by rename: a reader sees the old file or the new one, never a part. It is public; what counts is who can
/// write there.
fn write(path: &Path, file: &AnchorsFile) -> Result<(), AnchorsError> {
    // Whom somebody else has named stays named: it is for him to take that back.
    let others = files::read(path, MAX_ANCHORS_FILE as u64).map(|text| readable_distrust(&text));
    let others = others.unwrap_or_default();
    let distrusted = file.distrusted().iter().copied();
    let distrusted = distrusted.chain(others.into_iter().filter(|id| !file.distrusted().contains(id)));
    let file = AnchorsFile::new(
        file.certificates().iter().cloned(),
        distrusted.take(MAX_DISTRUSTED),
    );
    let text = file.render();
    let written = files::make_parent(path)
        .and_then(|()| files::replace(path, text.as_bytes(), 0o644, Durability::Durable));
    written.map_err(|error| AnchorsError {
        path: path.to_owned(),
        source: error.into(),
    })
}

/// Writes the file now, and again whenever the control authorities change, and says who is named there. A later failure is logged and tried
/// again.
///
/// # Errors
/// The first write failed: the path is not usable.
pub(crate) async fn keep(
    path: PathBuf,
    mut view: watch::Receiver<Arc<AuthorityView>>,
    firsts: watch::Sender<Firsts>,
    drain: &Drain,
) -> Result<(), AnchorsError> {
    let first = current(&mut view);
    write_blocking(&path, &first).await?;
    tell(&firsts, Some(&first));
    let mut written = Some(first);
    let ending = drain.clone();
    drain.spawn_worker("anchors file", async move {
        loop {
            tokio::select! {
                Ok(()) = view.changed() => {}
                () = tokio::time::sleep(if written.is_some() { LOOK_EVERY } else { RETRY_AFTER }) => {}
                () = ending.signalled() => return,
            }
            let next = current(&mut view);
            if written.as_ref() == Some(&next) {
                if still_says(&path, &next).await {
                    continue;
                }
                tracing::warn!(file = %path.display(), "the file of control anchors was changed by somebody else: it is written again");
            }
            match write_blocking(&path, &next).await {
                Ok(()) => written = Some(next),
                Err(error) => {
                    // Whatever is there, nobody vouches for it.
                    written = None;
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "control anchors not written"
                    );
                }
            }
            tell(&firsts, written.as_ref());
        }
    });
    Ok(())
}

fn current(view: &mut watch::Receiver<Arc<AuthorityView>>) -> AnchorsFile {
    of(view.borrow_and_update().kind(AuthorityKind::Control))
}

fn tell(firsts: &watch::Sender<Firsts>, written: Option<&AnchorsFile>) {
    let named = written.map(|written| written.distrusted().clone());
    let named = named.unwrap_or_default();
    firsts.send_if_modified(|firsts| {
        let next = Firsts {
            named,
            unwritten: written.is_none(),
            own: firsts.own,
        };
        let changed = *firsts != next;
        *firsts = next;
        changed
    });
}

/// Whether the file names all whom it is to name, and nobody else but those whom somebody has added to the distrusted.
async fn still_says(path: &Path, written: &AnchorsFile) -> bool {
    let (path, written) = (path.to_owned(), written.clone());
    let looked = signet_runtime::spans::spawn_blocking(move || {
        // Whatever stands there now, a look at it ends.
        let text = files::read(&path, MAX_ANCHORS_FILE as u64);
        let Ok(Ok(found)) = text.map(|text| AnchorsFile::parse(&text)) else {
            return false;
        };
        let distrusted = found.distrusted();
        let mut certificates = written.certificates().iter();
        let is_ours = |one| written.certificates().contains(one);
        distrusted.is_superset(written.distrusted())
            && found.certificates().iter().all(is_ours)
            && certificates.all(|one| distrusted.contains(&one.id()) || found.certificates().contains(one))
    });
    // A look that does not come to its end changes nothing.
    looked.await.unwrap_or(true)
}

async fn write_blocking(path: &Path, file: &AnchorsFile) -> Result<(), AnchorsError> {
    let (target, file) = (path.to_owned(), file.clone());
    let written = signet_runtime::spans::spawn_blocking(move || write(&target, &file)).await;
    written.unwrap_or_else(|stopped| {
        Err(AnchorsError {
            path: path.to_owned(),
            source: io::Error::other(stopped),
        })
    })
}

#[cfg(test)]
mod tests;
