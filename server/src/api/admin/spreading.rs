//! Which agents hold the lists that an admin waits for.

use std::time::Duration;

use signet_certs::{authority::AuthorityId, crl::CrlNumber, id::SpiffeId};
use signet_proto::admin as wire;
use tokio::{sync::mpsc, time::interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{AdminService, store_status};
use crate::{
    agents::{AgentStatus, Agents},
    store::{AgentRow, LiveAgent},
};

/// How often it is looked who has reported.
const LOOK: Duration = Duration::from_millis(250);
/// Agents that one message names.
const MOST_NAMED: usize = 20;
/// Lists that may be waited for at once: there are a few authorities.
const MOST_LISTS: usize = 64;

/// What is waited for.
type Wanted = Vec<(AuthorityId, CrlNumber)>;

impl AdminService {
    /// One message now, and one whenever somebody has reported, came or went; ends with the last of them, or with the server.
    pub(super) fn watched_revocation(
        &self,
        request: wire::WatchRevocationRequest,
    ) -> Result<ReceiverStream<Result<wire::SpreadProgress, Status>>, Status> {
        if request.crls.len() > MOST_LISTS {
            return Err(Status::invalid_argument(format!(
                "at most {MOST_LISTS} lists at once"
            )));
        }
        let wanted = request.crls.iter().map(|crl| {
            let id = crl.authority_id.parse();
            let id = id.map_err(|e| Status::invalid_argument(format!("not an authority id: {e}")));
            Ok((id?, CrlNumber(crl.number)))
        });
        let wanted: Wanted = wanted.collect::<Result<_, Status>>()?;
        let (sender, receiver) = mpsc::channel(4);
        let (store, agents, clock) = (self.store.clone(), self.agents.clone(), self.clock.clone());
        let mut trust = self.trust.clone();
        signet_runtime::spans::spawn(async move {
            let (mut look, mut said) = (interval(LOOK), None);
            loop {
                tokio::select! {
                    _ = look.tick() => {}
                    () = sender.closed() => return,
                    // Nothing is published any more.
                    Err(_) = trust.changed() => {
                        let stopping = Status::unavailable("the server is stopping");
                        return drop(sender.send(Err(stopping)).await);
                    }
                }
                let live = store.live_agents(clock.time().earliest).await;
                let rows = store.agents().await;
                let message = match (live, rows) {
                    (Ok(live), Ok(rows)) => Ok(progress(&agents, &wanted, &live, &rows)),
                    (Err(error), _) | (_, Err(error)) => Err(store_status(error)),
                };
                if said.is_some() && said == message.as_ref().ok().cloned() {
                    continue;
                }
                let ends = message.as_ref().map_or(true, |message| message.done);
                said = message.as_ref().ok().cloned();
                if sender.send(message).await.is_err() || ends {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

fn progress(agents: &Agents, wanted: &Wanted, live: &[LiveAgent], rows: &[AgentRow]) -> wire::SpreadProgress {
    let status = |agent: &LiveAgent| agents.status(&agent.spiffe_id);
    let behind: Vec<_> = live
        .iter()
        .map(|agent| (agent, status(agent)))
        .filter(|(_, status)| !holds(status.as_ref(), wanted))
        .collect();
    let awaited = behind.iter().take(MOST_NAMED);
    let awaited =
        awaited.map(|(agent, status)| straggler(agent, status.as_ref(), node_of(rows, &agent.spiffe_id)));
    wire::SpreadProgress {
        agents: count(live.len()),
        agents_reported: count(live.len() - behind.len()),
        awaited: awaited.collect(),
        awaited_total: count(behind.len()),
        done: behind.is_empty(),
    }
}

/// Whether it has reported each of these lists, or a later one. What it said before its stream broke counts: it keeps what it has.
fn holds(status: Option<&AgentStatus>, wanted: &Wanted) -> bool {
    let Some(status) = status else {
        return wanted.is_empty();
    };
    wanted.iter().all(|(authority, number)| {
        let mut crls = status.report.crls.iter();
        crls.any(|(of, held, _)| of == authority && held >= number)
    })
}

fn straggler(agent: &LiveAgent, status: Option<&AgentStatus>, node_name: &str) -> wire::Straggler {
    wire::Straggler {
        spiffe_id: agent.spiffe_id.to_string(),
        cluster: agent.cluster.clone(),
        node_name: node_name.to_owned(),
        connected: status.is_some_and(|status| status.connected),
        why: status
            .map(|status| status.report.problem.clone())
            .unwrap_or_default(),
    }
}

fn node_of<'a>(rows: &'a [AgentRow], agent: &SpiffeId) -> &'a str {
    let row = rows.iter().find(|row| row.spiffe_id == *agent);
    row.map_or("", |row| &row.node_name)
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
