//! What the audit log is told of a change of the authorities; written in its transaction.

use std::time::SystemTime;

use signet_certs::authority::{AuthorityId, AuthorityKind};

use super::departed::Left;
use super::state::{AuthorityRecord, AuthoritySet, AuthorityState};
use crate::audit_event::{AuditAction, AuditEvent};

/// The lines of a change.
pub(super) fn changes(
    kind: AuthorityKind,
    before: &AuthoritySet,
    after: &AuthoritySet,
    ungated: bool,
    now: SystemTime,
) -> Vec<AuditEvent> {
    let previous = before.active().map(AuthorityRecord::id);
    let made = after
        .authorities()
        .iter()
        .filter(|record| before.get(record.id()).is_none());
    let made = made.map(|record| AuditAction::AuthorityPrepared {
        kind,
        authority_id: record.id(),
        algorithm: record.authority.algorithm,
        not_after: record.authority.not_after,
        author: record.author.to_string(),
        linked_by: after.links().maker_of(record.id()),
    });
    let changes = after.authorities().iter().filter_map(|record| {
        let (authority_id, author) = (record.id(), record.author.to_string());
        let old = before.get(authority_id).map(|old| old.state);
        match (old, record.state) {
            (None | Some(AuthorityState::Prepared { .. }), AuthorityState::Active) => {
                let forced = ungated && previous.is_some();
                Some(AuditAction::AuthorityActivated {
                    kind,
                    authority_id,
                    previous,
                    forced,
                    author,
                })
            }
            (
                Some(old),
                AuthorityState::Tainted {
                    out_at: Some(leaves_at),
                    ..
                },
            ) if old.out_at().is_none() => Some(AuditAction::AuthorityDistrusted {
                kind,
                authority_id,
                leaves_at,
                author,
            }),
            (Some(old), AuthorityState::Tainted { .. }) if old.name() != record.state.name() => {
                Some(AuditAction::AuthorityTainted {
                    kind,
                    authority_id,
                    author,
                })
            }
            _ => None,
        }
    });
    let gone = before
        .authorities()
        .iter()
        .filter(|record| after.get(record.id()).is_none());
    let gone = gone.map(|record| left(kind, record.id(), after));
    made.chain(changes)
        .chain(gone)
        .map(|action| AuditEvent::new(now, action))
        .collect()
}

fn left(kind: AuthorityKind, authority_id: AuthorityId, after: &AuthoritySet) -> AuditAction {
    let departed = after.departed().get(authority_id);
    match departed.filter(|departed| departed.left != Left::Expired) {
        Some(departed) => AuditAction::AuthorityRevoked {
            kind,
            authority_id,
            forced: departed.forced,
            author: departed.author.to_string(),
        },
        None => AuditAction::AuthorityExpired { kind, authority_id },
    }
}
