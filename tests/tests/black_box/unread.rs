//! Nobody takes what the programs say: the work goes on, and so does the end.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use serde_json::json;
use signet_proto::agent::{IssueResult, issue_result::Outcome};
use signet_tests::{
    agent_client::{new_csr, pod_item},
    domain::{Agent, Domain, Plan},
    http,
    part::Launch,
    wait::{eventually, within},
};
use tokio::time::{Instant, timeout};

use super::support::{audited, identity_of, pod_with_volume};

/// What an honest caller waits at most, on a busy machine too.
const SOON: Duration = Duration::from_secs(5);
/// The bounds of the programs' ends, and what they may take beyond.
const SERVER_END: Duration = Duration::from_secs(20 + 2);
const AGENT_END: Duration = Duration::from_secs(10 + 2);

/// Both programs with standard output and standard error on pipes that are full from the first byte on. Audit lines go to
/// standard output.
async fn unread() -> (Domain, Agent) {
    let plan = Plan::default().launch(Launch::Unread).server("/audit", json!({}));
    let domain = plan.start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    (domain, agent)
}

async fn metric(telemetry_url: &str, name: &str) -> u64 {
    let text = http::metrics(telemetry_url).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
    value.trim().parse().unwrap()
}

async fn is_live(telemetry_url: &str) {
    let answer = timeout(SOON, http::get(&format!("{telemetry_url}/live"))).await;
    assert_eq!(answer.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn pods_are_served_revocations_made_and_both_programs_end_in_time() {
    let (mut domain, mut agent) = unread().await;
    let begun = Instant::now();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    timeout(SOON, front.identity()).await.unwrap();
    let revoke = ["revoke", "--spiffe-id", "/ns/shop/sa/leaver"];
    let revoked = timeout(SOON, domain.server.admin(&revoke)).await.unwrap();
    assert_eq!(revoked.unwrap()["published"], true);
    for telemetry in [domain.server.telemetry_url(), agent.telemetry_url()] {
        is_live(&telemetry).await;
    }
    // That goes by what is stored and what was taken, and is looked at each second.
    let server = domain.server.telemetry_url();
    eventually("audit lines to wait", async || {
        (metric(&server, "signet_server_audit_backlog_lines").await > 0).then_some(())
    })
    .await;
    assert!(begun.elapsed() < 4 * SOON);

    let process = agent.process().unwrap();
    process.terminate();
    assert!(process.wait(AGENT_END).await.unwrap().success());
    let process = domain.server.process().unwrap();
    process.terminate();
    assert!(process.wait(SERVER_END).await.unwrap().success());

    // Nothing of the audit log is lost: it goes out after the next start, from the first line on; some of it twice.
    let file = domain.server.folder().join("audit.log");
    domain.server.launch(Launch::Binaries);
    domain
        .server
        .change(&[("/audit/file".to_owned(), json!(file))])
        .unwrap();
    domain.server.start().await.unwrap();
    audited(&domain, &["\"revoked\"", "/ns/shop/sa/leaver"]).await;
    audited(&domain, &["\"server_started\"", "\"boot\":2"]).await;
    let lines = domain.server.audit().unwrap();
    let sequences: Vec<u64> = lines
        .iter()
        .filter_map(|line| line["sequence"].as_u64())
        .collect();
    assert_eq!(sequences.first(), Some(&1));
    let has_no_gap = sequences.windows(2).all(|two| two[1] <= two[0] + 1);
    assert!(sequences.is_sorted() && has_no_gap, "{lines:?}");
}

fn all_issued(results: &[IssueResult]) -> bool {
    results
        .iter()
        .all(|result| matches!(result.outcome, Some(Outcome::Issued(_))))
}

fn is_unavailable(result: &IssueResult) -> bool {
    matches!(result.outcome, Some(Outcome::Unavailable(_)))
}

/// What gives access stops while as many lines wait as may, and says so; what takes access away does not.
#[tokio::test]
async fn a_full_backlog_of_audit_lines_stops_issuing_and_not_revoking() {
    let plan = Plan::default()
        .launch(Launch::Unread)
        .server("/audit", json!({"max_backlog": 1000}));
    let domain = plan.start().await.unwrap();
    let server = domain.server.telemetry_url();
    let (mut agent, _) = domain.raw_agent("node-a").await.unwrap();
    let mut issued = 0;
    for pod in 0.. {
        assert!(pod < 30, "{issued} certificates while nobody takes a line");
        let token = domain.shop_pod(&format!("pod-{pod}"), "node-a").unwrap();
        let items = (0..64).map(|_| pod_item(new_csr().unwrap(), &token));
        let results = agent.issue(items.collect()).await.unwrap();
        if !all_issued(&results) {
            assert!(
                results.iter().any(is_unavailable),
                "no verdict, and no budget: {results:?}"
            );
            break;
        }
        issued += results.len();
    }
    assert!(issued > 500, "{issued}");
    eventually("the server to say why", async || {
        let answer = http::get(&format!("{server}/ready/issue")).await.unwrap();
        let reasons = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status == 503 && reasons.contains("audit_stuck")).then_some(())
    })
    .await;
    eventually("the metric to show it", async || {
        (metric(&server, "signet_server_audit_backlog_lines").await >= 1000).then_some(())
    })
    .await;
    let revoke = ["revoke", "--spiffe-id", "/ns/shop/sa/leaver"];
    let revoked = timeout(SOON, domain.server.admin(&revoke)).await.unwrap();
    assert_eq!(revoked.unwrap()["published"], true);
}

/// As [`unread`], over disks that are full.
#[tokio::test]
async fn a_full_disk_under_the_log_is_no_matter() {
    let plan = Plan::default().launch(Launch::Full);
    let mut domain = plan.start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    timeout(SOON, front.identity()).await.unwrap();
    assert!(
        metric(
            &domain.server.telemetry_url(),
            "signet_server_log_lines_lost_total"
        )
        .await
            > 0
    );
    assert!(metric(&agent.telemetry_url(), "signet_agent_log_lines_lost_total").await > 0);
    agent.stop().await.unwrap();
    domain.server.stop().await.unwrap();
}

/// What log rotation and closed terminals send.
#[tokio::test]
async fn hangups_and_user_signals_do_not_kill_and_a_hangup_opens_the_audit_log_again() {
    let mut domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let log = domain.server.folder().join("audit.log");
    fs::rename(&log, log.with_extension("1")).unwrap();
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGHUP] {
        domain.server.process().unwrap().signal(signal);
        agent.process().unwrap().signal(signal);
    }
    // Nothing is audited meanwhile: it is the signal that makes the new file.
    eventually("a new audit log", async || log.exists().then_some(())).await;
    let words = ["SIGUSR1", "SIGUSR2", "needs a restart"];
    let said = within(SOON, async || {
        let all = [domain.server.said(), agent.said()];
        let has_all = |text: &String| words.iter().all(|word| text.contains(word));
        all.iter().all(has_all).then_some(())
    });
    assert!(said.await.is_some(), "{}{}", domain.server.said(), agent.said());
    assert!(domain.server.process().unwrap().is_running() && agent.process().unwrap().is_running());
    identity_of(&domain, &agent, "front").await;
    audited(&domain, &["\"issued\"", "/ns/shop/sa/front"]).await;
}

/// A node's token that was wrong is read again at once, not when the agent would have tried next.
#[tokio::test]
async fn an_agent_reads_its_token_again_on_a_hangup() {
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.prepare_agent("node-a").unwrap();
    agent.set_token("none").unwrap();
    agent.spawn().unwrap();
    let not_ready = format!("{}/ready/issue", agent.telemetry_url());
    eventually("a token that is refused often", async || {
        (agent.said().matches("node not attested").count() > 5).then_some(())
    })
    .await;
    agent.set_token(&domain.node_token("node-a").unwrap()).unwrap();
    agent.process().unwrap().signal(Signal::SIGHUP);
    let ready = within(SOON, async || {
        let answer = http::get(&not_ready).await.ok()?;
        (answer.status == 200).then_some(())
    });
    assert!(ready.await.is_some(), "{}", agent.said());
}
