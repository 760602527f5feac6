//! From lists to the snapshot that everything which leaves the server is a rendering of.

use std::sync::Arc;

use tokio::time::Instant;

use super::Worker;
use crate::authority::{AuthorityState, AuthorityView, KindView};
use crate::publisher::list::PublishError;
use crate::store::StoreError;
use crate::trust::{PublishedAuthority, TrustSnapshot};

impl Worker {
    /// Sends a snapshot if it differs from the last one. An authority without a list stays out of it (INV-2); the
    /// machine activates none that was not shown.
    pub(super) async fn show(&mut self, view: &AuthorityView) -> Result<(), PublishError> {
        if !self.gate.opens(view, Instant::now()) {
            return Ok(());
        }
        let kinds = view.kinds();
        let mut next = TrustSnapshot {
            trust_domain: self.settings.trust_domain.clone(),
            sequence: 0,
            refresh_hint: self.settings.refresh_hint,
            kinds: kinds.map(|(kind, view)| (kind, self.published(view))).collect(),
            departed: view.departed().collect(),
        };
        if next.is_empty() {
            return Ok(());
        }
        next.sequence = self.sequence_of(next.content_digest()).await?;
        // Readers do not see where an authority stands, but whoever drives it waits for word of each step.
        let states: Vec<AuthorityState> = view.all().map(|(_, viewed)| viewed.state).collect();
        let moved = self.states != states;
        self.states = states;
        self.snapshots.send_if_modified(|current| {
            // The same list may be complete up to more revocations.
            let revisions =
                |snapshot: &TrustSnapshot| snapshot.all().map(|one| one.crl_revision).collect::<Vec<_>>();
            let changed = moved || !current.same_content(&next) || revisions(current) != revisions(&next);
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
        Ok(())
    }

    async fn sequence_of(&mut self, digest: [u8; 32]) -> Result<u64, StoreError> {
        if let Some((known, sequence)) = self.sequence
            && known == digest
        {
            return Ok(sequence);
        }
        let sequence = self.store.next_sequence(digest).await?;
        self.sequence = Some((digest, sequence));
        Ok(sequence)
    }

    fn published(&self, view: &KindView) -> Vec<PublishedAuthority> {
        let listed = view.authorities.iter().filter_map(|viewed| {
            let list = self.lists.get(&viewed.id())?;
            Some(PublishedAuthority {
                certificate: viewed.certificate().clone(),
                crl: list.crl.clone()?,
                crl_revision: list.revision,
                tainted: matches!(viewed.state, AuthorityState::Tainted { .. }),
            })
        });
        listed.collect()
    }
}
