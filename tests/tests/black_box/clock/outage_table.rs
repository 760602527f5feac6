//! What a workload sees while a part is away: one table, walked on the real programs, and printed in docs/operating.md.
//!
//! All wall clocks are moved together, so that an outage of a day takes seconds. What runs meanwhile goes by elapsed time,
//! which nobody moves: so a gap beyond what clocks may differ by is walked with a restart of whatever runs.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use signet_certs::serial::SerialNumber;
use signet_runtime::{
    clock::{Clock, SystemClock},
    sync::Mutex,
};
use signet_tests::{
    domain::{Agent, Domain, MovedClock, Plan},
    fake_kube::FakeKubeConfig,
    kubelet::Volume,
    wait::{PATIENCE, eventually, within},
    workload::WorkloadClient,
};
use tokio::{runtime::Builder, time::timeout};
use tonic::Code;

use super::super::support::pod_with_volume;
use Away::{AgentProcess, ApiServer, NodeClock, ServerProcess};
use Gap::{Day, Minute, TokenLife};
use Restarted::{Both, Neither, OfAgent, OfServer};
use Sees::{Everything, Nobody, Nothing};

/// Longest that one row may take.
const LIMIT: Duration = Duration::from_secs(90);
/// Rows that are walked at once.
const AT_ONCE: usize = 6;

/// What is away, or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    ServerProcess,
    ApiServer,
    AgentProcess,
    /// Ahead by so much, and nothing else is.
    NodeClock,
}

/// For how long.
#[derive(Clone, Copy, Debug)]
enum Gap {
    Minute,
    /// Of kubelet's tokens, and of certificates.
    TokenLife,
    Day,
}

/// What is restarted before it is back.
#[derive(Clone, Copy, Debug)]
enum Restarted {
    Neither,
    OfAgent,
    OfServer,
    Both,
}

/// What a workload sees meanwhile.
#[derive(Clone, Copy, Debug)]
enum Sees {
    /// Its certificate, bundle and lists.
    Everything,
    /// The agent, which has nothing to give.
    Nothing,
    /// No agent.
    Nobody,
}

struct Row {
    away: Away,
    gap: Gap,
    restarted: Restarted,
    meanwhile: Sees,
    /// Afterwards it has another certificate.
    renewed: bool,
}

const fn row(away: Away, gap: Gap, restarted: Restarted, meanwhile: Sees, renewed: bool) -> Row {
    Row {
        away,
        gap,
        restarted,
        meanwhile,
        renewed,
    }
}

const TABLE: &[Row] = &[
    row(ServerProcess, Minute, Neither, Everything, false),
    row(ServerProcess, Minute, OfAgent, Everything, false),
    row(ServerProcess, TokenLife, OfAgent, Nothing, true),
    row(ServerProcess, Day, OfAgent, Nothing, true),
    row(ApiServer, Minute, Neither, Everything, false),
    row(ApiServer, Minute, OfAgent, Everything, false),
    row(ApiServer, Minute, OfServer, Everything, false),
    row(ApiServer, Minute, Both, Everything, false),
    row(AgentProcess, Minute, Neither, Nobody, false),
    row(AgentProcess, Minute, OfServer, Nobody, false),
    row(AgentProcess, TokenLife, OfServer, Nobody, true),
    row(AgentProcess, Day, OfServer, Nobody, true),
    row(NodeClock, Minute, OfAgent, Everything, false),
    row(NodeClock, Day, Neither, Everything, false),
    row(NodeClock, Day, OfAgent, Nothing, false),
];

impl Gap {
    /// Certificates and tokens live an hour.
    const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::TokenLife => super::HOUR + 600,
            Self::Day => super::DAY,
        }
    }
}

impl fmt::Display for Row {
    /// A line of the table in docs/operating.md.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let away = match self.away {
            ServerProcess => "server",
            ApiServer => "API server",
            AgentProcess => "agent",
            NodeClock => "node's clock, ahead by",
        };
        let gap = match self.gap {
            Minute => "a minute",
            TokenLife => "a token's life",
            Day => "a day",
        };
        let restarted = match self.restarted {
            Neither => "-",
            OfAgent => "agent",
            OfServer => "server",
            Both => "agent and server",
        };
        let meanwhile = match self.meanwhile {
            Everything => "its certificate, bundle and lists, unchanged",
            Nothing => "`Unavailable`: it waits",
            Nobody => "no answer",
        };
        let afterwards = if self.renewed {
            "a new certificate"
        } else {
            "the same certificate"
        };
        write!(f, "| {away} | {gap} | {restarted} | {meanwhile} | {afterwards} |")
    }
}

/// The machine's clock, moved like the others.
#[derive(Debug)]
struct Shifted(Arc<AtomicI64>);

