//! What a revocation is aimed at: from an admin's words to what the store takes. Whatever is not clear is refused with the
//! words that would make it so.

use std::collections::BTreeMap;

use signet_certs::{
    authority::{AuthorityId, AuthorityKind},
    id::SpiffeId,
    serial::SerialNumber,
};
use signet_proto::admin::{self as wire, revoke_request::Target};
use tonic::Status;

use super::{AdminService, store_status};
use crate::{
    attest::{Found, KnownPod},
    authority::AuthorityState,
    store::{AgentRow, LedgerRow, Named, RevokeTarget, SvidFilter},
};

/// Longest name or UID that anything in Kubernetes has, with a namespace before it.
const LONGEST_NAME: usize = 320;

impl AdminService {
    pub(super) async fn target(&self, request: &wire::RevokeRequest) -> Result<RevokeTarget, Status> {
        let (force, cluster) = (request.force, request.cluster.as_str());
        match &request.target {
            Some(Target::Serial(serial)) => self.serial_target(serial, &request.authority_id),
            Some(Target::SpiffeId(id)) => self.id_target(id, force).map(RevokeTarget::SpiffeId),
            Some(Target::Prefix(id)) => self.id_target(id, force).map(RevokeTarget::Prefix),
            Some(Target::Pod(pod)) => self.pod_target(pod, cluster, force).await,
            Some(Target::Node(node)) => self.node_target(node, cluster, force).await,
            Some(Target::IssuedBy(authority)) => self.issued_by(authority, force),
            None => Err(Status::invalid_argument(
                "name a serial, a SPIFFE ID, a prefix, a pod, a node or an authority",
            )),
        }
    }

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

