//! One revocation on its way to a fleet of agents: what it costs the server, how soon all have it, and who waits meanwhile.

mod agent;
mod attest;
mod fill;
mod round;
mod state;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use signet_runtime::cli::Answer;
use signet_server::cli::admin::AdminClient;
use signet_tests::{
    agent_client::{RawAgent, new_csr},
    domain::{Domain, Plan},
    part::Launch,
};

use self::{agent::Fleet, round::Round};
use crate::{FleetArgs, process};

/// Revocations that are measured; the median counts.
const ROUNDS: usize = 3;
/// Agents of the second part, which hold a long list.
const HOLDERS: usize = 500;
/// The node whose agent issues while the others hear.
const HONEST: &str = "honest";

pub(crate) async fn measure(args: &FleetArgs) -> Result<Answer> {
    let limit = process::raise_file_limit()?;
    let agents = args.agents;
    // Each has a connection here, and one in the server.
    ensure!(
        agents + 1_000 <= limit,
        "{agents} agents need more open files than {limit}: raise the limit (ulimit -n)"
    );
    let (revoke_cpu_seconds, reached_p99_ms, issue_max_ms) = times(agents).await?;
    let (peak_rss_mib, list_bytes) = memory(HOLDERS.min(agents), args.listed).await?;
    let json = json!({
        "benchmark": "fleet",
        "revoke_cpu_seconds": hundredths(revoke_cpu_seconds),
        "reached_p99_ms": reached_p99_ms.round(),
        "issue_max_ms": issue_max_ms.round(),
        "peak_rss_mib": peak_rss_mib.round(),
        "agents": agents,
        "holders": HOLDERS.min(agents),
        "list_bytes": list_bytes,
        "rounds": ROUNDS,
        "optimised": !cfg!(debug_assertions),
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    });
    let text = format!(
        "one revocation to {agents} agents: {revoke_cpu_seconds:.2} s of CPU, 99 % reached in {reached_p99_ms:.0} ms, \
         slowest certificate meanwhile {issue_max_ms:.0} ms\na list of {list_bytes} bytes to {} agents: {peak_rss_mib:.0} MiB \
         at most\n",
        HOLDERS.min(agents)
    );
    Ok(Answer::new(json, text))
}

/// CPU seconds, 99th percentile and slowest issue, each the median of the rounds.
async fn times(agents: usize) -> Result<(f64, f64, f64)> {
    let mut bench = Bench::start(agents).await?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(bench.round(true).await?);
    }
    bench.check_server_has_heard(agents).await?;
    Ok((
        median(rounds.iter().map(|round| round.cpu)),
        median(rounds.iter().map(|round| round.p99)),
        median(rounds.iter().map(|round| round.issue_max)),
    ))
}

/// The most memory through one revocation, in MiB, and the length of the list.
async fn memory(agents: usize, listed: usize) -> Result<(f64, u64)> {
    let mut bench = Bench::empty().await?;
    let id = fill::issue(&bench.domain, listed).await?;
    bench.revoke(&id).await?;
    bench.connect(agents).await?;
    process::reset_peak(bench.pid()?)?;
    bench.round(false).await?;
    Ok((process::peak_mib(bench.pid()?)?, bench.fleet.longest_list()))
}

/// A server with its agents.
struct Bench {
    fleet: Arc<Fleet>,
    admin: AdminClient,
    honest: RawAgent,
    rounds: usize,
    domain: Domain,
}

impl Bench {
    async fn start(agents: usize) -> Result<Self> {
        let bench = Self::empty().await?;
        bench.connect(agents).await?;
        Ok(bench)
    }

    async fn empty() -> Result<Self> {
        let launch = Launch::Itself {
            level: "error".to_owned(),
            to_file: false,
        };
        let domain = Plan::default()
            .launch(launch)
            .server("/svid/max_live", json!(100_000_000))
            .server("/attestation/calls_per_second", json!(100_000))
            .server("/attestation/calls_burst", json!(100_000))
            .start()
            .await?;
        let (honest, _) = domain.raw_agent(HONEST).await?;
        Ok(Self {
            fleet: Arc::default(),
            admin: AdminClient::connect(&domain.server.admin_socket()).await?,
            honest,
            rounds: 0,
            domain,
        })
    }

    async fn connect(&self, agents: usize) -> Result<()> {
        attest::all(&self.domain, &self.fleet, agents).await?;
        self.fleet.until_open(agents).await
    }

    fn pid(&mut self) -> Result<u32> {
        let pid = self.domain.server.process()?.pid();
        pid.context("the server has ended")
    }

    async fn revoke(&mut self, spiffe_id: &str) -> Result<()> {
        let revoked = self.admin.revoke(round::revocation(spiffe_id)).await?;
        ensure!(revoked.problem.is_none(), "not published: {:?}", revoked.problem);
        Ok(())
    }

    /// One revocation: of a certificate of its own pod.
    async fn round(&mut self, with_load: bool) -> Result<Round> {
        self.rounds += 1;
        let victim = format!("victim-{}", self.rounds);
        let token = self.domain.shop_pod(&victim, HONEST)?;
        let id = self.honest.issue_good(&token).await?.spiffe_id;
        let bystander = format!("bystander-{}", self.rounds);
        let bystander = self.domain.shop_pod(&bystander, HONEST)?;
        self.honest.issue_good(&bystander).await?;
        let load = with_load.then(|| round::Load::start(self.honest.clone(), bystander, new_csr));
        // What the pods have stirred up is over.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let (fleet, pid) = (self.fleet.clone(), self.pid()?);
        let begun = round::Begun::now(&fleet, pid)?;
        self.revoke(&id).await?;
        let measured = begun.until_reached(&fleet).await?;
        let issue_max = match load {
            Some(load) => load.slowest().await?,
            None => 0.0,
        };
        Ok(Round {
            issue_max,
            ..measured
        })
    }

    /// The agents' reports have not only been sent.
    async fn check_server_has_heard(&mut self, agents: usize) -> Result<()> {
        let newest = self.fleet.newest_list();
        let listed = self.admin.agents().await?.json;
        let all = listed["agents"].as_array().context("no list of agents")?;
        let holds = |agent: &&Value| agent["pods"].as_u64() >= Some(agent::pods(newest));
        let heard = all.iter().filter(holds).count();
        ensure!(
            heard * 100 >= agents * 99,
            "the server has heard of list {newest} from {heard} of {agents} agents only"
        );
        Ok(())
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
