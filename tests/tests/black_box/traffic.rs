//! What admins do while fifty workloads talk to each other: no handshake fails but those of whoever was revoked.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    wait::within,
};
use signet_workload::{Endpoint, Options, Peer, PeerRule, X509Source};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::support::pod_with_volume;

const WORKLOADS: usize = 50;
/// Between two handshakes that one workload begins.
const PACE: Duration = Duration::from_millis(200);

/// Workloads that talk to each other.
struct Mesh {
    sources: Vec<X509Source>,
    handshakes: AtomicU64,
    failed: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Mesh {
    /// Both ends of one connection, and a byte each way: where a server refuses a certificate its client hears of it after its own handshake.
    async fn handshake(&self, from: usize, to: usize) -> Result<Peer, String> {
        let (near, far) = duplex(1 << 16);
        let connector = self.sources[from].connector(PeerRule::Any).unwrap();
        let acceptor = self.sources[to].acceptor(PeerRule::Any).unwrap();
        let client = async {
            let (mut stream, _) = connector
                .connect(near)
                .await
                .map_err(|error| format!("client: {error}"))?;
            stream
                .write_all(b"?")
                .await
                .map_err(|error| format!("client: {error}"))?;
            let answer = stream
                .read_u8()
                .await
                .map_err(|error| format!("client: {error}"))?;
            assert_eq!(answer, b'!');
            Ok(())
        };
        let server = async {
            let (mut stream, peer) = acceptor
                .accept(far)
                .await
                .map_err(|error| format!("server: {error}"))?;
            stream
                .read_u8()
                .await
                .map_err(|error| format!("server: {error}"))?;
            stream
                .write_all(b"!")
                .await
                .map_err(|error| format!("server: {error}"))?;
            Ok(peer)
        };
        let (client, server): (Result<(), String>, Result<Peer, String>) = tokio::join!(client, server);
        let peer = server?;
        client.map(|()| peer)
    }

    /// One workload calls one after the other.
    async fn calls(self: Arc<Self>, from: usize) {
        let mut turn = 1;
        while !self.is_over.load(Ordering::Relaxed) {
            let to = (from + turn) % WORKLOADS;
            turn = turn % (WORKLOADS - 1) + 1;
            let done = self.handshake(from, to).await;
            self.handshakes.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = done {
                self.failed
                    .lock()
                    .unwrap()
                    .push(format!("{from} to {to}: {error}"));
            }
            sleep(PACE).await;
        }
    }

    /// What has failed so far, and how much was tried.
    fn is_whole(&self, after: &str) -> u64 {
        let failed = self.failed.lock().unwrap();
        assert!(
            failed.is_empty(),
            "{after}: {} failed: {:#?}",
            failed.len(),
            &failed[..failed.len().min(5)]
        );
        self.handshakes.load(Ordering::Relaxed)
    }
}

/// Fifty pods on two nodes, each with its identity.
async fn mesh(domain: &Domain, agents: &[Agent; 2]) -> Arc<Mesh> {
    let mut sources = Vec::new();
    for number in 0..WORKLOADS {
        let agent = &agents[number % 2];
        let volume = pod_with_volume(domain, agent, &format!("w{number}")).await;
        let socket = format!("unix://{}", agent.socket(&volume).display());
        sources.push(X509Source::start(Options::new(
            socket.parse::<Endpoint>().unwrap(),
        )));
    }
    for source in &sources {
        source.ready().await.unwrap();
    }
    Arc::new(Mesh {
        sources,
        handshakes: AtomicU64::new(0),
        failed: Mutex::default(),
        is_over: AtomicBool::new(false),
    })
}

/// Covers INV-2, INV-15.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes both cores for a minute: `.ci/step crash` runs it"]
async fn a_retirement_and_an_emergency_fail_no_handshake_and_a_revoked_workload_is_refused_by_all_within_a_second()
 {
    let domain = Plan::default()
        .server("/authority/emergency_grace", json!("15s"))
        .start()
        .await
        .unwrap();
    let agents = [
        domain.agent("node-a").await.unwrap(),
        domain.agent("node-b").await.unwrap(),
    ];
    let mesh = mesh(&domain, &agents).await;
    let mut traffic = JoinSet::new();
    for from in 0..WORKLOADS {
        traffic.spawn(mesh.clone().calls(from));
    }
    let authority = || mesh.sources[0].svid().unwrap().authority_id();
    let first = authority();
    domain.server.admin(&["ca", "rotate", "--retire"]).await.unwrap();
    let second = authority();
    assert_ne!(second, first);
    println!(
        "rotate --retire: {} handshakes",
        mesh.is_whole("ca rotate --retire")
    );
    domain.server.admin(&["ca", "emergency"]).await.unwrap();
    assert_ne!(authority(), second);
    println!("emergency: {} handshakes", mesh.is_whole("ca emergency"));

    mesh.is_over.store(true, Ordering::Relaxed);
    while traffic.join_next().await.is_some() {}
    mesh.is_whole("the end");
    let revoked = 7;
    let presents = mesh.handshake(revoked, 0).await.unwrap().svid().clone();
    let id = presents.spiffe_id().to_string();
    domain
        .server
        .admin(&["revoke", "--spiffe-id", &id])
        .await
        .unwrap();
    let returned = Instant::now();
    let refused = within(Duration::from_secs(1), async || {
        let others = (0..WORKLOADS).filter(|other| *other != revoked);
        let mut verdicts = others.map(|other| mesh.sources[other].recheck(&presents));
        verdicts.all(|verdict| verdict.is_err()).then_some(())
    });
    refused.await.expect("every peer refuses what was revoked");
    println!("revoked: refused by all after {:?}", returned.elapsed());
    let others = (0..WORKLOADS).filter(|other| *other != revoked);
    let both_ways = others.map(|other| {
        let mesh = mesh.clone();
        async move {
            (
                mesh.handshake(revoked, other).await,
                mesh.handshake(other, revoked).await,
            )
        }
    });
    for (to, from) in join_all(both_ways).await {
        assert!(to.is_err() && from.is_err(), "{to:?} {from:?}");
    }
}
