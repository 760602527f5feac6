//! When each reason stands, and with what words. Pure.

use std::time::{Duration, SystemTime};

use signet_certs::time::rfc3339;

use crate::attest::ClusterHealth;
use crate::authority::{AuthorityState, AuthorityView, ViewedAuthority};
use crate::clock::Time;
use crate::trust::{PublishedAuthority, TrustSnapshot};

/// How long the audit log may take nothing while lines wait.
pub(super) const AUDIT_PATIENCE: Duration = Duration::from_secs(60);

/// An active authority without a list, or a list that should have been renewed by now. Lists are renewed at a third of their life, so one at two thirds
/// has failed for as long. Without a trusted time nobody can say how old a list is; that is a reason of its own.
pub(super) fn lists_old(view: &AuthorityView, snapshot: &TrustSnapshot, time: &Time) -> Option<String> {
    let signs = |viewed: &ViewedAuthority| viewed.state == AuthorityState::Active;
    let unpublished = view
        .all()
        .find(|(_, viewed)| signs(viewed) && snapshot.get(viewed.id()).is_none());
    if let Some((kind, viewed)) = unpublished {
        return Some(format!("{kind} authority {} has no list", viewed.id()));
    }
    let now = time.adding().ok()?;
    let old = snapshot.all().find(|published| is_old(published, now))?;
    Some(format!(
        "the list of authority {} of {} ends at {}",
        old.certificate.id(),
        rfc3339(old.crl.this_update()),
        rfc3339(old.crl.next_update())
    ))
}

fn is_old(published: &PublishedAuthority, now: SystemTime) -> bool {
    let (begun, ends) = (published.crl.this_update(), published.crl.next_update());
    let life = ends.duration_since(begun).unwrap_or_default();
    now > begun + life / 3 * 2
}

/// A kind without an authority that can sign a leaf now.
pub(super) fn no_authority(view: &AuthorityView, time: &Time) -> Option<String> {
    view.kinds()
        .find_map(|(kind, authorities)| match authorities.active() {
            None => Some(format!("no {kind} authority is active")),
            Some(active) => {
                let outside = active.certificate().check_valid_at(time.now).err()?;
                Some(format!("{kind} {outside}"))
            }
        })
}

/// The server's own certificates end, or have never been there: `valid_until` is the end of the first that ends.
pub(super) fn own_certificate(valid_until: Option<SystemTime>, time: &Time) -> Option<String> {
    match valid_until {
        None => Some("there is none yet".to_owned()),
        Some(ended) if ended < time.now => Some(format!(
            "it ended at {}, and by this clock it is {}",
            rfc3339(ended),
            rfc3339(time.now)
        )),
        Some(_) => None,
    }
}

/// No configured cluster can be asked. One that can is enough: its pods get their identities.
pub(super) fn clusters_away(clusters: &[ClusterHealth]) -> Option<String> {
    let is_away = |cluster: &ClusterHealth| !cluster.synced || cluster.problem.is_some();
    if clusters.is_empty() || !clusters.iter().all(is_away) {
        return None;
    }
    let words = |cluster: &ClusterHealth| {
        let problem = cluster
            .problem
            .as_deref()
            .unwrap_or("its pods are not listed yet");
        format!("`{}`: {problem}", cluster.name)
    };
    Some(clusters.iter().map(words).collect::<Vec<_>>().join("; "))
}

/// So many lines of the audit log wait that it `stops` issuing; or it fails, or has lines and takes none. `waited` is the time since
/// it took one.
pub(super) fn audit_stuck(
    stops: Option<&str>,
    failing: Option<&str>,
    waiting: u64,
    waited: Duration,
) -> Option<String> {
    if waiting == 0 {
        return None;
    }
    if let Some(stops) = stops {
        let why = failing.map(|error| format!(": {error}")).unwrap_or_default();
        return Some(format!("{stops}; {waiting} lines wait{why}"));
    }
    match failing {
        Some(error) => Some(format!("{waiting} lines wait: {error}")),
        None if waited >= AUDIT_PATIENCE => Some(format!(
            "{waiting} lines wait, none was taken for {} s",
            waited.as_secs()
        )),
        None => None,
    }
}
