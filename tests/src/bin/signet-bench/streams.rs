//! Idle streams on the workload sockets of one agent: what each holds of its memory, and how soon all of them have what is new.

mod client;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use signet_runtime::cli::Answer;
use signet_server::cli::admin::{AdminClient, Revoke, Target};
use signet_tests::{
    domain::{self, Agent, Plan},
    fake_kube::PodSpec,
    part::Launch,
};

use self::client::Clients;
use crate::{StreamsArgs, process};

/// Pods, each with a socket.
const PODS: usize = 20;
/// Streams of one connection, where they share one.
const SHARING: usize = 50;
/// Connections of one pod, where each stream has one of its own.
const ALONE: usize = 50;
/// Pushes that are measured; the median counts.
const ROUNDS: usize = 5;
/// What a connection needs beside itself: files of the server, of the fake API, of this process.
const SPARE_FILES: usize = 200;

pub(crate) async fn measure(args: &StreamsArgs) -> Result<Answer> {
    let limit = process::raise_file_limit()?;
    let bench = Bench::start().await?;
    let alone = bench
        .memory_of(ALONE.min(limit.saturating_sub(SPARE_FILES) / PODS / 2), 1)
        .await?;
    let each = args.streams / PODS;
    let files = (limit.saturating_sub(SPARE_FILES) / PODS / 2) * SHARING;
    let (streams, before, after) = bench.open(each.min(files), SHARING).await?;
    let reached = streams.count();
    let shared = per(after.saturating_sub(before), reached);
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        rounds.push(bench.push(&streams, round).await?);
    }
    rounds.sort_unstable();
    let push = rounds[ROUNDS / 2];
    let json = json!({
        "benchmark": "streams",
        "idle_streams": reached,
        "bytes_per_stream_shared": shared,
        "bytes_per_connection": alone,
        "push_all_ms": push.as_millis(),
        "pods": PODS,
        "streams_of_a_connection": SHARING,
        "open_files": limit,
        "rounds": ROUNDS,
        "optimised": !cfg!(debug_assertions),
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    });
    let text = format!(
        "{reached} idle streams over {PODS} sockets: {shared} bytes each, {SHARING} sharing a connection; {alone} bytes each with a \
         connection of its own; a new list is with all after {} ms\n",
        push.as_millis()
    );
    Ok(Answer::new(json, text))
}

/// The pod whose identity is revoked in a round.
fn victim(round: usize) -> String {
    format!("victim-{round}")
}

fn per(bytes: u64, streams: usize) -> u64 {
    bytes / u64::try_from(streams.max(1)).unwrap_or(u64::MAX)
}

/// A server, an agent, and pods.
struct Bench {
    domain: domain::Domain,
    _agent: Agent,
    agent_pid: u32,
    sockets: Vec<std::path::PathBuf>,
}

impl Bench {
    async fn start() -> Result<Self> {
        let launch = Launch::Itself {
            level: "warn".to_owned(),
            to_file: false,
        };
        let domain = Plan::default().launch(launch).start().await?;
        let mut agent = domain.agent("node-a").await?;
        let mut sockets = Vec::new();
        let pods = (0..PODS).map(|pod| format!("pod-{pod}"));
        for name in pods.chain((0..ROUNDS).map(victim)) {
            domain
                .kube
                .add_pod(&PodSpec::new("bench", &name).service_account(&name).node("node-a"))?;
            let volume = agent.publish("bench", &name).await?;
            let socket = agent.socket(&volume);
            agent
                .workload(&volume)
                .fetch()
                .await
                .context("a pod has no identity")?;
            sockets.push(socket);
        }
        sockets.truncate(PODS);
        let agent_pid = agent.process()?.pid().context("the agent has ended")?;
        Ok(Self {
            domain,
            _agent: agent,
            agent_pid,
            sockets,
        })
    }

    /// Opens so many streams on each socket, and says how much memory the agent had before and has then.
    async fn open(&self, each: usize, sharing: usize) -> Result<(Clients, u64, u64)> {
        let before = process::resident_bytes(self.agent_pid)?;
        let clients = Clients::open(&self.sockets, each, sharing).await?;
        clients.settled().await?;
        Ok((clients, before, process::resident_bytes(self.agent_pid)?))
    }

    /// Bytes of a stream, where so many of them share a connection.
    async fn memory_of(&self, each: usize, sharing: usize) -> Result<u64> {
        let (clients, before, after) = self.open(each, sharing).await?;
        Ok(per(after.saturating_sub(before), clients.count()))
    }

    /// From the revocation of an identity to the last stream that has the list.
    async fn push(&self, clients: &Clients, round: usize) -> Result<Duration> {
        clients.expect_one();
        let mut admin = AdminClient::connect(&self.domain.server.admin_socket()).await?;
        let revoke = Revoke {
            target: Some(Target::SpiffeId(format!("/ns/bench/sa/{}", victim(round)))),
            reason: "keyCompromise".to_owned(),
            comment: "bench".to_owned(),
            ..Revoke::default()
        };
        let begun = process::now();
        let (revoked, all) = tokio::join!(admin.revoke(revoke), clients.all());
        let took = begun.elapsed();
        revoked?;
        ensure!(all, "not every stream has heard of a new list in time");
        Ok(took)
    }
}
