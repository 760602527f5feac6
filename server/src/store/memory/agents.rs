//! Node agents: the generations of their certificates.

use std::time::SystemTime;

use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::kept::Kept;
use crate::store::{
    AgentRow, Attestation, Generation, Generations, IssueRefusal, LiveAgent, NewIssuance, Presented,
    PresentedCertificate, RevokeRequest, Standing, Subject,
};

impl Kept {
    fn generations(&self, agent: &SpiffeId) -> Generations {
        self.agents
            .get(agent)
            .map_or_else(Generations::default, |row| row.generations)
    }

    /// An agent as denials hit it: by its name, or by its node.
    fn agent_subject<'a>(&'a self, agent: &'a SpiffeId) -> Subject<'a> {
        let mut rows = self.rows.iter().rev().map(|row| &row.workload);
        let bare = Subject::of_agent(agent);
        rows.find(|row| row.spiffe_id == *agent)
            .map_or(bare, Subject::from)
    }

    fn standing(
        &self,
        agent: &SpiffeId,
        serial: &SerialNumber,
        earliest: SystemTime,
    ) -> (Standing, Generation) {
        let of_agent = self.certificates.get(serial).filter(|(owner, _)| owner == agent);
        let generation = of_agent.map(|(_, generation)| *generation);
        let denial = self.denial_of(&self.agent_subject(agent), earliest);
        let denied = denial.map(|denial| denial.id.as_str());
        let standing = self.generations(agent).standing(generation, denied);
        (standing, generation.unwrap_or_default())
    }

    /// Judges the agent that asks.
    pub(super) fn judge_caller(
        &self,
        serial: &SerialNumber,
        earliest: SystemTime,
    ) -> Result<(), IssueRefusal> {
        let Some((agent, _)) = self.certificates.get(serial) else {
            return Err(IssueRefusal::Caller(Standing::Unknown));
        };
        match self.standing(agent, serial, earliest) {
            (Standing::Counts, _) => Ok(()),
            (lost, _) => Err(IssueRefusal::Caller(lost)),
        }
    }

    /// Notes that a certificate of an agent was recorded: it is the newest.
    pub(super) fn attested(&mut self, item: &NewIssuance, attestation: &Attestation, epoch: u64) {
        let agent = &item.workload.spiffe_id;
        let generations = self.generations(agent).with_another(epoch);
        let known = self.agents.get(agent);
        let pod_uid = match known {
            Some(known) if attestation.pod_uid.is_empty() => known.pod_uid.clone(),
            _ => attestation.pod_uid.clone(),
        };
        let reported = known.map_or(0, |known| known.reported);
        self.certificates
            .insert(item.serial, (agent.clone(), generations.issued));
        let row = AgentRow {
            spiffe_id: agent.clone(),
            cluster: attestation.cluster.clone(),
            node_name: item.workload.node_name.clone(),
            node_uid: item.workload.node_uid.clone(),
            serial: item.serial,
            authority: item.authority,
            attested_at: attestation.attested_at,
            expires_at: item.not_after,
            pod_uid,
            reported,
            generations,
        };
        self.agents.insert(agent.clone(), row);
    }

    pub(super) fn live_agents(&self, now: SystemTime) -> Vec<LiveAgent> {
        let denied = |agent: &LiveAgent| {
            self.denial_of(&self.agent_subject(&agent.spiffe_id), now)
                .is_some()
        };
        let live = self.agents.values().cloned().filter_map(|row| row.live(now));
        live.filter(|agent| !denied(agent)).collect()
    }

    pub(super) fn reported(&mut self, reports: Vec<(SpiffeId, u64)>) {
        for (agent, sequence) in reports {
            if let Some(row) = self.agents.get_mut(&agent) {
                row.reported = sequence;
            }
        }
    }

    pub(super) fn present(&mut self, certificate: &PresentedCertificate, now: SystemTime) -> Presented {
        let agent = &certificate.spiffe_id;
        let (mut standing, generation) = self.standing(agent, &certificate.serial, certificate.earliest);
        let entry = (certificate.authority, certificate.serial);
        if standing == Standing::Unknown && self.revocations.contains_key(&entry) {
            standing = Standing::Revoked;
        }
        let used = self.generations(agent).used;
        let first_use = standing == Standing::Counts && generation > used && certificate.not_after > now;
        if let Some(row) = self.agents.get_mut(agent).filter(|_| first_use) {
            row.generations.used = generation;
        }
        Presented {
            standing,
            generation,
            supersedes: first_use && used > Generation::default(),
        }
    }

    /// What a revocation takes from agents, for good.
    pub(super) fn revoke_agents(
        &mut self,
        request: &RevokeRequest,
        serials: impl Iterator<Item = SerialNumber>,
    ) {
        let mut revoked: Vec<_> = serials
            .filter_map(|serial| self.certificates.get(&serial).cloned())
            .collect();
        if let Some(target) = request.target.as_denial() {
            let hit = self
                .agents
                .iter()
                .filter(|(id, _)| target.hits(&self.agent_subject(id)));
            revoked.extend(hit.map(|(id, row)| (id.clone(), row.generations.issued)));
        }
        for (agent, generation) in revoked {
            if let Some(row) = self.agents.get_mut(&agent) {
                let newest = &mut row.generations.revoked_up_to;
                *newest = generation.max(*newest);
            }
        }
    }
}
