//! Rows per second of the embedded store, every row durable before its caller goes on.
//!
//! `cargo run --release -p signet-server --example store_bench [-- DIR [SECONDS]]`; DIR decides which disk is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use signet_certs::authority::AuthorityId;
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use signet_runtime::clock::{Clock as _, SystemClock};
use signet_server::store::sqlite::SqliteStore;
use signet_server::store::{EvidenceKind, Ledger as _, NewIssuance, WorkloadRef};
use tokio::time::Instant;

const PODS: u64 = 5_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = args.next().map_or(Ok(4), |text| text.parse())?;
    for (callers, batch) in [(1, 1), (16, 1), (256, 1), (1, 64), (4, 64), (1, 256), (4, 256)] {
        let dir = parent.join(format!("signet-store-bench-{}", std::process::id()));
        let store = Arc::new(SqliteStore::open(&dir, &TrustDomain::parse("example.org")?)?);
        let rows = measure(store, callers, batch, Duration::from_secs(seconds)).await?;
        println!("{callers:>4} callers, {batch:>4} rows a call: {rows:>8.0} rows/s");
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

async fn measure(store: Arc<SqliteStore>, callers: u64, batch: u64, time: Duration) -> anyhow::Result<f64> {
    let (start, rows) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for _ in 0..callers {
        let (store, rows) = (store.clone(), rows.clone());
        tasks.push(tokio::spawn(async move {
            let rng = SystemRandom::new();
            while start.elapsed() < time {
                let now = SystemClock.now();
                let items = (0..batch)
                    .map(|_| item(now, &rng))
                    .collect::<anyhow::Result<Vec<_>>>()?;
                for result in store.issue(items, now).await? {
                    drop(result?);
                }
                rows.fetch_add(batch, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(rows.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

fn item(now: SystemTime, rng: &SystemRandom) -> anyhow::Result<NewIssuance> {
    let mut random = [0; 13];
    rng.fill(&mut random)
        .map_err(|_| anyhow::anyhow!("the random source failed"))?;
    let pod = u64::from(random[0]) * 256 + u64::from(random[1]);
    let pod = pod % PODS;
    Ok(NewIssuance {
        serial: SerialNumber::generate(now, &random),
        authority: AuthorityId::from_bytes([1; 20]),
        workload: WorkloadRef {
            cluster_uid: "6d6b4a1e-0000-4000-8000-000000000000".to_owned(),
            spiffe_id: SpiffeId::parse(&format!("spiffe://example.org/ns/shop/sa/app-{}", pod % 100))?,
            pod_namespace: "shop".to_owned(),
            pod_name: format!("app-{pod}"),
            pod_uid: format!("9a1b2c3d-0000-4000-8000-{pod:012}"),
            node_name: format!("node-{}", pod % 50),
            node_uid: format!("0a1b2c3d-0000-4000-8000-{:012}", pod % 50),
            agent_id: format!(
                "spiffe://example.org/signet/agent/main/0a1b2c3d-0000-4000-8000-{:012}",
                pod % 50
            ),
        },
        evidence: EvidenceKind::PodToken,
        token_jti: Some(format!("5e1b2c3d-0000-4000-8000-{pod:012}")),
        spki_sha256: [7; 32],
        rule: "builtin".to_owned(),
        policy_revision: 1,
        not_before: now - Duration::from_secs(120),
        not_after: now + Duration::from_secs(3600),
        budget: None,
    })
}