impl Clock for Shifted {
    fn now(&self) -> SystemTime {
        let offset = Duration::from_secs(self.0.load(Ordering::SeqCst).unsigned_abs());
        SystemClock.now() + offset
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

/// One workload, and what it hangs on.
struct World {
    domain: Domain,
    agent: Agent,
    volume: Volume,
    workload: WorkloadClient,
    kube_clock: Arc<AtomicI64>,
    server_clock: MovedClock,
    node_clock: MovedClock,
}

impl World {
    async fn start() -> Self {
        let kube_clock = Arc::new(AtomicI64::new(0));
        let config = FakeKubeConfig {
            clock: Arc::new(Shifted(kube_clock.clone())),
            ..FakeKubeConfig::default()
        };
        let mut domain = Plan::default().kube(config).start().await.unwrap();
        domain.server.stop().await.unwrap();
        let server_clock = domain.server.move_clock().unwrap();
        domain.server.start().await.unwrap();
        let mut agent = domain.prepare_agent("node-a").unwrap();
        let node_clock = agent.move_clock().unwrap();
        agent.start().await.unwrap();
        domain.register(&mut agent).await.unwrap();
        let volume = pod_with_volume(&domain, &agent, "front").await;
        let workload = agent.workload(&volume);
        Self {
            domain,
            agent,
            volume,
            workload,
            kube_clock,
            server_clock,
            node_clock,
        }
    }

    /// Time passes for everybody, or for the node alone.
    fn pass(&self, row: &Row) {
        let seconds = row.gap.seconds();
        self.node_clock.set(seconds).unwrap();
        if row.away != NodeClock {
            self.server_clock.set(seconds).unwrap();
            self.kube_clock.store(seconds, Ordering::SeqCst);
        }
    }

    async fn take_away(&mut self, away: Away) {
        match away {
            ServerProcess => self.domain.server.kill().await,
            ApiServer => self.domain.kube.refuse_connections().await,
            AgentProcess => self.agent.kill().await,
            NodeClock => {}
        }
    }

    async fn restart(&mut self, restarted: Restarted) {
        if matches!(restarted, OfServer | Both) {
            self.domain.server.kill().await;
            self.domain.server.spawn().unwrap();
            self.domain.server.ready().await.unwrap();
        }
        if matches!(restarted, OfAgent | Both) {
            self.agent.kill().await;
            self.agent.spawn().unwrap();
        }
    }

    async fn bring_back(&mut self, away: Away) {
        match away {
            ServerProcess => {
                self.domain.server.spawn().unwrap();
                self.domain.server.ready().await.unwrap();
            }
            ApiServer => self.domain.kube.accept_connections().await.unwrap(),
            AgentProcess => self.agent.spawn().unwrap(),
            NodeClock => self.node_clock.set(0).unwrap(),
        }
        // kubelet has replaced its tokens meanwhile, or does now.
        let token = self.domain.node_token("node-a").unwrap();
        self.agent.set_token(&token).unwrap();
        eventually("the driver to be registered", async || {
            self.agent.kubelet().ok()?.republish(&self.volume).await.ok()
        })
        .await;
    }

    async fn check(&self, sees: Sees, before: SerialNumber) {
        match sees {
            Everything => {
                let during = self.workload.identity().await;
                assert_eq!(during.svid.serial(), before);
                let listed = during.authorities.iter().all(|authority| authority.crl.is_some());
                assert!(listed, "lists as well");
            }
            Nothing => {
                let told = eventually("the agent to answer that there is nothing", async || {
                    match self.workload.fetch().await {
                        Err(status) if status.message().contains("operation timed out") => None,
                        answer => answer.err().filter(|status| status.code() == Code::Unavailable),
                    }
                });
                told.await;
                let late = within(Duration::from_secs(3), async || self.workload.fetch().await.ok());
                assert!(late.await.is_none(), "it is served all the same");
            }
            Nobody => assert!(self.workload.fetch().await.is_err(), "somebody answers"),
        }
    }
}

async fn walk(row: &Row) {
    let mut world = World::start().await;
    let before = world.workload.identity().await.svid.serial();
    world.take_away(row.away).await;
    world.pass(row);
    world.restart(row.restarted).await;
    world.check(row.meanwhile, before).await;
    world.bring_back(row.away).await;
    let after = within(PATIENCE, async || {
        let identity = world.workload.fetch().await.ok()?;
        ((identity.svid.serial() != before) == row.renewed).then_some(identity)
    });
    let after = after.await.expect("what the row says afterwards");
    let seconds = world.kube_clock.load(Ordering::SeqCst).unsigned_abs();
    let now = SystemClock.now() + Duration::from_secs(seconds);
    assert!(after.svid.not_after() > now, "it is valid");
}

/// True when all is as the row says.
fn is_so(row: &'static Row) -> bool {
    let walked = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(async { timeout(LIMIT, walk(row)).await })
            .is_ok()
    });
    // What went wrong is in the test's output.
    walked.join().unwrap_or(false)
}

/// Covers INV-9. Row by row, several at once.
#[test]
#[ignore = "needs Debian's libfaketime: `.ci/step clock` installs it"]
fn a_workload_sees_what_the_outage_table_says() {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let walk_on = || {
        while let Some(row) = TABLE.get(next.fetch_add(1, Ordering::SeqCst)) {
            if !is_so(row) {
                wrong.lock().push(row.to_string());
            }
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(walk_on))));
    let wrong = wrong.lock();
    assert!(wrong.is_empty(), "not so, or not in time:\n{}", wrong.join("\n"));
}

#[test]
fn the_documentation_has_the_outage_table() {
    let page = include_str!("../../../../docs/operating.md");
    let section = page
        .split("\n### ")
        .find(|part| part.starts_with("What a workload sees"));
    let rows = section.unwrap().lines().filter(|line| line.starts_with("| "));
    let rows: Vec<&str> = rows.skip(1).collect();
    assert_eq!(rows, TABLE.iter().map(Row::to_string).collect::<Vec<_>>());
}
