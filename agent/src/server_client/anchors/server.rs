//! Whether a server that was verified stays so: asked of each connection for as long as it lives.

use std::sync::Arc;

use signet_certs::authority::AuthorityId;
use signet_certs::serial::SerialNumber;
use signet_certs::verify::VerifiedSvid;
use thiserror::Error;

use super::ControlAnchors;
use crate::server_client::trust::Said;

/// Why nothing is said any more over a connection.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub(crate) enum Objection {
    /// The anchors file distrusts it.
    #[error("the anchors file distrusts control authority {0}, by which the server was verified")]
    Distrusted(AuthorityId),
    /// It departed, or is known of distrusted ones alone.
    #[error("control authority {0}, by which the server was verified, is no anchor any more")]
    Gone(AuthorityId),
    /// Its certificate is on the list.
    #[error("the server's certificate {0} is revoked")]
    Revoked(SerialNumber),
}

/// The server at the other end of one connection.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedServer {
    anchors: Arc<ControlAnchors>,
    authority: AuthorityId,
    serial: SerialNumber,
    /// What comes over this connection is said so.
    said: Said,
    /// Its authority was an anchor when the connection was made.
    is_known: bool,
}

impl VerifiedServer {
    /// Of a handshake that is over.
    pub(crate) fn new(anchors: Arc<ControlAnchors>, svid: &VerifiedSvid) -> Self {
        let authority = svid.authority_id();
        let (said, is_known) = {
            let state = anchors.state.lock();
            (
                Said::by(authority, state.said.get(&authority)),
                state.holds(&authority),
            )
        };
        Self {
            anchors,
            authority,
            serial: svid.serial(),
            said,
            is_known,
        }
    }

    /// Who says what comes over this connection.
    pub(crate) fn said(&self) -> Said {
        self.said.clone()
    }

    /// What speaks against it now.
    pub(crate) fn objection(&self) -> Option<Objection> {
        let state = self.anchors.state.lock();
        if state.file.distrusts(&self.authority) {
            return Some(Objection::Distrusted(self.authority));
        }
        if !self.is_known || state.refuses(&self.authority) || state.file.voids(&self.said) {
            return Some(Objection::Gone(self.authority));
        }
        let own = |anchor: &&_| is_of(anchor, &self.authority);
        let list = state
            .anchors
            .iter()
            .find(own)
            .and_then(|anchor| anchor.crl.as_ref());
        list.is_some_and(|list| list.is_revoked(&self.serial))
            .then_some(Objection::Revoked(self.serial))
    }

    /// Resolves once something speaks against it.
    pub(crate) async fn objected(self) -> Objection {
        let mut changes = self.anchors.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(objection) = self.objection() {
                return objection;
            }
            // The sender is in the anchors, which this holds.
            let _ = changes.changed().await;
        }
    }
}

fn is_of(anchor: &signet_certs::verify::TrustedAuthority, authority: &AuthorityId) -> bool {
    anchor.certificate.id() == *authority
}
