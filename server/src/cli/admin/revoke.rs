//! Revoking, and who is denied.

use std::time::Duration;

use signet_certs::time::unix_millis;
use signet_proto::admin::{self as wire, revoke_request as request};
use signet_runtime::cli::Answer;

use super::{AdminClient, render, said, time};

/// A revocation as asked for on the command line.
#[derive(Clone, Debug, Default)]
pub struct Revoke {
    /// What.
    pub target: Option<Target>,
    /// Authority of a serial.
    pub authority: Option<String>,
    /// Cluster of a pod or a node.
    pub cluster: Option<String>,
    /// RFC 5280 name.
    pub reason: String,
    /// Since when its holder is not to be believed, RFC 3339.
    pub invalid_since: Option<String>,
    /// Free text.
    pub comment: String,
    /// Life of the denial.
    pub expires: Option<Duration>,
    /// Deny nothing.
    pub keep_issuing: bool,
    /// Allow a target of the control plane, and one that nobody has heard of.
    pub force: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// What is revoked.
#[derive(Clone, Debug)]
pub enum Target {
    /// Serial number, hex.
    Serial(String),
    /// SPIFFE ID or its path.
    SpiffeId(String),
    /// SPIFFE ID or its path, and all below it.
    Prefix(String),
    /// `namespace/name` or UID of a pod.
    Pod(String),
    /// Name or UID of a node.
    Node(String),
    /// Id of an authority.
    IssuedBy(String),
}

impl From<Target> for request::Target {
    fn from(target: Target) -> Self {
        match target {
            Target::Serial(serial) => Self::Serial(serial),
            Target::SpiffeId(id) => Self::SpiffeId(id),
            Target::Prefix(id) => Self::Prefix(id),
            Target::Pod(pod) => Self::Pod(pod),
            Target::Node(node) => Self::Node(node),
            Target::IssuedBy(authority) => Self::IssuedBy(authority),
        }
    }
}

/// Since when, in milliseconds; 0 and less say nothing, and lists go by whole seconds.
fn since(text: &str) -> anyhow::Result<i64> {
    let since = unix_millis(time(text)?);
    anyhow::ensure!(
        since >= 1000,
        "`{text}` is before anything was issued: --invalid-since takes a time after 1970, and leave it out where nobody knows"
    );
    Ok(since)
}

/// How long a denial lasts; 0 would be for ever.
fn whole_seconds(life: Duration) -> anyhow::Result<u64> {
    let seconds = life.as_secs() + u64::from(life.subsec_nanos() > 0);
    anyhow::ensure!(
        life >= Duration::from_secs(1),
        "--expires is shorter than a second: a denial would be over before anybody was denied; leave it out for one without end"
    );
    Ok(seconds)
}

impl AdminClient {
    /// Revokes.
    ///
    /// # Errors
    /// What the server answered: then nothing was recorded.
    pub async fn revoke(&mut self, revoke: Revoke) -> anyhow::Result<Answer> {
        Ok(self.revoked(revoke).await?.0)
    }

    /// Revokes, tells `progress` what was done and which agents have not reported the lists, and ends when all have.
    ///
    /// # Errors
    /// What the server answered: then nothing was recorded.
    pub async fn revoke_and_wait(
        &mut self,
        revoke: Revoke,
        progress: impl Fn(&str),
    ) -> anyhow::Result<Answer> {
        let (answer, crls) = self.revoked(revoke).await?;
        // Whoever leaves before the end has read how it is lifted.
        progress(answer.text.trim_end());
        if crls.is_empty() {
            return Ok(render::nothing_to_report(answer));
        }
        let reported = self.reported(crls, progress).await;
        Ok(render::and_reported(answer, reported))
    }

    async fn revoked(&mut self, revoke: Revoke) -> anyhow::Result<(Answer, Vec<wire::PublishedCrl>)> {
        let dry_run = revoke.dry_run;
        let since = revoke.invalid_since.as_deref().map(since).transpose()?;
        let expires = revoke.expires.map(whole_seconds).transpose()?;
        let request = wire::RevokeRequest {
            target: revoke.target.map(request::Target::from),
            authority_id: revoke.authority.unwrap_or_default(),
            cluster: revoke.cluster.unwrap_or_default(),
            reason: revoke.reason,
            comment: revoke.comment,
            expires_after_seconds: expires.unwrap_or(0),
            keep_issuing: revoke.keep_issuing,
            force: revoke.force,
            dry_run,
            invalid_from_unix_ms: since.unwrap_or(0),
        };
        let response = self.inner.revoke(request).await.map_err(said)?.into_inner();
        if dry_run {
            return Ok((render::would_revoke(&response), Vec::new()));
        }
        let agents = self.agents_of(&response).await;
        Ok((render::revoked(&response, &agents), response.crls))
    }

