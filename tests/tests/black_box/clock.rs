//! A server whose wall clock is wrong: what two witnesses agree on goes on, and nothing is lost that waits. Run by
//! `.ci/step clock`, which installs Debian's `libfaketime`.

use serde_json::{Value, json};
use signet_tests::{
    domain::{Domain, MovedClock},
    http,
    wait::eventually,
};

use super::support::{audited, id_of, pod_with_volume};

mod agents;
mod outage_table;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A trust domain whose server looks at a clock of its own.
async fn started() -> (Domain, MovedClock) {
    let mut domain = Domain::start().await.unwrap();
    domain.server.stop().await.unwrap();
    let clock = domain.server.move_clock().unwrap();
    domain.server.start().await.unwrap();
    (domain, clock)
}

async fn state(domain: &Domain) -> String {
    let shown = domain.server.admin(&["clock", "show"]).await.unwrap();
    shown["state"].as_str().unwrap().to_owned()
}

async fn wall(domain: &Domain) -> String {
    let shown = domain.server.admin(&["clock", "show"]).await.unwrap();
    shown["wall"].as_str().unwrap().to_owned()
}

async fn authorities(domain: &Domain) -> Vec<Value> {
    let shown = domain.server.admin(&["ca", "show"]).await.unwrap();
    let all = shown["authorities"].as_array().unwrap().iter();
    all.map(|authority| authority["id"].clone()).collect()
}

/// Covers INV-15, INV-16. Far ahead or behind, for as long as it likes: issuing and revoking go on, lists are dated by the right
/// time, what was listed stays listed, and no authority comes or goes.
#[tokio::test]
#[ignore = "needs Debian's libfaketime: `.ci/step clock` installs it"]
async fn a_wall_clock_that_leaps_stops_nothing_and_loses_nothing() {
    let (domain, clock) = started().await;
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let victim = front.identity().await.svid;
    let before = authorities(&domain).await;
    domain
        .server
        .admin(&[
            "revoke",
            "--serial",
            &victim.serial().to_string(),
            "--reason",
            "keyCompromise",
        ])
        .await
        .unwrap();
    for (number, leap) in [2 * HOUR, 8 * DAY, 400 * DAY, -HOUR].into_iter().enumerate() {
        clock.set(leap).unwrap();
        eventually("the leap to be seen", async || {
            (state(&domain).await == "steady").then_some(())
        })
        .await;
        let name = format!("late-{number}");
        let late = agent.workload(&pod_with_volume(&domain, &agent, &name).await);
        let issued = late.identity().await.svid;
        let revoked = domain
            .server
            .admin(&["revoke", "--serial", &issued.serial().to_string()])
            .await;
        assert!(
            revoked.unwrap()["crls"][0]["number"].is_u64(),
            "published while the clock is wrong"
        );
        clock.set(0).unwrap();
        eventually("the clock to be right", async || {
            (state(&domain).await == "confirmed").then_some(())
        })
        .await;
        let shown = domain.server.admin(&["crl", "show"]).await.unwrap();
        assert!(
            shown.to_string().contains(&victim.serial().to_string()),
            "it stays listed"
        );
        assert_eq!(authorities(&domain).await, before);
    }
    assert_eq!(audited(&domain, &["clock_jumped"]).await.len(), 4);
    // The ledger knows what was issued before and after, whichever clock was right.
    let current = front.identity().await.svid.serial().to_string();
    let revoked = domain
        .server
        .admin(&["revoke", "--spiffe-id", &id_of("front")])
        .await
        .unwrap();
    assert!(revoked.to_string().contains(&current), "{current}: {revoked}");
}

/// Covers INV-16. A server first started a day ahead serves nobody while its second clock differs, lets the admin in, and serves
/// without a restart within a minute of being right.
#[tokio::test]
#[ignore = "needs Debian's libfaketime: `.ci/step clock` installs it"]
async fn a_server_first_started_in_the_future_recovers_by_itself() {
    let (mut domain, clock) = started().await;
    domain.server.stop().await.unwrap();
    std::fs::remove_dir_all(domain.server.data_dir()).unwrap();
    clock.set(DAY).unwrap();
    domain.server.spawn().unwrap();
    eventually("the admin to be let in", async || {
        let shown = domain.server.admin(&["clock", "show"]).await.ok()?;
        (shown["state"] == "second_clock_differs").then_some(())
    })
    .await;
    let refused = domain
        .server
        .command(&["clock", "confirm", "2001-02-03T04:05:06Z"])
        .await
        .unwrap();
    assert!(
        !refused.status.success() && refused.stderr.contains("set its clock first"),
        "{refused:?}"
    );
    let wall = wall(&domain).await;
    let refused = domain.server.command(&["clock", "confirm", &wall]).await.unwrap();
    assert!(
        !refused.status.success() && refused.stderr.contains("--force"),
        "{refused:?}"
    );
    for named in ["this machine says ", "the API server of `box` says "] {
        assert!(refused.stderr.contains(named), "{refused:?}");
    }
    clock.set(0).unwrap();
    eventually("the clock to be right", async || {
        (state(&domain).await == "confirmed").then_some(())
    })
    .await;
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    front.identity().await;
}

/// An admin may say that the API servers are wrong. That is written, and said for as long as the two differ.
#[tokio::test]
#[ignore = "needs Debian's libfaketime: `.ci/step clock` installs it"]
async fn a_time_that_an_admin_forced_against_the_api_servers_is_never_silent() {
    let (mut domain, clock) = started().await;
    domain.server.stop().await.unwrap();
    clock.set(HOUR).unwrap();
    domain.server.spawn().unwrap();
    eventually("the two clocks to differ", async || {
        let shown = domain.server.admin(&["clock", "show"]).await.ok()?;
        (shown["state"] == "second_clock_differs").then_some(())
    })
    .await;
    let wall = wall(&domain).await;
    let forced = domain
        .server
        .admin(&["clock", "confirm", &wall, "--force"])
        .await
        .unwrap();
    assert_eq!(
        (&forced["state"], &forced["contradicted"]),
        (&json!("confirmed"), &json!(true))
    );
    domain.server.ready().await.unwrap();
    let lines = audited(&domain, &["clock_confirmed"]).await;
    assert!(
        lines[0].to_string().contains("the API server of `box` says "),
        "{lines:?}"
    );
    let said = async |contradicted: u8| {
        let status = domain.server.admin(&["status"]).await.ok()?;
        let is_said = status["clock"]["reason"]
            .as_str()?
            .contains("the API server of `box` says ");
        let metrics = http::metrics(&domain.server.telemetry_url()).await.ok()?;
        let metric = format!("signet_server_clock_contradicted {contradicted}");
        let is_measured = metrics.lines().any(|line| line == metric);
        (is_said == (contradicted == 1) && is_measured).then_some(())
    };
    eventually("status and metric to say so", async || said(1).await).await;
}
