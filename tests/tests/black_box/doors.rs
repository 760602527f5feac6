//! What one caller uses up at the server's doors, an honest agent and an honest reader beside it never miss.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, channel::Channel};
use signet_proto::agent::TrustReport;
use signet_tests::{
    agent_client::{ClientCertificate, RawAgent, new_csr, open_tls},
    domain::Domain,
    http,
    wait::{PATIENCE, within},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tonic::{Code, body::Body};
use tower::Service as _;

/// What is measured with this client is the server's time, not that of a small message that waits for another.
#[tokio::test]
async fn the_client_of_tests_and_benchmarks_sends_at_once() {
    let domain = Domain::start().await.unwrap();
    let (_, certificate) = domain.raw_agent("node-a").await.unwrap();
    let own = Ipv4Addr::LOCALHOST.into();
    let connection = open_tls(own, domain.server.agents(), &certificate).await.unwrap();
    assert!(connection.get_ref().0.nodelay().unwrap());
}

/// What the server's memory may grow to, in KiB.
const MEMORY: u64 = 512 << 10;

async fn dial(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(from), 0).into())?;
    socket.connect(to).await
}

/// Opens connections from here and says nothing on them; each that is closed makes room for another.
pub(crate) async fn stay_silent(from: Ipv4Addr, to: SocketAddr, at_once: usize) {
    let mut open = JoinSet::new();
    loop {
        while open.len() < at_once {
            open.spawn(async move {
                if let Ok(mut stream) = dial(from, to).await {
                    let _ = stream.read(&mut [0; 1]).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            });
        }
        open.join_next().await;
    }
}

/// An agent connects so often, one after the other, and issues on each connection. The longest that it took.
async fn issue_on_new_connections(
    domain: &Domain,
    certificate: &ClientCertificate,
    token: &str,
    times: usize,
) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        let begun = tokio::time::Instant::now();
        let mut agent = RawAgent::connect(domain.server.agents(), Some(certificate))
            .await
            .expect("an honest agent connects");
        agent.hello().await.expect("an honest agent says hello");
        agent.issue_good(token).await.expect("an honest agent issues");
        longest = longest.max(begun.elapsed());
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_handshakes_keep_no_agent_out() {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (_agent, certificate) = domain.raw_agent("node-a").await.unwrap();
    let mut silent = JoinSet::new();
    for last in 1..=8 {
        silent.spawn(stay_silent(
            Ipv4Addr::new(127, 0, 1, last),
            domain.server.agents(),
            34,
        ));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let longest = issue_on_new_connections(&domain, &certificate, &token, 20).await;
    println!("beside eight silent addresses a connect and an issue took at most {longest:?}");
    // From the agent's own address, as behind one NAT.
    silent.spawn(stay_silent(Ipv4Addr::LOCALHOST, domain.server.agents(), 300));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let longest = issue_on_new_connections(&domain, &certificate, &token, 10).await;
    println!("beside a silent neighbour at the same address it took at most {longest:?}");
    // A new node comes in as well.
    domain.raw_agent("node-b").await.unwrap();
    none_has_failed(&mut silent);
    silent.shutdown().await;
}

/// Asks every 8 s, keeps the connection, and opens another when it ends.
pub(crate) async fn keep_alive(from: Ipv4Addr, to: SocketAddr) {
    loop {
        if let Ok(mut stream) = dial(from, to).await {
            let mut answer = [0; 4096];
            while stream
                .write_all(b"GET /crl.pem HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .is_ok()
                && stream.read(&mut answer).await.is_ok_and(|read| read > 0)
            {
                let quiet = timeout(Duration::from_secs(8), stream.read(&mut answer)).await;
                if matches!(quiet, Ok(Ok(0) | Err(_))) {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_kept_alive_keep_no_reader_out() {
    let domain = Domain::start().await.unwrap();
    let url = format!("{}/crl.pem", domain.server.publish_url());
    let address: SocketAddr = domain
        .server
        .publish_url()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let mut kept = JoinSet::new();
    for _ in 0..2200 {
        kept.spawn(keep_alive(Ipv4Addr::new(127, 0, 2, 1), address));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let begun = tokio::time::Instant::now();
        let answer = timeout(Duration::from_secs(5), http::get(&url)).await;
        assert_eq!(answer.expect("an honest reader is served").unwrap().status, 200);
        longest = longest.max(begun.elapsed());
    }
    println!("beside 2,200 connections of one address a GET took at most {longest:?}");
    none_has_failed(&mut kept);
    kept.shutdown().await;
}

/// Sends the first half of a message, and keeps the call open for as long as the server does.
pub(crate) fn send_half(
    agent: &RawAgent,
    method: &str,
    bytes: usize,
) -> impl Future<Output = Option<Code>> + use<> {
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let request = ::http::Request::post(format!("http://signet-server/signet.agent.v1.Agent/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body.map_err(|never| match never {})))
        .unwrap();
    let mut channel = agent.channel();
    async move {
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await.ok()?;
        let answer = tokio::spawn(channel.call(request));
        let declared = u32::try_from(2 * bytes).unwrap().to_be_bytes();
        let head = [&[0], declared.as_slice()].concat();
        let _ = sender.send_data(Bytes::from(head)).await;
        let piece = Bytes::from(vec![0; 16 << 10]);
        for _ in 0..bytes / piece.len() {
            if sender.send_data(piece.clone()).await.is_err() {
                break;
            }
        }
        let answer = answer.await.ok()?.ok()?;
        drop(sender);
        let code = answer.headers().get("grpc-status")?.to_str().ok()?.parse().ok()?;
        Some(Code::from_i32(code))
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Half of a node's proof on each call that the strangers of one source may have: two on each of as many connections as there is room
/// for where a process may open few thousand files.
pub(crate) async fn half_proofs(address: SocketAddr) -> JoinSet<()> {
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let Ok(stranger) = RawAgent::connect(address, None).await else {
            continue;
        };
        for _ in 0..2 {
            let half = send_half(&stranger, "AttestNode", 16 << 10);
            calls.spawn(async move {
                half.await;
            });
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_requests_take_no_more_memory_than_is_granted() {
    let mut domain = Domain::start().await.unwrap();
    let pid = domain.server.process().unwrap().pid().unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (_agent, honest) = domain.raw_agent("node-a").await.unwrap();
    let (first, greedy) = domain.raw_agent("node-b").await.unwrap();
    let before = resident_kib(pid);
    let mut calls = JoinSet::new();
    let mut connections = vec![first];
    for _ in 1..8 {
        let mut one = RawAgent::connect(domain.server.agents(), Some(&greedy))
            .await
            .unwrap();
        one.hello().await.unwrap();
        connections.push(one);
    }
    for one in &connections {
        (0..32).for_each(|_| drop(calls.spawn(send_half(one, "IssueX509Svids", 2 << 20))));
    }
    let mut strangers = half_proofs(domain.server.agents()).await;
    // What came first may have been too slow by now.
    let ended = std::iter::from_fn(|| strangers.try_join_next()).count();
    assert!(
        strangers.len() > 100,
        "{ended} of those that strangers may have ended"
    );
    let mut most = before;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(resident_kib(pid));
    }
    let longest = issue_on_new_connections(&domain, &honest, &token, 5).await;
    most = most.max(resident_kib(pid));
    println!("before {before} KiB, at most {most} KiB; the neighbour waited at most {longest:?}");
    assert!(most < before + (192 << 10), "{before} KiB grew to {most} KiB");
    assert!(most < MEMORY);
    // None outlives its grace: half a message holds nothing for a minute.
    let all = async {
        while calls.join_next().await.is_some() {}
        while strangers.join_next().await.is_some() {}
    };
    timeout(Duration::from_secs(20), all)
        .await
        .expect("what does not arrive ends");
    drop(connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_opens_streams_without_end_is_told_to_wait() {
    let domain = Domain::start().await.unwrap();
    let (mut agent, _certificate) = domain.raw_agent("node-a").await.unwrap();
    let mut refused = None;
    let mut last = None;
    for _ in 0..200 {
        let (reports, messages) = mpsc::channel(1);
        reports.send(TrustReport::default()).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
        match agent.stub().sync_trust(stream).await {
            Ok(mut states) => {
                let first = states.get_mut().message().await;
                assert!(first.is_ok(), "{first:?}");
                last = Some((states, reports));
            }
            Err(status) => {
                refused = Some(status);
                break;
            }
        }
    }
    let refused = refused.expect("two hundred streams in a moment are refused at some time");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.metadata().contains_key("retry-after-ms"), "{refused:?}");
    // What it has goes on, and after a moment it may open another.
    agent.hello().await.unwrap();
    drop(last);
    let again = within(PATIENCE, async || {
        let (_reports, messages) = mpsc::channel(1);
        let stream = tokio_stream::wrappers::ReceiverStream::<TrustReport>::new(messages);
        agent.stub().sync_trust(stream).await.ok()
    });
    again.await.expect("it may open another in a moment");
}

/// Attests with junk on one connection after the other, as fast as that goes, and counts the answers.
pub(crate) async fn attest_in_vain(address: SocketAddr, csr: Vec<u8>, answers: Arc<AtomicUsize>) {
    loop {
        let Ok(mut stranger) = RawAgent::connect(address, None).await else {
            continue;
        };
        let refused = stranger.attest(csr.clone(), "dev", "junk").await;
        assert!(refused.is_err(), "junk is refused");
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// What an attacker asserts counts as what the test does. Those whose work is over are looked at; the others go on.
pub(crate) fn none_has_failed(attackers: &mut JoinSet<()>) {
    while let Some(ended) = attackers.try_join_next() {
        ended.expect("an attacker failed");
    }
}

/// It has no certificate yet, and no agent has ever proved itself at this address. Its neighbours there come again as soon as they are
/// answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_beside_a_flood_from_its_own_address() {
    let domain = Domain::start().await.unwrap();
    let csr = new_csr().unwrap();
    let (mut flood, answers) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..300 {
        flood.spawn(attest_in_vain(
            domain.server.agents(),
            csr.clone(),
            answers.clone(),
        ));
    }
    let used = within(3 * PATIENCE, async || {
        (answers.load(Ordering::Relaxed) > 1200).then_some(())
    });
    used.await
        .expect("the flood has used up what its source has at once");
    let begun = tokio::time::Instant::now();
    domain.agent("node-b").await.expect("the node joins");
    println!(
        "a node joined {:.1?} after it began, beside a flood",
        begun.elapsed()
    );
    none_has_failed(&mut flood);
    flood.abort_all();
}