    /// Denies an agent, by its SPIFFE ID or its node, whatever it has.
    ///
    /// # Errors
    /// No such agent, several, or what the server answered: then nothing was recorded.
    pub async fn ban(&mut self, agent: &str, order: Revoke) -> anyhow::Result<Answer> {
        let listed = self.inner.list_agents(wire::ListAgentsRequest {}).await;
        let agents = listed.map_err(said)?.into_inner().agents;
        let is_it = |known: &&wire::AgentRecord| {
            let named = [&known.spiffe_id, &known.node_name, &known.node_uid];
            named.iter().any(|name| *name == agent)
                || agent.starts_with('/') && known.spiffe_id.ends_with(agent)
        };
        let mut found: Vec<String> = agents
            .iter()
            .filter(is_it)
            .map(|known| known.spiffe_id.clone())
            .collect();
        let id = match (found.pop(), found.is_empty()) {
            (Some(id), true) => id,
            (Some(last), false) => anyhow::bail!(
                "several agents are of a node {agent}: name one by its SPIFFE ID ({}, {last})",
                found.join(", ")
            ),
            // It has never been here, and shall not be.
            (None, _) if agent.contains("/signet/agent/") => agent.to_owned(),
            (None, _) => anyhow::bail!(
                "no agent {agent} has attested: `signet-server agent list` shows those that have"
            ),
        };
        let target = Some(Target::SpiffeId(id));
        self.revoke(Revoke { target, ..order }).await
    }

    /// Tells `progress` which agents have not reported these lists, whenever that changes, until all have.
    async fn reported(
        &mut self,
        crls: Vec<wire::PublishedCrl>,
        progress: impl Fn(&str),
    ) -> anyhow::Result<wire::SpreadProgress> {
        let watched = self
            .inner
            .watch_revocation(wire::WatchRevocationRequest { crls })
            .await;
        let mut steps = watched.map_err(said)?.into_inner();
        while let Some(step) = steps.message().await.map_err(said)? {
            progress(&render::spread(&step));
            if step.done {
                return Ok(step);
            }
        }
        anyhow::bail!("the server has stopped telling")
    }

    /// The agents whose certificates were revoked. What does not come says less, and the revocation stands.
    async fn agents_of(&mut self, response: &wire::RevokeResponse) -> Vec<wire::AgentRecord> {
        let is_agent = |svid: &wire::RevokedSvid| svid.spiffe_id.contains("/signet/agent/");
        if !response.revoked.iter().any(is_agent) {
            return Vec::new();
        }
        let listed = self.inner.list_agents(wire::ListAgentsRequest {}).await;
        let agents = listed
            .map(|listed| listed.into_inner().agents)
            .unwrap_or_default();
        let named = |agent: &wire::AgentRecord| {
            response
                .revoked
                .iter()
                .any(|svid| svid.spiffe_id == agent.spiffe_id)
        };
        agents.into_iter().filter(named).collect()
    }

    /// Lifts a denial.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn allow(&mut self, denial_id: String) -> anyhow::Result<Answer> {
        let response = self
            .inner
            .allow(wire::AllowRequest { denial_id })
            .await
            .map_err(said)?
            .into_inner();
        Ok(render::denials(response.denial.as_slice()))
    }

    /// Denials.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn denials(&mut self, include_lifted: bool) -> anyhow::Result<Answer> {
        let response = self
            .inner
            .list_denials(wire::ListDenialsRequest { include_lifted })
            .await
            .map_err(said)?;
        Ok(render::denials(&response.into_inner().denials))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_taken_for_no_time_at_all_is_refused() {
        assert!(whole_seconds(Duration::from_millis(500)).is_err() && whole_seconds(Duration::ZERO).is_err());
        assert_eq!(
            whole_seconds(Duration::from_millis(1500)).unwrap(),
            2,
            "never shorter than asked for"
        );
        for text in [
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "0001-01-01T00:00:00Z",
        ] {
            assert!(since(text).is_err(), "{text}");
        }
        assert_eq!(since("1970-01-01T00:00:01Z").unwrap(), 1000);
    }
}
