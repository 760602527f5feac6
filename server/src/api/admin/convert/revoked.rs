//! What a revocation did, however much that was.

use std::collections::HashMap;

use signet_certs::{authority::AuthorityId, id::SpiffeId, time::unix_millis};
use signet_proto::admin as wire;

use super::millis;
use crate::store::{Revoked, RevokedSvid};

/// Certificates that one answer names.
const MOST_NAMED: usize = 10_000;
/// Groups of each kind that one answer names.
const MOST_GROUPS: usize = 10;

/// `denies` is who is denied from now on, in words; empty where nobody is.
pub(in crate::api::admin) fn revoked(
    revoked: &Revoked,
    denies: String,
    crls: &[(AuthorityId, u64)],
    not_published: Option<String>,
) -> wire::RevokeResponse {
    let mut named: Vec<&RevokedSvid> = revoked.svids.iter().collect();
    named.sort_by_key(|svid| !svid.spiffe_id.as_ref().is_some_and(SpiffeId::is_agent));
    let waiting = revoked.svids.iter().filter(|svid| svid.waits);
    let ends = waiting.clone().map(|svid| svid.not_after);
    let unknown_end = ends.clone().any(|end| end.is_none());
    let last_end = ends.flatten().max().filter(|_| !unknown_end);
    wire::RevokeResponse {
        revoked: named.into_iter().take(MOST_NAMED).map(svid).collect(),
        revoked_total: revoked.svids.len() as u64,
        waiting_total: waiting.count() as u64,
        waiting_last_end_unix_ms: millis(last_end),
        groups: groups(&revoked.svids),
        revision: revoked.revision,
        denies,
        denial_id: revoked
            .denial
            .as_ref()
            .map(|denial| denial.id.clone())
            .unwrap_or_default(),
        crls: crls
            .iter()
            .map(|(id, number)| wire::PublishedCrl {
                authority_id: id.to_string(),
                number: *number,
            })
            .collect(),
        not_published: not_published.unwrap_or_default(),
    }
}

fn svid(svid: &RevokedSvid) -> wire::RevokedSvid {
    wire::RevokedSvid {
        serial: svid.serial.to_string(),
        authority_id: svid.authority.to_string(),
        spiffe_id: text(svid.spiffe_id.as_ref()),
        waits: svid.waits,
        not_after_unix_ms: svid.not_after.map_or(0, unix_millis),
    }
}

fn text(id: Option<&SpiffeId>) -> String {
    id.map(ToString::to_string).unwrap_or_default()
}

fn groups(svids: &[RevokedSvid]) -> Vec<wire::RevokedGroup> {
    let authorities = largest("authority", svids.iter().map(|svid| svid.authority.to_string()));
    let ids = largest(
        "spiffe-id",
        svids.iter().map(|svid| text(svid.spiffe_id.as_ref())),
    );
    [authorities, ids].concat()
}

/// The largest groups of one kind, largest first.
fn largest(kind: &str, names: impl Iterator<Item = String>) -> Vec<wire::RevokedGroup> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().filter(|(name, _)| !name.is_empty()).collect();
    counts.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
    let groups = counts.into_iter().take(MOST_GROUPS);
    let groups = groups.map(|(name, certificates)| wire::RevokedGroup {
        kind: kind.to_owned(),
        name,
        certificates,
    });
    groups.collect()
}
