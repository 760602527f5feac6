//! Where the programs may open few files: every door has its part, so that who takes all of one takes nothing of another; and with too
//! few neither starts.

use std::{net::Ipv4Addr, time::Duration};

use signet_tests::{
    agent_client::RawAgent,
    domain::{Domain, Plan},
    http,
    part::Launch,
    wait::PATIENCE,
    workload::WorkloadClient,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    doors::{keep_alive, stay_silent},
    greedy::tools::{attack, attack_with_identity},
    support::pod_with_volume,
};

/// Enough for both programs, and no more than a third of what one greedy caller would like to have.
const FEW: u32 = 256;
/// How long the greedy ones go on.
const ATTACK: Duration = Duration::from_secs(4);
/// Longer than an honest caller ever waits.
const SOON: Duration = Duration::from_secs(5);

async fn with_few_files() -> Domain {
    signet_runtime::limits::raise_open_files().unwrap();
    let plan = Plan::default().launch(Launch::WithFiles(FEW));
    plan.start().await.unwrap()
}

/// What the one line says with which a program ends that may open too few.
async fn refusal(files: u32, agent: bool) -> String {
    let domain = Domain::start().await.unwrap();
    let launch = Launch::WithFiles(files);
    if !agent {
        let refused = Plan::default().launch(launch).start().await;
        return format!("{:#}", refused.err().expect("it does not start"));
    }
    let mut agent = domain.prepare_agent("node-a").unwrap();
    agent.launch(launch);
    agent.spawn().unwrap();
    let process = agent.process().unwrap();
    assert!(!process.wait(PATIENCE).await.unwrap().success());
    process.said()
}

#[tokio::test]
async fn with_too_few_files_neither_program_starts_and_each_says_how_many_it_needs() {
    for files in [64, 128] {
        for agent in [false, true] {
            let said = refusal(files, agent).await;
            let limit = format!("may open {files} files, and needs ");
            let mut lines = said.lines().filter(|line| line.contains(&limit));
            let line = lines.next().expect(&said);
            assert!(line.contains("LimitNOFILE") && lines.next().is_none(), "{said}");
        }
    }
}

/// Covers BG-17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_few_files_serves_an_honest_pod_beside_greedy_ones() {
    let domain = with_few_files().await;
    let agent = domain.agent("node-a").await.unwrap();
    let honest = pod_with_volume(&domain, &agent, "honest").await;
    let greedy = pod_with_volume(&domain, &agent, "greedy").await;
    let (honest, greedy) = (agent.socket(&honest), agent.socket(&greedy));
    let mut attacks = JoinSet::new();
    for attack in [
        attack(&greedy),
        attack_with_identity(&greedy),
        attack(&agent.shell_socket()),
    ] {
        attacks.spawn(attack.join_all());
    }
    let end = Instant::now() + ATTACK;
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let begun = Instant::now();
        let client = WorkloadClient::new(&honest);
        let fetched = timeout(SOON, client.identity()).await;
        fetched.expect("an honest pod is served");
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("with {FEW} files an honest pod waited at most {slowest:.1?}");
    // kubelet gets another volume in, and health is seen.
    pod_with_volume(&domain, &agent, "another").await;
    let live = format!("{}/live", agent.telemetry_url());
    let live = timeout(SOON, http::get(&live)).await;
    assert_eq!(live.unwrap().unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_few_files_serves_an_honest_agent_beside_strangers() {
    let domain = with_few_files().await;
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (_, honest) = domain.raw_agent("node-a").await.unwrap();
    let publish = domain.server.publish_url();
    let publish = publish.trim_start_matches("http://").parse().unwrap();
    let telemetry = domain.server.telemetry_url();
    let telemetry = telemetry.trim_start_matches("http://").parse().unwrap();
    let mut strangers = JoinSet::new();
    for last in 1..=8 {
        let from = Ipv4Addr::new(127, 0, 3, last);
        strangers.spawn(stay_silent(from, domain.server.agents(), 64));
        strangers.spawn(stay_silent(from, domain.server.bundle(), 64));
        for _ in 0..32 {
            strangers.spawn(keep_alive(from, publish));
            strangers.spawn(keep_alive(from, telemetry));
        }
    }
    let end = Instant::now() + ATTACK;
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let begun = Instant::now();
        let work = async {
            let mut agent = RawAgent::connect(domain.server.agents(), Some(&honest)).await?;
            agent.hello().await?;
            agent.issue_good(&token).await
        };
        let worked = timeout(SOON, work).await.expect("an honest agent is served");
        worked.expect("and refused nothing");
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("with {FEW} files an honest agent waited at most {slowest:.1?}");
    domain.server.admin(&["status"]).await.unwrap();
}
