//! The state of the anchors on disk. It is written without the lock of the state, which every connection takes.

use std::io;
use std::sync::atomic::Ordering;

use signet_runtime::files::{self, Durability};

use super::ControlAnchors;
use super::files::kept_text;
use super::state::State;

/// A state on its way to the disk.
#[derive(Debug)]
pub(super) struct ToKeep {
    version: u64,
    text: Vec<u8>,
}

impl ControlAnchors {
    /// The state as it is to be kept. It is written without the state's lock: every connection asks the state.
    pub(super) fn to_keep(&self, state: &State) -> Option<ToKeep> {
        let version = self.versions.fetch_add(1, Ordering::SeqCst) + 1;
        let text = kept_text(&self.trust_domain, state);
        let failed = |error: &io::Error| tracing::warn!(%error, "cannot keep the control anchors");
        Some(ToKeep {
            version,
            text: text.inspect_err(failed).ok()?,
        })
    }

    /// A newer state that was written before stays.
    pub(super) fn write(&self, kept: ToKeep) {
        let mut written = self.written.lock();
        if kept.version <= *written {
            return;
        }
        match files::replace(&self.kept, &kept.text, 0o600, Durability::Durable) {
            Ok(()) => *written = kept.version,
            // Served all the same; a restart then begins with older anchors.
            Err(error) => {
                tracing::warn!(path = %self.kept.display(), %error, "cannot keep the control anchors");
            }
        }
    }
}
