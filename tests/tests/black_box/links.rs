//! A node that joins with control anchors of an earlier day.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;
use serde_json::json;
use signet_certs::{
    authority::{AuthorityKind, AuthorityProfile, X509Authority},
    time::rfc3339,
};
use signet_runtime::clock::{Clock as _, SystemClock};
use signet_testkit::{authority_profile, new_authority};
use signet_tests::{
    domain::{Agent, Domain},
    wait::eventually,
};

use super::support::identity_of;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// One that is not started yet, with anchors from this file.
fn agent_with_anchors(domain: &Domain, file: &Path) -> Agent {
    let mut agent = domain.prepare_agent("node-a").unwrap();
    agent
        .change(&[("/trust/anchors_file".to_owned(), json!(file))])
        .unwrap();
    agent
}

/// An agent with nothing but the file of the first day, as a node that an autoscaler adds: over links it finds the server, whose
/// authority was replaced twice since. Clients that ask for no links go on as they were.
#[tokio::test]
async fn a_node_joins_with_anchors_that_have_been_rotated_out() {
    let domain = Domain::start().await.unwrap();
    let first = domain.path().join("anchors-of-the-first-day.pem");
    fs::copy(domain.server.anchors(), &first).unwrap();
    let rotate = ["ca", "rotate", "--kind", "control"];
    for _ in 0..2 {
        domain.server.admin(&rotate).await.unwrap();
    }
    let mut agent = agent_with_anchors(&domain, &first);
    agent.start().await.unwrap();
    domain.register(&mut agent).await.unwrap();
    identity_of(&domain, &agent, "front").await;
    assert!(agent.said().contains("was found over links"), "{}", agent.said());
    // What was found is kept like any other: the next rotation and a restart need no links.
    domain.server.admin(&rotate).await.unwrap();
    agent.stop().await.unwrap();
    agent.start().await.unwrap();
    assert!(!agent.said().contains("was found over links"), "{}", agent.said());
    let (mut plain, _) = domain.raw_agent("node-b").await.unwrap();
    plain.hello().await.unwrap();
}

fn control_authority(from: SystemTime, to: SystemTime) -> X509Authority {
    new_authority(AuthorityProfile {
        kind: AuthorityKind::Control,
        not_before: from,
        not_after: to,
        ..authority_profile("example.org")
    })
}

fn long_ended() -> X509Authority {
    let now = SystemClock.now();
    control_authority(now - 130 * DAY, now - 100 * DAY)
}

/// The signal after the file was replaced, by such as cannot be read too: nothing is lost by it.
#[tokio::test]
async fn an_agent_reads_its_anchors_again_on_a_hangup() {
    let domain = Domain::start().await.unwrap();
    let file = domain.path().join("anchors.pem");
    fs::copy(domain.server.anchors(), &file).unwrap();
    let mut agent = agent_with_anchors(&domain, &file);
    agent.start().await.unwrap();
    domain.register(&mut agent).await.unwrap();
    let now = SystemClock.now();
    let further = control_authority(now - DAY, now + DAY);
    let both = fs::read_to_string(&file).unwrap() + &further.certificate().pem();
    for (content, word) in [
        ("nothing".to_owned(), "the control anchors stay as they are"),
        (both, "control anchors are read from the configured file again"),
    ] {
        assert!(!agent.said().contains(word));
        fs::write(&file, content).unwrap();
        agent.process().unwrap().signal(Signal::SIGHUP);
        eventually(word, async || agent.said().contains(word).then_some(())).await;
    }
    identity_of(&domain, &agent, "front").await;
}

/// The file holds an authority that ended a hundred days ago: the log says which file, which authority, since when, and what to do;
/// with the file replaced as it says the agent joins without a restart.
#[tokio::test]
async fn a_node_with_anchors_that_ended_long_ago_says_what_to_do() {
    let domain = Domain::start().await.unwrap();
    let (file, ended) = (domain.path().join("anchors.pem"), long_ended());
    fs::write(&file, ended.certificate().pem()).unwrap();
    let mut agent = agent_with_anchors(&domain, &file);
    agent.spawn().unwrap();
    let shown = domain.server.admin(&["ca", "show"]).await.unwrap();
    let all = shown["authorities"].as_array().unwrap();
    let control = all
        .iter()
        .find(|authority| authority["kind"] == "control")
        .unwrap();
    let words = [
        file.display().to_string(),
        ended.certificate().id().to_string(),
        rfc3339(ended.certificate().not_after()),
        control["authority_id"].as_str().unwrap().to_owned(),
        "control-anchors.pem".to_owned(),
    ];
    eventually("the message", async || {
        let said = agent.said();
        words.iter().all(|word| said.contains(word)).then_some(())
    })
    .await;
    fs::copy(domain.server.anchors(), &file).unwrap();
    eventually("the node to have joined", async || {
        agent.said().contains("node attested").then_some(())
    })
    .await;
}
