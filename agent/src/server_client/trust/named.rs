//! Lists that the server names by their digest, because it was told that they are held.

use signet_certs::authority::{AuthorityCertificate, AuthorityId};

use super::TrustState;
use crate::server_client::{OfferedAuthority, TrustUpdate};

/// Puts in the lists that an update names. Returns the authorities whose list is another than the one that is held: that one
/// is put in until the server sends the list itself, so that the rest of the update can be believed.
pub(crate) fn complete(held: Option<&TrustState>, update: &mut TrustUpdate) -> Vec<AuthorityId> {
    let all = update.x509.iter_mut().chain(&mut update.control);
    all.filter_map(|offered| put_in(held, offered)).collect()
}

fn put_in(held: Option<&TrustState>, offered: &mut OfferedAuthority) -> Option<AuthorityId> {
    let named = offered.named.filter(|_| offered.crl.is_empty())?;
    // One that is none is judged with the rest.
    let id = AuthorityCertificate::from_der(&offered.certificate).ok()?.id();
    let Some(holds) = held.and_then(|held| held.find(&id)?.crl.as_ref()) else {
        return Some(id);
    };
    offered.crl = holds.der().clone();
    (holds.sha256() != named).then_some(id)
}
