//! Revocations: what an admin may order, and when it is done.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, SystemTime},
};

use signet_certs::{
    authority::AuthorityId, crl::RevocationReason, id::SpiffeId, serial::SerialNumber, time::from_unix_millis,
};
use signet_proto::admin::{self as wire, revoke_request::Target};
use tonic::Status;

use super::{AdminService, convert, store_status};
use crate::store::{LedgerRow, Origin, RevokeError, RevokeRequest, Revoked, SvidFilter};

/// How long `revoke` waits for the published list before it answers "recorded, not yet published".
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Identities whose holders are looked for in the ledger, one scan each; where more are concerned, every agent asks again.
const MOST_ASKED: usize = 16;

/// What an order names, in the caller's words.
pub(super) fn named(request: &wire::RevokeRequest) -> String {
    match &request.target {
        Some(Target::Serial(serial)) => format!("serial {serial}"),
        Some(Target::SpiffeId(id)) => id.clone(),
        Some(Target::Prefix(id)) => format!("prefix {id}"),
        Some(Target::Pod(pod)) => format!("pod {pod}"),
        Some(Target::Node(node)) => format!("node {node}"),
        Some(Target::IssuedBy(authority)) => format!("all issued by {authority}"),
        None => String::new(),
    }
}

fn refused(error: RevokeError) -> Status {
    match error {
        RevokeError::Store(error) => store_status(error),
        error => Status::failed_precondition(error.to_string()),
    }
}

/// When a denial ends by itself: one that cannot is refused, and not taken for one without end.
fn denial_expires(after_seconds: u64, now: SystemTime) -> Result<Option<SystemTime>, Status> {
    if after_seconds == 0 {
        return Ok(None);
    }
    let end = now.checked_add(Duration::from_secs(after_seconds));
    match end.filter(|end| *end <= from_unix_millis(i64::MAX)) {
        Some(end) => Ok(Some(end)),
        None => Err(Status::invalid_argument(
            "the denial would end after the year 9999: leave its end out",
        )),
    }
}

/// Lists go by whole seconds, and nothing was issued before 1970.
fn invalid_since(unix_ms: i64) -> Result<Option<SystemTime>, Status> {
    match unix_ms {
        0 => Ok(None),
        ..1000 => Err(Status::invalid_argument(
            "invalid since a time before anything was issued: leave it out where nobody knows",
        )),
        since => Ok(Some(from_unix_millis(since))),
    }
}

impl AdminService {
    /// Revokes, and answers once what is listed is served; or tells what that would do.
    pub(super) async fn revoked(
        &self,
        request: wire::RevokeRequest,
        author: String,
    ) -> Result<wire::RevokeResponse, Status> {
        let is_dry_run = request.dry_run;
        let order = self.revocation(request, author).await?;
        let denies = order
            .denies()
            .map(|denied| denied.to_string())
            .unwrap_or_default();
        if is_dry_run {
            let would = self.store.would_revoke(order).await.map_err(refused)?;
            return Ok(convert::revoked(&would, denies, &[], None));
        }
        let revoked = self.store.revoke(order).await.map_err(refused)?;
        self.metrics.revoked(revoked.fresh);
        self.agents.after(&revoked);
        self.ask_again(&revoked).await;
        let (crls, not_published) = self.published(&revoked).await;
        Ok(convert::revoked(&revoked, denies, &crls, not_published))
    }

    /// Turns an order into what the store takes, refusing what it must not.
    async fn revocation(
        &self,
        request: wire::RevokeRequest,
        author: String,
    ) -> Result<RevokeRequest, Status> {
        let time = self.clock.time();
        let reason: RevocationReason = request
            .reason
            .parse()
            .map_err(|_| Status::invalid_argument(format!("no such reason: {:?}", request.reason)))?;
        let denial_expires = denial_expires(request.expires_after_seconds, time.now)?;
        let invalid_since = invalid_since(request.invalid_from_unix_ms)?;
        Ok(RevokeRequest {
            target: self.target(&request).await?,
            reason,
            comment: request.comment,
            author,
            origin: Origin::Admin,
            invalid_since,
            keep_issuing: request.keep_issuing,
            denial_expires,
            rooms: self.publisher.rooms(),
            now: time.now,
            earliest: time.earliest,
        })
    }

