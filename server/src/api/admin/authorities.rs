//! What admins order of the authorities, and how that goes on.

use std::{sync::Arc, time::SystemTime};

use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_proto::admin as wire;
use signet_runtime::error;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{AdminService, convert, store_status};
use crate::{
    agents::Agents,
    anchors,
    api::admin_calls::{author, is_about},
    authority::{
        Awaited, OperationReport, OperationSteps, Order, OrderError, OrderRequest, Refused, Stage, Verb, Why,
    },
    publisher::Firsts,
};

/// How an operation goes on, message by message.
pub(super) type ProgressStream = ReceiverStream<Result<wire::AuthorityProgress, Status>>;
/// An order that was taken, or why not.
type Told = Result<Response<ProgressStream>, Status>;

impl AdminService {
    pub(super) async fn all_authorities(&self, now: SystemTime) -> Result<Vec<wire::Authority>, Status> {
        let counts = self.store.live_counts(now).await.map_err(store_status)?;
        let trust = self.trust.borrow().clone();
        let view = self.authorities.current().borrow().clone();
        let operations = self.authorities.operations();
        Ok(view
            .all()
            .map(|(kind, viewed)| {
                let mut shown = convert::authority(kind, viewed, &view, &counts, &trust);
                convert::under_way(&mut shown, viewed.id(), &operations);
                shown
            })
            .collect())
    }

    pub(super) async fn shown_authorities(&self) -> Result<wire::ShowAuthoritiesResponse, Status> {
        let now = self.clock.now();
        let authorities = self.all_authorities(now).await?;
        let view = self.authorities.current().borrow().clone();
        let departed = view.kinds().flat_map(|(kind, view)| {
            let departed = view.departed.iter();
            departed.map(move |departed| convert::departed(kind, departed))
        });
        let departed = departed.collect();
        let mut operations = Vec::new();
        for report in self.authorities.operations().iter() {
            let mut shown = progress(report, &self.agents).await;
            unwritten(&mut shown, report, &self.firsts);
            operations.push(shown);
        }
        Ok(wire::ShowAuthoritiesResponse {
            authorities,
            departed,
            operations,
            now_unix_ms: convert::millis(Some(now)),
            anchors: anchors::of(view.kind(AuthorityKind::Control)).render(),
        })
    }

    pub(super) async fn prepare(&self, request: &Request<wire::PrepareAuthorityRequest>) -> Told {
        let asked = request.get_ref();
        let algorithm = convert::algorithm(&asked.algorithm)?;
        let order = Order::Prepare { algorithm };
        self.ordered_of_kind(request, &asked.kind, order, false).await
    }

    pub(super) async fn activate(&self, request: &Request<wire::ActivateAuthorityRequest>) -> Told {
        let asked = request.get_ref();
        let force = asked.force;
        let order = Order::Activate { force };
        self.ordered_of_kind(request, &asked.kind, order, force).await
    }

    pub(super) async fn rotate(&self, request: &Request<wire::RotateAuthorityRequest>) -> Told {
        let asked = request.get_ref();
        let order = Order::Rotate {
            force: asked.force,
            algorithm: convert::algorithm(&asked.algorithm)?,
            retire: asked.retire,
        };
        self.ordered_of_kind(request, &asked.kind, order, asked.force)
            .await
    }

    pub(super) async fn emergency(&self, request: &Request<wire::StartEmergencyRequest>) -> Told {
        let asked = request.get_ref();
        let algorithm = convert::algorithm(&asked.algorithm)?;
        let order = Order::Emergency { algorithm };
        // Whatever the lists have room for.
        self.ordered_of_kind(request, &asked.kind, order, true).await
    }

    pub(super) async fn taint(&self, request: &Request<wire::TaintAuthorityRequest>) -> Told {
        let order = |authority| Order::Taint { authority };
        self.ordered_of_one(request, &request.get_ref().authority_id, order)
            .await
    }

    pub(super) async fn take_away(&self, request: &Request<wire::RevokeAuthorityRequest>) -> Told {
        let force = request.get_ref().force;
        let order = |authority| Order::Revoke { authority, force };
        self.ordered_of_one(request, &request.get_ref().authority_id, order)
            .await
    }

    /// An order about one kind, which its text names.
    async fn ordered_of_kind<T>(&self, request: &Request<T>, kind: &str, order: Order, force: bool) -> Told {
        is_about(request, kind);
        let kind: AuthorityKind = kind
            .parse()
            .map_err(|_| Status::invalid_argument("kind must be x509 or control"))?;
        if !force && self.makes_another(kind, order) && !self.publisher.takes_authority(kind) {
            return Err(Status::failed_precondition(
                "the revocation lists leave no room for another authority: wait until certificates on them have ended, or until an old \
                 authority has left (`ca show`); `ca rotate --force` rotates all the same, and timers do",
            ));
        }
        self.ordered(kind, order, author(request.extensions())).await
    }

    /// An order about one authority, which its text names.
    async fn ordered_of_one<T>(
        &self,
        request: &Request<T>,
        authority: &str,
        order: impl FnOnce(AuthorityId) -> Order,
    ) -> Told {
        is_about(request, authority);
        let id: AuthorityId = authority.parse().map_err(|_| {
            Status::invalid_argument("an authority is named by 40 hexadecimal digits: see `ca show`")
        })?;
        let view = self.authorities.current().borrow().clone();
        let mut kinds = view.kinds();
        let kind = kinds.find(|(_, view)| {
            let stands = view.authorities.iter().any(|viewed| viewed.id() == id);
            stands || view.departed.iter().any(|departed| departed.id == id)
        });
        let unknown = || Status::not_found(Refused::Unknown(id).to_string());
        let (kind, _) = kind.ok_or_else(unknown)?;
        self.ordered(kind, order(id), author(request.extensions())).await
    }

