//! The load: as many requests under way as asked for, each answered in full before the next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use signet_proto::agent::issue_result::Outcome;
use signet_tests::agent_client::{RawAgent, new_csr, pod_item};
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    IssueArgs,
    domain::{Agent, Domain},
    limit,
    process::{self, now},
    report::{Limit, LimitSlice, Measured, Report},
};

/// Certificates in a large request.
const BATCH: usize = 64;
/// CSRs made before the clock starts, and used in turn.
const CSRS: usize = 4096;
/// Runs before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);

/// Slices of each load. The limit is measured between them: a machine that others use is as fast for the one as for the other.
const SLICES: u32 = 5;

pub(crate) async fn measure(args: &IssueArgs) -> anyhow::Result<Report> {
    let seconds = args.seconds.clamp(1, 15);
    let bench = Bench {
        csrs: Arc::new((0..CSRS).map(|_| new_csr()).collect::<anyhow::Result<_>>()?),
        domain: Domain::start().await?,
        slice: Duration::from_secs(seconds) / SLICES,
    };
    let (mut batched, mut single) = (Measured::default(), Measured::default());
    let mut limit = Limit::default();
    for number in 0..SLICES {
        let seed = args.seed.wrapping_add(u64::from(number) << 32);
        limit.add(bench.limit().await?);
        batched.add(bench.load(args.batches, BATCH, seed).await?);
        limit.add(bench.limit().await?);
        single.add(bench.load(args.singles, 1, seed).await?);
    }
    limit.add(bench.limit().await?);
    Ok(Report {
        batched: batched.load(BATCH),
        single: single.load(1),
        batch: BATCH,
        limit,
        seed: args.seed,
        seconds,
    })
}

struct Bench {
    csrs: Arc<Vec<Vec<u8>>>,
    domain: Domain,
    slice: Duration,
}

impl Bench {
    /// Between two slices of loads. There are twice as many as of each load, so each is half as long.
    async fn limit(&self) -> anyhow::Result<LimitSlice> {
        let (slice, own) = (self.slice / 2, std::process::id());
        let before = process::cpu_seconds(own)?;
        let per_second = tokio::task::spawn_blocking(move || limit::per_second(slice)).await??;
        let cpu = process::cpu_seconds(own)? - before;
        let pairs = per_second * slice.as_secs_f64();
        Ok(LimitSlice {
            pairs,
            time: slice,
            cpu,
        })
    }

    /// One slice of a load.
    async fn load(&self, under_way: usize, size: usize, seed: u64) -> anyhow::Result<Measured> {
        let start = now() + WARM_UP;
        let end = start + self.slice;
        let mut callers = JoinSet::new();
        for caller in 0..under_way.max(1) {
            let agent = &self.domain.agents[caller % self.domain.agents.len()];
            let work = Caller {
                connection: agent.connection.clone(),
                tokens: tokens(agent),
                csrs: self.csrs.clone(),
                random: seed
                    .wrapping_add(caller as u64)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                    | 1,
                size,
            };
            callers.spawn(work.run(start, end));
        }
        let server = cpu_between(self.domain.server, start, end);
        let client = cpu_between(std::process::id(), start, end);
        let (server_cpu, client_cpu) = tokio::try_join!(server, client)?;
        let mut latencies = Vec::new();
        while let Some(done) = callers.join_next().await {
            latencies.extend(done??);
        }
        ensure!(!latencies.is_empty(), "no request was answered in time");
        Ok(Measured {
            latencies,
            time: self.slice,
            server_cpu,
            client_cpu,
        })
    }
}

/// Seconds that a process was on the CPU between two moments.
async fn cpu_between(process: u32, start: Instant, end: Instant) -> anyhow::Result<f64> {
    sleep_until(start.into()).await;
    let before = process::cpu_seconds(process)?;
    sleep_until(end.into()).await;
    Ok(process::cpu_seconds(process)? - before)
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