    /// No list tells an agent that it holds one of the certificates that wait: it is told to ask again for those pods, or for all
    /// that it serves where it is a process outside Kubernetes, and gets another certificate or a refusal. Best effort: the order stands whatever becomes of it.
    pub(super) async fn ask_again(&self, revoked: &Revoked) {
        let waiting = revoked.svids.iter().filter(|svid| svid.waits);
        if waiting.clone().next().is_some() {
            // Those that are connected are told by pod.
            self.agents.lists_lack();
        }
        let serials: HashSet<SerialNumber> = waiting.clone().map(|svid| svid.serial).collect();
        let ids: BTreeSet<&SpiffeId> = waiting.filter_map(|svid| svid.spiffe_id.as_ref()).collect();
        if ids.len() > MOST_ASKED {
            return self.agents.all_affected();
        }
        for id in ids {
            let filter = SvidFilter {
                spiffe_id: Some(id.clone()),
                limit: u32::MAX,
                ..SvidFilter::default()
            };
            match self.store.list(filter).await {
                Ok(page) if page.truncated => self.agents.all_affected(),
                Ok(page) => self.affect(page.rows.iter().filter(|row| serials.contains(&row.serial))),
                Err(error) => {
                    tracing::warn!(%error, "agents are not told of revoked certificates that no list names");
                }
            }
        }
    }

    fn affect<'a>(&self, rows: impl Iterator<Item = &'a LedgerRow>) {
        let clusters = self.attestor.clusters();
        let (pods, processes): (Vec<_>, Vec<_>) = rows
            .filter(|row| !row.workload.agent_id.is_empty())
            .map(|row| &row.workload)
            .partition(|of| of.process.is_empty());
        let agents: BTreeSet<&str> = processes.into_iter().map(|of| of.agent_id.as_str()).collect();
        agents
            .into_iter()
            .for_each(|agent| self.agents.agent_affected(agent));
        let pods: BTreeSet<(&str, &str, &str)> = pods
            .into_iter()
            .map(|of| {
                (
                    of.cluster_uid.as_str(),
                    of.node_name.as_str(),
                    of.pod_uid.as_str(),
                )
            })
            .collect();
        for (cluster_uid, node_name, pod_uid) in pods {
            let cluster = clusters
                .iter()
                .find(|known| known.uid.as_deref() == Some(cluster_uid));
            if let Some(cluster) = cluster {
                self.agents.pod_affected(&cluster.name, node_name, pod_uid);
            }
        }
    }

    /// Waits until the lists that HTTP serves contain the revocation.
    pub(super) async fn published(&self, revoked: &Revoked) -> (Vec<(AuthorityId, u64)>, Option<String>) {
        // Also where nothing of this order is listed: it may have let in what waited.
        self.publisher.revocation_changed(revoked.revision);
        let listed = revoked.svids.iter().filter(|svid| !svid.waits);
        let authorities: BTreeSet<AuthorityId> = listed.map(|svid| svid.authority).collect();
        if authorities.is_empty() {
            return (Vec::new(), None);
        }
        match self
            .publisher
            .wait_listed(revoked.revision, &authorities, PUBLISH_TIMEOUT)
            .await
        {
            Ok(snapshot) => {
                let number = |id: &AuthorityId| Some((*id, snapshot.get(*id)?.crl.number().0));
                (authorities.iter().filter_map(number).collect(), None)
            }
            Err(_) => (
                Vec::new(),
                Some("the list will follow; see the server's log and `crl show`".to_owned()),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_that_cannot_end_when_it_should_is_not_one_without_end() {
        let now = from_unix_millis(1_800_000_000_000);
        assert_eq!(denial_expires(0, now).unwrap(), None);
        assert_eq!(
            denial_expires(60, now).unwrap(),
            Some(now + Duration::from_secs(60))
        );
        for far in [u64::MAX, u64::MAX / 2, 300_000_000_000] {
            assert!(denial_expires(far, now).is_err(), "{far}");
        }
    }

    #[test]
    fn a_time_before_all_times_is_refused() {
        assert_eq!(invalid_since(0).unwrap(), None);
        for unix_ms in [i64::MIN, -1, 1, 999] {
            assert!(invalid_since(unix_ms).is_err(), "{unix_ms}");
        }
        assert_eq!(invalid_since(1000).unwrap(), Some(from_unix_millis(1000)));
    }
}
