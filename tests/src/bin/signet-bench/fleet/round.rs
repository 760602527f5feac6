//! One revocation, from before it is asked for until nearly all agents have said that they hold the list.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use signet_proto::agent::issue_result::Outcome;
use signet_server::cli::admin::{Revoke, Target};
use signet_tests::agent_client::{RawAgent, pod_item};
use tokio::task::JoinHandle;

use super::agent::Fleet;
use crate::process::{self, now};

/// A fleet that is not reached by then never is.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two certificates of the honest neighbour.
const PAUSE: Duration = Duration::from_millis(50);
/// Until what was sent last has been taken in.
const SETTLED: Duration = Duration::from_millis(300);

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Seconds of the server's time on the CPU.
    pub(super) cpu: f64,
    /// Until the agent at 99 % had answered, ms.
    pub(super) p99: f64,
    /// The slowest certificate of the honest neighbour, ms.
    pub(super) issue_max: f64,
}

/// Revokes what there is and denies nothing.
pub(super) fn revocation(spiffe_id: &str) -> Revoke {
    Revoke {
        target: Some(Target::SpiffeId(spiffe_id.to_owned())),
        reason: "superseded".to_owned(),
        comment: String::new(),
        keep_issuing: true,
        ..Revoke::default()
    }
}

pub(super) struct Begun {
    pid: u32,
    cpu: f64,
    at: Instant,
}

impl Begun {
    pub(super) fn now(fleet: &Fleet, pid: u32) -> Result<Self> {
        fleet.begin();
        Ok(Self {
            pid,
            cpu: process::cpu_seconds(pid)?,
            at: now(),
        })
    }

    pub(super) async fn until_reached(self, fleet: &Fleet) -> Result<Round> {
        let nearly_all = fleet.open() * 99 / 100;
        let reached = loop {
            let mut reached = fleet.reached();
            if reached.len() >= nearly_all {
                reached.sort_unstable();
                break reached;
            }
            ensure!(
                now() - self.at < PATIENCE,
                "only {} of {nearly_all} agents were reached; {} have lost their stream",
                reached.len(),
                fleet.lost()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::time::sleep(SETTLED).await;
        let last = reached.get(nearly_all.saturating_sub(1)).context("no agent")?;
        Ok(Round {
            cpu: process::cpu_seconds(self.pid)? - self.cpu,
            p99: (*last - self.at).as_secs_f64() * 1000.0,
            issue_max: 0.0,
        })
    }
}

/// An honest agent that asks for one certificate after the other.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    task: JoinHandle<Result<Duration>>,
}

impl Load {
    pub(super) fn start(mut agent: RawAgent, token: String, new_csr: fn() -> Result<Vec<u8>>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let task = tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let item = pod_item(new_csr()?, &token);
                let asked = now();
                let results = agent.issue(vec![item]).await?;
                slowest = slowest.max(now() - asked);
                ensure!(
                    results
                        .iter()
                        .all(|one| matches!(one.outcome, Some(Outcome::Issued(_)))),
                    "the honest neighbour was refused: {results:?}"
                );
                tokio::time::sleep(PAUSE).await;
            }
            Ok(slowest)
        });
        Self { over, task }
    }

    /// Ends it; the slowest answer, ms.
    pub(super) async fn slowest(self) -> Result<f64> {
        self.over.store(true, Ordering::Relaxed);
        Ok(self.task.await??.as_secs_f64() * 1000.0)
    }
}
