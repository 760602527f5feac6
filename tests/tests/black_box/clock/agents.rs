//! An agent whose machine's clock is wrong says so, before the server knows it and after.

use serde_json::Value;
use signet_tests::{
    domain::{Agent, Domain},
    wait::eventually,
};

use super::{DAY, HOUR};

async fn status(agent: &Agent) -> Option<Value> {
    let shown = agent.command(&["status", "--output", "json"]).await.ok()?;
    serde_json::from_str(&shown.stdout).ok()
}

/// How many dates a text holds, and the number in front of ` s WAY`.
fn dates_and_distance(text: &str, way: &str) -> (usize, Option<u64>) {
    let is_date = |word: &&str| word.len() == 20 && word.starts_with("20") && word.ends_with('Z');
    let words = text.split_whitespace();
    let dates = words.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    let (before, _) = text.split_once(&format!(" s {way}")).unwrap_or_default();
    let number = before.rsplit(' ').next().and_then(|number| number.parse().ok());
    (dates.filter(is_date).count(), number)
}

/// By the server's certificate alone, which is all there is before the node is attested.
#[tokio::test]
#[ignore = "needs Debian's libfaketime: `.ci/step clock` installs it"]
async fn a_wrong_clock_is_named_before_attestation_with_both_times_and_by_how_much() {
    for (skew, way) in [(-180, "behind"), (-1200, "behind"), (2 * DAY, "ahead")] {
        let domain = Domain::start().await.unwrap();
        let mut agent = domain.prepare_agent("node-a").unwrap();
        let clock = agent.move_clock().unwrap();
        clock.set(skew).unwrap();
        agent.spawn().unwrap();
        let (server, shown) = eventually("the clock to be named", async || {
            let status = status(&agent).await?;
            let problem = status["server_problem"].as_str()?.to_owned();
            let clock = status["clock_problem"].as_str()?.to_owned();
            problem
                .contains("this machine's clock")
                .then_some((problem, clock))
        })
        .await;
        // Not seen is what the certificate is dated back by, and how long it goes on.
        for text in [server, shown, agent.said()] {
            let (dates, distance) = dates_and_distance(&text, way);
            assert!(dates >= 3, "{skew}: both bounds and the moment: {text}");
            let distance = distance.unwrap_or_else(|| panic!("{skew}: not how much: {text}"));
            assert!(
                distance > 0 && distance <= skew.unsigned_abs(),
                "{skew}: {distance}: {text}"
            );
            for raw in ["NotValidYet", "OtherError", "invalid peer certificate"] {
                assert!(!text.contains(raw), "{skew}: {text}");
            }
        }
        clock.set(0).unwrap();
        eventually("the agent to be attested", async || {
            let status = status(&agent).await?;
            (status["ready_issue"] == true && status["clock_problem"] == "").then_some(())
        })
        .await;
    }
}

/// By what the server tells.
#[tokio::test]
#[ignore = "needs Debian's libfaketime: `.ci/step clock` installs it"]
async fn a_wrong_clock_is_named_after_attestation_with_both_times_and_by_how_much() {
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.prepare_agent("node-a").unwrap();
    let clock = agent.move_clock().unwrap();
    // The server's certificate lives longer than that.
    clock.set(3 * HOUR).unwrap();
    agent.start().await.unwrap();
    for (skew, way) in [(3 * HOUR, "ahead"), (-180, "behind")] {
        clock.set(skew).unwrap();
        let shown = eventually("the clock to be named", async || {
            let status = status(&agent).await?;
            let problem = status["clock_problem"].as_str()?.to_owned();
            problem.contains(way).then_some(problem)
        })
        .await;
        let (dates, distance) = dates_and_distance(&shown, way);
        let distance = distance.unwrap_or_else(|| panic!("not how much: {shown}"));
        assert_eq!(dates, 2, "both times: {shown}");
        assert!(distance.abs_diff(skew.unsigned_abs()) <= 3, "{skew}: {shown}");
        eventually("the log to say so", async || {
            let said = agent.said();
            let mut lines = said.lines().rev();
            lines
                .find(|line| line.contains("this machine's clock and the server's differ"))
                .filter(|line| {
                    line.contains("machine=") && line.contains("server=") && line.contains("seconds=")
                })
                .map(|_| ())
        })
        .await;
        clock.set(0).unwrap();
        eventually("the clock to be right", async || {
            (status(&agent).await?["clock_problem"] == "").then_some(())
        })
        .await;
    }
}