    /// Follows an operation by its id.
    pub(super) fn watched(&self, operation: &str) -> Told {
        let unknown = || Status::not_found(format!("no operation {operation} is remembered: see `ca show`"));
        let (kind, number) = operation.rsplit_once('-').ok_or_else(unknown)?;
        let kind: AuthorityKind = kind.parse().map_err(|_| unknown())?;
        let number: u64 = number.parse().map_err(|_| unknown())?;
        let operations = self.authorities.operations();
        let mut known = operations.iter();
        if !known.any(|one| one.kind == kind && one.operation.number == number) {
            return Err(unknown());
        }
        Ok(self.told(self.authorities.follow(kind, number)))
    }

    /// Whether an order makes another authority: one that joins what is under way does not.
    fn makes_another(&self, kind: AuthorityKind, order: Order) -> bool {
        let joins = match order {
            Order::Rotate { retire: true, .. } => {
                let operations = self.authorities.operations();
                let mut running = operations
                    .iter()
                    .filter(|one| one.kind == kind && !one.operation.stage.is_end());
                running.any(|one| one.operation.verb == Verb::Retire)
            }
            Order::Prepare { .. } | Order::Rotate { .. } => false,
            Order::Activate { .. } | Order::Emergency { .. } | Order::Taint { .. } | Order::Revoke { .. } => {
                true
            }
        };
        !joins && !self.authorities.current().borrow().has_prepared_of(kind)
    }

    async fn ordered(&self, kind: AuthorityKind, order: Order, author: String) -> Told {
        let request = OrderRequest { kind, order, author };
        let steps = self.authorities.order(request).await;
        let steps = steps.map_err(|error| match &error {
            OrderError::Refused(Refused::Unknown(_)) => Status::not_found(error::chain(&error)),
            OrderError::Refused(_) => Status::failed_precondition(error::chain(&error)),
            _ => Status::unavailable(error::chain(&error)),
        })?;
        Ok(self.told(steps))
    }

    fn told(&self, mut steps: OperationSteps) -> Response<ProgressStream> {
        let (sender, receiver) = mpsc::channel(4);
        let (agents, firsts) = (self.agents.clone(), self.firsts.clone());
        signet_runtime::spans::spawn(async move {
            let mut is_first = true;
            loop {
                let next = tokio::select! {
                    next = steps.next() => next,
                    // The admin went away; it goes on without a listener.
                    () = sender.closed() => None,
                };
                let Some(report) = next else { return };
                if std::mem::take(&mut is_first)
                    && let Some(first) = convert::begun(&report)
                    && sender.send(Ok(first)).await.is_err()
                {
                    return;
                }
                if !report.is_published && report.operation.stage == Stage::Spreading {
                    continue;
                }
                let mut message = progress(&report, &agents).await;
                unwritten(&mut message, &report, &firsts);
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Response::new(ReceiverStream::new(receiver))
    }
}

async fn progress(report: &OperationReport, agents: &Arc<Agents>) -> wire::AuthorityProgress {
    let mut awaited = Vec::with_capacity(report.awaited.len());
    for one in &report.awaited {
        awaited.push(straggler(one, agents).await);
    }
    convert::progress(report, awaited)
}

/// In an emergency of the control kind: agents with the file that there is go on to believe the thief.
fn unwritten(
    shown: &mut wire::AuthorityProgress,
    report: &OperationReport,
    firsts: &watch::Receiver<Firsts>,
) {
    let operation = &report.operation;
    let is_control = (report.kind, operation.verb) == (AuthorityKind::Control, Verb::Emergency);
    if is_control && operation.stage != Stage::Spreading && firsts.borrow().unwritten {
        "trust.control_anchors_file is not written (the log says why): bring what `ca anchors` prints to the nodes, not that file"
            .clone_into(&mut shown.message);
    }
}

async fn straggler(awaited: &Awaited, agents: &Arc<Agents>) -> wire::Straggler {
    // A name that does not come leaves the id.
    let node = agents.node(&awaited.agent).await.ok().flatten();
    let status = agents.status(&awaited.agent);
    let connected = status.as_ref().is_some_and(|status| status.connected);
    let problem = status.map(|status| status.report.problem).unwrap_or_default();
    let why = match awaited.why {
        Why::Uses(count) => uses(count, connected),
        Why::NotAttested => "has not attested anew".to_owned(),
        _ if !connected => "is not connected".to_owned(),
        _ if !problem.is_empty() => format!("does not believe the bundle: {problem}"),
        Why::NotReported => "has not reported yet".to_owned(),
        Why::HasNotSaid => "has not said yet which authorities it uses".to_owned(),
    };
    wire::Straggler {
        spiffe_id: awaited.agent.to_string(),
        cluster: node.as_ref().map(|node| node.cluster.clone()).unwrap_or_default(),
        node_name: node.map(|node| node.node_name).unwrap_or_default(),
        connected,
        why,
    }
}

/// That an agent's workloads, or itself, have certificates of the authority that is replaced.
fn uses(count: u32, connected: bool) -> String {
    let certificates = if count == 1 { "certificate" } else { "certificates" };
    let away = if connected { "" } else { ", and is not connected" };
    format!("uses {count} {certificates} of the old authority{away}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uses_something_and_cannot_be_told_is_said_to_be_away() {
        assert_eq!(uses(1, true), "uses 1 certificate of the old authority");
        assert_eq!(
            uses(2, false),
            "uses 2 certificates of the old authority, and is not connected"
        );
    }
}
