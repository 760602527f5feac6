//! Authorities and their rotation to `signet.admin.v1`.

use bytes::Bytes;
use signet_certs::{
    authority::{AuthorityId, AuthorityKind},
    signer::SignatureAlgorithm,
    time::{rfc3339, unix_millis},
};
use signet_proto::admin as wire;
use tonic::Status;

use super::millis;
use crate::{
    authority::{AuthorityState, AuthorityView, RotationProgress, ViewedAuthority, activate_at, prepare_at},
    store::AuthorityUse,
    trust::TrustSnapshot,
};

pub(in crate::api::admin) fn authority(
    kind: AuthorityKind,
    viewed: &ViewedAuthority,
    view: &AuthorityView,
    counts: &[AuthorityUse],
    trust: &TrustSnapshot,
) -> wire::Authority {
    let id = viewed.id();
    let certificate = viewed.certificate();
    let used = counts.iter().find(|used| used.authority == id);
    let (next, at) = match &viewed.state {
        AuthorityState::Prepared { .. } => {
            let active = view.kind(kind).active();
            (
                "activate",
                active.map(|a| activate_at(a.certificate().not_before(), a.certificate().not_after())),
            )
        }
        AuthorityState::Active => {
            let prepared = view
                .kind(kind)
                .authorities
                .iter()
                .any(|other| matches!(other.state, AuthorityState::Prepared { .. }));
            let at = if prepared { activate_at } else { prepare_at };
            let next = if prepared {
                "hand over"
            } else {
                "prepare successor"
            };
            (next, Some(at(certificate.not_before(), certificate.not_after())))
        }
        AuthorityState::Old { leaves_until, .. } => ("leave the bundle", Some(*leaves_until)),
    };
    wire::Authority {
        authority_id: id.to_string(),
        kind: kind.to_string(),
        state: viewed.state.name().to_owned(),
        subject: certificate.subject(),
        not_before_unix_ms: unix_millis(certificate.not_before()),
        not_after_unix_ms: unix_millis(certificate.not_after()),
        live_svids: used.map_or(0, |used| used.live),
        crl_number: trust.get(id).map_or(0, |published| published.crl.number().0),
        next: if at.is_some() {
            next.to_owned()
        } else {
            String::new()
        },
        next_unix_ms: millis(at),
        certificate: Bytes::copy_from_slice(certificate.der()),
        algorithm: viewed.x509().signer().algorithm().to_string(),
    }
}

/// Nothing where it is left out.
pub(in crate::api::admin) fn algorithm(text: &str) -> Result<Option<SignatureAlgorithm>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let algorithm = text.parse();
    algorithm
        .map(Some)
        .map_err(|_| Status::invalid_argument("algorithm must be p256 or p384, or be left out"))
}

pub(in crate::api::admin) fn step(step: RotationProgress) -> wire::RotateProgress {
    let previous = |id: Option<AuthorityId>| id.map(|id| id.to_string()).unwrap_or_default();
    match step {
        RotationProgress::Prepared {
            authority,
            previous: old,
        } => wire::RotateProgress {
            step: "prepared".to_owned(),
            authority_id: authority.to_string(),
            old_authority_id: previous(old),
            ..wire::RotateProgress::default()
        },
        RotationProgress::Spreading {
            authority,
            live,
            confirmed,
            not_before,
            at_latest,
        } => wire::RotateProgress {
            step: "spreading".to_owned(),
            authority_id: authority.to_string(),
            agents: u32::try_from(live).unwrap_or(u32::MAX),
            agents_reported: u32::try_from(confirmed).unwrap_or(u32::MAX),
            message: format!(
                "signs from {} at the earliest, {} at the latest",
                rfc3339(not_before),
                rfc3339(at_latest)
            ),
            ..wire::RotateProgress::default()
        },
        RotationProgress::Activated {
            authority,
            previous: old,
        } => wire::RotateProgress {
            step: "activated".to_owned(),
            authority_id: authority.to_string(),
            old_authority_id: previous(old),
            done: true,
            ..wire::RotateProgress::default()
        },
    }
}
