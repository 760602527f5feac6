//! Which agents hold the lists that an admin waits for.

use std::{sync::Arc, time::Duration};

use signet_certs::{authority::AuthorityId, crl::CrlNumber, id::SpiffeId};
use signet_proto::admin as wire;
use tokio::{sync::mpsc, time::interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{AdminService, store_status};
use crate::{agents::Agents, store::StoreError};

/// How often it is looked who has reported.
const LOOK: Duration = Duration::from_millis(250);
/// Agents that one message names.
const MOST_NAMED: usize = 20;
/// Lists that may be waited for at once: there are a few authorities.
const MOST_LISTS: usize = 64;

impl AdminService {
    /// One message now, and one whenever somebody has reported, came or went; ends with the last of them, or with the server.
    pub(super) async fn watched_revocation(
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
        let wanted = wanted.collect::<Result<Vec<_>, Status>>()?;
        // Whoever was denied a moment ago is waited for by nobody.
        let earliest = self.clock.time().earliest;
        self.agents.refresh_spread(earliest).await.map_err(store_status)?;
        let (sender, receiver) = mpsc::channel(4);
        let waiting = Waiting {
            agents: self.agents.clone(),
            wanted,
        };
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
                let now = waiting.progress().await.map_err(store_status);
                let message = now.as_ref().ok().cloned();
                if message.is_some() && message == said {
                    continue;
                }
                said = message;
                let ends = now.as_ref().map_or(true, |message| message.done);
                if sender.send(now).await.is_err() || ends {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

struct Waiting {
    agents: Arc<Agents>,
    wanted: Vec<(AuthorityId, CrlNumber)>,
}

impl Waiting {
    async fn progress(&self) -> Result<wire::SpreadProgress, StoreError> {
        let live = self.agents.spread().borrow().clone();
        let all = live.waited_for(u64::MAX);
        let mut behind: Vec<&SpiffeId> = all
            .filter(|agent| !self.agents.holds(agent, &self.wanted))
            .collect();
        behind.sort_unstable();
        let mut awaited = Vec::new();
        for agent in behind.iter().take(MOST_NAMED) {
            awaited.push(self.straggler(agent).await?);
        }
        Ok(wire::SpreadProgress {
            agents: count(live.live()),
            agents_reported: count(live.live() - behind.len()),
            awaited,
            awaited_total: count(behind.len()),
            done: behind.is_empty(),
        })
    }

    async fn straggler(&self, agent: &SpiffeId) -> Result<wire::Straggler, StoreError> {
        let node = self.agents.node(agent).await?;
        let status = self.agents.status(agent);
        Ok(wire::Straggler {
            spiffe_id: agent.to_string(),
            connected: status.as_ref().is_some_and(|status| status.connected),
            why: status.map(|status| status.report.problem).unwrap_or_default(),
            cluster: node.as_ref().map(|node| node.cluster.clone()).unwrap_or_default(),
            node_name: node.map(|node| node.node_name).unwrap_or_default(),
        })
    }
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