    fn serial_target(&self, serial: &str, authority: &str) -> Result<RevokeTarget, Status> {
        let serial: SerialNumber = serial
            .parse()
            .map_err(|e| Status::invalid_argument(format!("not a serial number: {e}")))?;
        let authority = match authority {
            "" => None,
            text => Some(authority_id(text)?),
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

    fn id_target(&self, id: &str, force: bool) -> Result<SpiffeId, Status> {
        let id = self.id_or_path(id)?;
        if id.is_trust_domain() {
            return Err(Status::invalid_argument(
                "that is the whole trust domain; name one identity, or what it lies below",
            ));
        }
        if id.is_reserved() && !force {
            return Err(Status::failed_precondition(
                "the target belongs to the control plane (/signet/): an agent or the server itself. Add --force if you mean it",
            ));
        }
        Ok(id)
    }

    /// Whose holders would get nothing better is left alone.
    fn issued_by(&self, text: &str, force: bool) -> Result<RevokeTarget, Status> {
        let id = authority_id(text)?;
        let view = self.authorities.current().borrow().clone();
        let mut all = view.all();
        if let Some((kind, viewed)) = all.find(|(_, viewed)| viewed.id() == id) {
            if viewed.state == AuthorityState::Active {
                return Err(Status::failed_precondition(format!(
                    "{id} is the authority that signs: whoever loses a certificate would get the next one by it too. Let another one sign \
                     first (`ca rotate --kind {kind}`), then repeat this"
                )));
            }
            if kind == AuthorityKind::Control && !force {
                return Err(Status::failed_precondition(
                    "it has signed the certificates of agents and of the server itself, which attest again then. Add --force if you mean it",
                ));
            }
        }
        Ok(RevokeTarget::IssuedBy(id))
    }

    /// The clusters that an order may mean: name and UID of each that has one.
    fn meant_clusters(&self, cluster: &str) -> Result<Vec<(String, String)>, Status> {
        let clusters = self.attestor.clusters().into_iter();
        let known: Vec<(String, String)> = clusters
            .filter(|known| {
                cluster.is_empty() || known.name == cluster || known.uid.as_deref() == Some(cluster)
            })
            .filter_map(|known| Some((known.name, known.uid?)))
            .collect();
        if known.is_empty() {
            let which = if cluster.is_empty() {
                "no cluster"
            } else {
                "no such cluster"
            };
            return Err(Status::not_found(format!(
                "{which} is known, or none has been reached yet: `status` lists them"
            )));
        }
        Ok(known)
    }

    /// By a name all that had it are hit, whoever has it now is denied, or had it last.
    async fn pod_target(&self, text: &str, cluster: &str, force: bool) -> Result<RevokeTarget, Status> {
        check_name(text)?;
        let clusters = self.meant_clusters(cluster)?;
        let mut found = self.pods_there(text, &clusters, force).await?;
        let filter = SvidFilter {
            pod: Some(text.to_owned()),
            ..SvidFilter::default()
        };
        let rows = self.rows_of(filter, cluster, &clusters, force).await?;
        let agents = self.store.agents().await.map_err(store_status)?;
        // The certificate of an agent names its pod, without the UID.
        let of_agent = rows.iter().find(|row| row.workload.pod_uid.is_empty());
        let is_it = |row: &&AgentRow| {
            let by_pod = |named: &Named| !row.pod_uid.is_empty() && row.pod_uid == named.uid;
            let by_id = |of: &LedgerRow| of.workload.spiffe_id == row.spiffe_id;
            found.values().any(by_pod) || of_agent.is_some_and(by_id)
        };
        if let Some(row) = agents.iter().find(is_it) {
            return Err(Status::failed_precondition(format!(
                "that pod is the agent of node {}: `signet-server agent ban {}` shuts it out",
                row.node_name, row.spiffe_id
            )));
        }
        last_of(&mut found, rows.iter().map(pod_of));
        match (one_of(found, text, "pod")?, clusters.as_slice()) {
            (Some(pod), _) if text.contains('/') => Ok(RevokeTarget::PodsNamed(pod)),
            (Some(pod), _) => Ok(RevokeTarget::Pod(pod)),
            // A name alone says nothing of who will have it.
            (None, [(_, cluster_uid)]) if force && !text.contains('/') => Ok(RevokeTarget::Pod(Named {
                cluster_uid: cluster_uid.clone(),
                uid: text.to_owned(),
                name: String::new(),
            })),
            (None, _) => Err(nobody(text, "pod")),
        }
    }

    /// Pods that are there now, by the UID of their cluster. Where a cluster cannot say, whoever insists goes without.
    async fn pods_there(
        &self,
        text: &str,
        clusters: &[(String, String)],
        force: bool,
    ) -> Result<BTreeMap<String, Named>, Status> {
        let mut found = BTreeMap::new();
        for (name, _) in clusters {
            let pod = match text.split_once('/') {
                Some((namespace, pod)) => match self.attestor.find_pod(name, namespace, pod).await {
                    Found::There(there) => there.pod,
                    Found::Unknown(why) if !force => return Err(unsure(name, &why)),
                    Found::Nowhere | Found::Unknown(_) => continue,
                },
                None => match self.attestor.known_pod(name, text) {
                    KnownPod::There(pod) => *pod,
                    KnownPod::Gone | KnownPod::Unknown => continue,
                },
            };
            let named = Named {
                cluster_uid: pod.cluster_uid.clone(),
                uid: pod.pod_uid,
                name: format!("{}/{}", pod.namespace, pod.pod_name),
            };
            found.insert(pod.cluster_uid, named);
        }
        Ok(found)
    }

    /// A node is the one whose agent attested last, by this name or UID.
    async fn node_target(&self, text: &str, cluster: &str, force: bool) -> Result<RevokeTarget, Status> {
        check_name(text)?;
        let clusters = self.meant_clusters(cluster)?;
        let agents = self.store.agents().await.map_err(store_status)?;
        let is_it = |row: &&AgentRow| row.node_name == text || row.node_uid == text;
        let newest = clusters.iter().filter_map(|(name, cluster_uid)| {
            let of_cluster = agents.iter().filter(|row| row.cluster == *name);
            let newest = of_cluster.filter(is_it).max_by_key(|row| row.attested_at)?;
            let named = Named {
                cluster_uid: cluster_uid.clone(),
                uid: newest.node_uid.clone(),
                name: newest.node_name.clone(),
            };
            Some((cluster_uid.clone(), named))
        });
        let mut found: BTreeMap<String, Named> = newest.collect();
        if found.is_empty() {
            let filter = SvidFilter {
                node: Some(text.to_owned()),
                ..SvidFilter::default()
            };
            let rows = self.rows_of(filter, cluster, &clusters, force).await?;
            let of_cluster = rows.iter().filter(|row| !row.workload.cluster_uid.is_empty());
            last_of(&mut found, of_cluster.map(node_of));
        }
        match (one_of(found, text, "node")?, clusters.as_slice()) {
            (Some(node), _) => Ok(RevokeTarget::Node(node)),
            // It may be its name or its UID: whichever it turns out to be is denied.
            (None, [(_, cluster_uid)]) if force => Ok(RevokeTarget::Node(Named {
                cluster_uid: cluster_uid.clone(),
                uid: text.to_owned(),
                name: text.to_owned(),
            })),
            (None, _) => Err(nobody(text, "node")),
        }
    }

    /// All rows that may be unexpired, newest first, of any cluster where none is named. Where there are more than one look takes, whoever
    /// insists goes without.
    async fn rows_of(
        &self,
        filter: SvidFilter,
        cluster: &str,
        clusters: &[(String, String)],
        force: bool,
    ) -> Result<Vec<LedgerRow>, Status> {
        let filter = SvidFilter {
            unexpired_at: Some(self.clock.time().earliest),
            limit: u32::MAX,
            ..filter
        };
        let page = self.store.list(filter).await.map_err(store_status)?;
        if page.truncated && !force {
            return Err(too_many(page.rows.len()));
        }
        let is_meant = |row: &LedgerRow| {
            cluster.is_empty() || clusters.iter().any(|(_, uid)| *uid == row.workload.cluster_uid)
        };
        Ok(if page.truncated {
            Vec::new()
        } else {
            page.rows.into_iter().filter(is_meant).collect()
        })
    }
}

fn authority_id(text: &str) -> Result<AuthorityId, Status> {
    text.parse()
        .map_err(|e| Status::invalid_argument(format!("not an authority id: {e}")))
}

fn check_name(text: &str) -> Result<(), Status> {
    let is_name = !text.is_empty() && text.len() <= LONGEST_NAME && !text.contains(char::is_whitespace);
    is_name.then_some(()).ok_or_else(|| {
        Status::invalid_argument("write a pod as namespace/name or by its UID, a node by its name or UID")
    })
}

fn pod_of(row: &LedgerRow) -> Named {
    let of = &row.workload;
    Named {
        cluster_uid: of.cluster_uid.clone(),
        uid: of.pod_uid.clone(),
        name: format!("{}/{}", of.pod_namespace, of.pod_name),
    }
}

fn node_of(row: &LedgerRow) -> Named {
    let of = &row.workload;
    Named {
        cluster_uid: of.cluster_uid.clone(),
        uid: of.node_uid.clone(),
        name: of.node_name.clone(),
    }
}

/// Adds the first that rows name in each cluster where none was found.
fn last_of(found: &mut BTreeMap<String, Named>, rows: impl Iterator<Item = Named>) {
    for named in rows {
        found.entry(named.cluster_uid.clone()).or_insert(named);
    }
}

/// The only one, or which words would make it one.
fn one_of(found: BTreeMap<String, Named>, text: &str, what: &str) -> Result<Option<Named>, Status> {
    if found.len() > 1 {
        let all: Vec<_> = found.values().map(ToString::to_string).collect();
        return Err(Status::failed_precondition(format!(
            "several clusters have a {what} {text}: add --cluster with the name or UID of one, or name it by its UID ({})",
            all.join("; ")
        )));
    }
    Ok(found.into_values().next())
}

fn unsure(cluster: &str, why: &str) -> Status {
    Status::failed_precondition(format!(
        "the cluster {cluster} cannot say now which pod has that name ({why}): name it by its UID, or go by what certificates say, with \
         --force"
    ))
}

fn too_many(rows: usize) -> Status {
    Status::failed_precondition(format!(
        "more than {rows} unexpired certificates name it, too many to see whose they all are: name it by its UID, with --cluster and \
         --force"
    ))
}

fn nobody(text: &str, what: &str) -> Status {
    Status::not_found(format!(
        "no {what} {text} is known: no watch shows it and no certificate names it. By its UID, and a node by its name, it is denied all \
         the same with --force, in the cluster that --cluster names"
    ))
}

#[cfg(test)]
mod tests;
