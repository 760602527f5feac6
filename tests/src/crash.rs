//! The real server, killed at random moments while certificates are issued, revoked and authorities change, and what must be true
//! whenever it is there again.

mod load;
mod promised;

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use signet_proto::admin::ListAgentsRequest;
use signet_proto::admin::admin_client::AdminClient;
use tonic::transport::Channel;

use self::load::Load;
use self::promised::Promised;
use crate::domain::{Agent, Domain, Plan};
use crate::kubelet::Volume;
use crate::uds;
use crate::wait::{PATIENCE, within};
use crate::workload::Identity;

/// The agent that has to find its way back.
const NODE: &str = "node-a";
/// How long a life lasts once the server is ready, in milliseconds.
const LIFE: Range<u64> = 0..900;
/// How long a start may go on that is killed before it is ready, in milliseconds.
const START: Range<u64> = 0..400;
/// Whether the agent came back is looked at after each so many lives: it waits between its attempts.
const LIVES_OF_AN_AGENT: u32 = 5;

/// A trust domain whose server is killed again and again.
pub struct Crash {
    domain: Domain,
    agent: Agent,
    volume: Volume,
    load: Load,
    promised: Promised,
    random: fastrand::Rng,
    lives: u32,
}

impl Crash {
    /// A box with an agent, a workload and pods for the load. The same seed draws the same moments.
    ///
    /// # Errors
    /// What is in the way of the box.
    pub async fn prepare(seed: u64) -> Result<Self> {
        // Old authorities stay while anything they signed may be believed.
        let plan = Plan::default().server("/authority/spread_max", json!("5s"));
        let domain = plan.start().await?;
        let agent = domain.agent(NODE).await?;
        domain.shop_pod("front", NODE)?;
        let volume = agent.publish("shop", "front").await?;
        agent
            .workload(&volume)
            .fetch()
            .await
            .context("a first identity")?;
        let load = Load::of(&domain).await?;
        Ok(Self {
            domain,
            agent,
            volume,
            load,
            promised: Promised::default(),
            random: fastrand::Rng::with_seed(seed),
            lives: 0,
        })
    }

    /// One life of the server under load, its end, and the next start, after which everything that was promised holds.
    ///
    /// # Errors
    /// What does not hold, or what the server says when it does not start.
    pub async fn life(&mut self) -> Result<()> {
        self.lives += 1;
        let authorities = self.brought_about().authorities;
        let running = self.load.begin(&self.domain, authorities, &mut self.random);
        tokio::time::sleep(Duration::from_millis(self.random.u64(LIFE))).await;
        self.domain.server.kill().await;
        self.promised.take(running.end().await?);
        // Every few starts are cut as well, in the middle of what a start has to put right.
        while self.random.u8(0..4) == 0 {
            self.domain.server.spawn()?;
            tokio::time::sleep(Duration::from_millis(self.random.u64(START))).await;
            self.domain.server.kill().await;
        }
        self.domain.server.start().await?;
        let mut admin = self.admin().await?;
        self.promised.check(&mut admin, self.load.pods()).await?;
        if self.lives.is_multiple_of(LIVES_OF_AN_AGENT) {
            self.check_agent(&mut admin).await?;
        }
        Ok(())
    }

    /// What the load has brought about so far, for whoever wants to know that there was some.
    pub fn brought_about(&self) -> BroughtAbout {
        self.promised.brought_about()
    }

    async fn admin(&self) -> Result<AdminClient<Channel>> {
        let channel = uds::connect(&self.domain.server.admin_socket()).await?;
        Ok(AdminClient::new(channel).max_decoding_message_size(64 << 20))
    }

    /// The agent comes back by itself, its workload has what it had or newer, and knows of everything that was revoked.
    async fn check_agent(&self, admin: &mut AdminClient<Channel>) -> Result<()> {
        let mut admin = admin.clone();
        let connected = within(PATIENCE, async || {
            let agents = admin.list_agents(ListAgentsRequest {}).await.ok()?.into_inner();
            let ours = agents.agents.into_iter().find(|agent| agent.node_name == NODE)?;
            ours.connected.then_some(())
        });
        connected.await.context("the agent does not come back")?;
        let workload = self.agent.workload(&self.volume);
        let knows = |identity: &Identity| self.promised.is_known_to(identity);
        let told = within(PATIENCE, async || workload.fetch().await.ok().filter(knows));
        ensure!(
            told.await.is_some(),
            "the workload is not told of everything that was revoked"
        );
        Ok(())
    }
}

/// How much there was to lose.
#[derive(Clone, Copy, Debug, Default)]
pub struct BroughtAbout {
    /// Certificates that left the server.
    pub issued: usize,
    /// Revocations that were answered as published.
    pub revoked: usize,
    /// Denials, lifted or not.
    pub denied: usize,
    /// Authorities that were seen.
    pub authorities: usize,
    /// Those of them that were seen to sign.
    pub signed: usize,
}
