//! The load: as many requests under way as asked for, each answered in full before the next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use signet_proto::agent::issue_result::Outcome;
use signet_tests::agent_client::{RawAgent, new_csr, pod_item};
use tokio::task::JoinSet;

use crate::{
    IssueArgs,
    domain::{Agent, Domain},
    limit,
    report::{Load, Report},
};

/// Certificates in a large request.
const BATCH: usize = 64;
/// CSRs made before the clock starts, and used in turn.
const CSRS: usize = 4096;
/// Runs before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);

pub(crate) async fn measure(args: &IssueArgs) -> anyhow::Result<Report> {
    let seconds = Duration::from_secs(args.seconds.clamp(1, 15));
    let csrs: Arc<Vec<Vec<u8>>> = Arc::new((0..CSRS).map(|_| new_csr()).collect::<anyhow::Result<_>>()?);
    let domain = Domain::start().await?;
    let batched = load(&domain, &csrs, args.batches, BATCH, seconds, args.seed).await?;
    let single = load(&domain, &csrs, args.singles, 1, seconds, args.seed).await?;
    drop(domain);
    let crypto_limit = tokio::task::spawn_blocking(move || limit::per_second(seconds)).await??;
    Ok(Report {
        batched,
        single,
        batch: BATCH,
        crypto_limit,
        seed: args.seed,
        seconds: seconds.as_secs(),
    })
}

async fn load(
    domain: &Domain,
    csrs: &Arc<Vec<Vec<u8>>>,
    under_way: usize,
    size: usize,
    duration: Duration,
    seed: u64,
) -> anyhow::Result<Load> {
    let start = now() + WARM_UP;
    let end = start + duration;
    let mut callers = JoinSet::new();
    for caller in 0..under_way.max(1) {
        let agent = &domain.agents[caller % domain.agents.len()];
        let work = Caller {
            connection: agent.connection.clone(),
            tokens: tokens(agent),
            csrs: csrs.clone(),
            random: seed
                .wrapping_add(caller as u64)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                | 1,
            size,
        };
        callers.spawn(work.run(start, end));
    }
    let mut latencies = Vec::new();
    while let Some(done) = callers.join_next().await {
        latencies.extend(done??);
    }
    ensure!(!latencies.is_empty(), "no request was answered in time");
    latencies.sort_unstable();
    Ok(Load::new(&latencies, size, duration))
}

fn tokens(agent: &Agent) -> Arc<Vec<String>> {
    Arc::new(agent.tokens.clone())
}

struct Caller {
    connection: RawAgent,
    tokens: Arc<Vec<String>>,
    csrs: Arc<Vec<Vec<u8>>>,
    random: u64,
    size: usize,
}

impl Caller {
    /// Latencies of the requests that were answered between `start` and `end`.
    async fn run(mut self, start: Instant, end: Instant) -> anyhow::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        loop {
            let items = (0..self.size)
                .map(|_| self.item())
                .collect::<anyhow::Result<Vec<_>>>()?;
            let sent = now();
            let results = self.connection.issue(items).await?;
            let answered = now();
            ensure!(
                results.len() == self.size,
                "{} results for {} items",
                results.len(),
                self.size
            );
            for result in results {
                ensure!(
                    matches!(result.outcome, Some(Outcome::Issued(_))),
                    "a certificate was refused: {result:?}"
                );
            }
            if answered >= end {
                return Ok(latencies);
            }
            if answered >= start {
                latencies.push(answered - sent);
            }
        }
    }

    fn item(&mut self) -> anyhow::Result<signet_proto::agent::IssueItem> {
        let csr = self.pick(self.csrs.len());
        let token = self.pick(self.tokens.len());
        let csr = self.csrs.get(csr).context("no CSR")?.clone();
        Ok(pod_item(csr, self.tokens.get(token).context("no token")?))
    }

    /// xorshift64: which CSR and which pod, the same for the same seed.
    fn pick(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % below as u64).unwrap_or(0)
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
