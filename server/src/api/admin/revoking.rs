//! Revocations: what an admin may order, and when it is done.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use signet_certs::{authority::AuthorityId, crl::RevocationReason, id::SpiffeId, serial::SerialNumber};
use signet_proto::admin::{self as wire, revoke_request::Target};
use tonic::Status;

use super::AdminService;
use crate::store::{LedgerRow, Origin, RevokeRequest, RevokeTarget, Revoked, SvidFilter};

/// How long `revoke` waits for the published list before it answers "recorded, not yet published".
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// What an order names, in the caller's words.
pub(super) fn named(request: &wire::RevokeRequest) -> String {
    match &request.target {
        Some(Target::Serial(serial)) => format!("serial {serial}"),
        Some(Target::SpiffeId(id)) => id.clone(),
        None => String::new(),
    }
}

impl AdminService {
    /// A full SPIFFE ID of this trust domain, or just its path.
    pub(super) fn id_or_path(&self, text: &str) -> Result<SpiffeId, Status> {
        let full = if text.starts_with('/') {
            format!("{}{text}", self.trust_domain.id())
        } else {
            text.to_owned()
        };
        let id =
            SpiffeId::parse(&full).map_err(|e| Status::invalid_argument(format!("not a SPIFFE ID: {e}")))?;
        if id.trust_domain() != self.trust_domain {
            return Err(Status::invalid_argument(format!(
                "{id} belongs to another trust domain; this server serves {}",
                self.trust_domain
            )));
        }
        Ok(id)
    }

    /// Turns an order into what the store takes, refusing what it must not.
    pub(super) fn revocation(
        &self,
        request: wire::RevokeRequest,
        author: String,
    ) -> Result<RevokeRequest, Status> {
        let time = self.clock.time();
        let reason: RevocationReason = request
            .reason
            .parse()
            .map_err(|_| Status::invalid_argument(format!("no such reason: {:?}", request.reason)))?;
        let target = match request.target {
            Some(Target::Serial(serial)) => self.serial_target(&serial, &request.authority_id)?,
            Some(Target::SpiffeId(id)) => self.id_target(&id, request.force)?,
            None => return Err(Status::invalid_argument("name a serial or a SPIFFE ID")),
        };
        Ok(RevokeRequest {
            target,
            reason,
            comment: request.comment,
            author,
            origin: Origin::Admin,
            keep_issuing: request.keep_issuing,
            denial_expires: (request.expires_after_seconds > 0)
                .then(|| {
                    time.now
                        .checked_add(Duration::from_secs(request.expires_after_seconds))
                })
                .flatten(),
            rooms: self.publisher.rooms(),
            now: time.now,
            earliest: time.earliest,
        })
    }

    fn serial_target(&self, serial: &str, authority: &str) -> Result<RevokeTarget, Status> {
        let serial: SerialNumber = serial
            .parse()
            .map_err(|e| Status::invalid_argument(format!("not a serial number: {e}")))?;
        let authority = match authority {
            "" => None,
            text => Some(
                text.parse::<AuthorityId>()
                    .map_err(|e| Status::invalid_argument(format!("not an authority id: {e}")))?,
            ),
        };
        let view = self.authorities.current().borrow().clone();
        let expires_by = authority.and_then(|id| {
            view.all()
                .find(|(_, viewed)| viewed.id() == id)
                .map(|(_, v)| v.certificate().not_after())
        });
        Ok(RevokeTarget::Serial {
            serial,
            authority,
            expires_by,
        })
    }

    fn id_target(&self, id: &str, force: bool) -> Result<RevokeTarget, Status> {
        let id = self.id_or_path(id)?;
        if id.is_trust_domain() {
            return Err(Status::invalid_argument(
                "that is the whole trust domain; name one identity",
            ));
        }
        if id.is_reserved() && !force {
            return Err(Status::failed_precondition(
                "the target belongs to the control plane (/signet/): an agent or the server itself. Add --force if you mean it",
            ));
        }
        Ok(RevokeTarget::SpiffeId(id))
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
        for id in ids {
            let filter = SvidFilter {
                spiffe_id_prefix: Some(id.clone()),
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
            .wait_published(revoked.revision, PUBLISH_TIMEOUT)
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
