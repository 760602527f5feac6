//! Which agents hold the lists that an admin waits for.

use std::{collections::BTreeSet, time::Duration};

use signet_certs::{authority::AuthorityId, crl::CrlNumber, id::SpiffeId};
use signet_proto::admin as wire;
use tokio::{sync::mpsc, time::interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{AdminService, store_status};
use crate::{agents::Agents, store::StoreError, trust::TrustSnapshot};

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
        let agents = self.agents.clone();
        let mut waiting = Waiting {
            wanted,
            reported: BTreeSet::new(),
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
                let lists = trust.borrow_and_update().clone();
                let now = waiting.progress(&agents, &lists).await.map_err(store_status);
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
    wanted: Vec<(AuthorityId, CrlNumber)>,
    /// Who has reported all of it: what an agent has it keeps, whatever becomes of its stream and of what is known of that.
    reported: BTreeSet<SpiffeId>,
}

impl Waiting {
    async fn progress(
        &mut self,
        agents: &Agents,
        lists: &TrustSnapshot,
    ) -> Result<wire::SpreadProgress, StoreError> {
        let live = agents.spread().borrow().clone();
        let holds = |agent: &SpiffeId, wanted: &[_]| agents.holds(agent, wanted);
        let behind = self.behind(live.waited_for(u64::MAX), |id| lists.get(id).is_some(), holds);
        let mut awaited = Vec::new();
        for agent in behind.iter().take(MOST_NAMED) {
            awaited.push(straggler(agents, agent).await?);
        }
        Ok(wire::SpreadProgress {
            agents: count(live.live()),
            agents_reported: count(live.live() - behind.len()),
            awaited,
            awaited_total: count(behind.len()),
            done: behind.is_empty(),
        })
    }

    /// Those of these that have not reported what is wanted, without what no list of is published any more: nobody gets that.
    fn behind<'a>(
        &mut self,
        all: impl Iterator<Item = &'a SpiffeId>,
        is_listed: impl Fn(AuthorityId) -> bool,
        holds: impl Fn(&SpiffeId, &[(AuthorityId, CrlNumber)]) -> bool,
    ) -> Vec<&'a SpiffeId> {
        self.wanted.retain(|(authority, _)| is_listed(*authority));
        let mut behind = Vec::new();
        for agent in all {
            if self.reported.contains(agent) {
                continue;
            }
            if self.wanted.is_empty() || holds(agent, &self.wanted) {
                self.reported.insert(agent.clone());
            } else {
                behind.push(agent);
            }
        }
        behind.sort_unstable();
        behind
    }
}

async fn straggler(agents: &Agents, agent: &SpiffeId) -> Result<wire::Straggler, StoreError> {
    let node = agents.node(agent).await?;
    let status = agents.status(agent);
    Ok(wire::Straggler {
        spiffe_id: agent.to_string(),
        connected: status.as_ref().is_some_and(|status| status.connected),
        why: status.map(|status| status.report.problem).unwrap_or_default(),
        cluster: node.as_ref().map(|node| node.cluster.clone()).unwrap_or_default(),
        node_name: node.map(|node| node.node_name).unwrap_or_default(),
    })
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/signet/agent/c/{name}")).unwrap()
    }

    fn authority(n: u8) -> AuthorityId {
        AuthorityId::from_bytes([n; 20])
    }

    #[test]
    fn a_list_that_is_gone_is_waited_for_by_nobody_and_who_has_reported_is_not_asked_again() {
        let (one, two) = (agent("one"), agent("two"));
        let mut waiting = Waiting {
            wanted: vec![(authority(1), CrlNumber(5)), (authority(2), CrlNumber(7))],
            reported: BTreeSet::new(),
        };
        let mut behind = |listed: &[u8], holders: &[&SpiffeId]| {
            let is_listed = |id| listed.iter().any(|n| authority(*n) == id);
            let holds = |agent: &SpiffeId, _: &[_]| holders.contains(&agent);
            let behind = waiting.behind([&two, &one].into_iter(), is_listed, holds);
            (
                behind.into_iter().cloned().collect::<Vec<_>>(),
                waiting.wanted.clone(),
            )
        };
        let (all, wanted) = behind(&[1, 2], &[]);
        assert_eq!((all, wanted.len()), (vec![one.clone(), two.clone()], 2));
        assert_eq!(behind(&[1, 2], &[&one]).0, std::slice::from_ref(&two));
        let (left, wanted) = behind(&[2], &[]);
        assert_eq!(
            left,
            std::slice::from_ref(&two),
            "what `one` has reported it keeps"
        );
        assert_eq!(wanted, [(authority(2), CrlNumber(7))]);
        assert!(
            behind(&[], &[]).0.is_empty(),
            "an authority that has left takes its list along"
        );
    }
}
