//! What a server says of itself when it cannot do all of its work: probes leave it where it is, alarms ring.

use std::fs;

use serde_json::json;
use signet_tests::{
    domain::Domain,
    fake_kube::{Endpoint, Fault},
    http,
    wait::eventually,
};

use super::support::audited;

/// Status of one of the two questions, and the names of what stands in the way.
async fn asked(telemetry: &str, path: &str) -> (u16, Vec<String>) {
    let url = format!("{telemetry}{path}");
    let answer = http::get(&url).await.unwrap();
    let body = answer.json().unwrap();
    let reasons = body["not_ready"].as_array().unwrap().iter();
    let names = reasons.map(|one| one["reason"].as_str().unwrap().to_owned());
    (answer.status.as_u16(), names.collect())
}

async fn until_only(domain: &Domain, reason: &str) {
    let telemetry = domain.server.telemetry_url();
    eventually(&format!("{reason} to be the only reason"), async || {
        (asked(&telemetry, "/ready/issue").await == (503, vec![reason.to_owned()])).then_some(())
    })
    .await;
    assert_eq!(asked(&telemetry, "/ready").await, (200, vec![]), "{reason}");
}

async fn until_all_is_well(domain: &Domain) {
    let telemetry = domain.server.telemetry_url();
    eventually("nothing to stand in the way", async || {
        (asked(&telemetry, "/ready/issue").await == (200, vec![])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_without_its_cluster_serves_on_and_every_door_says_why_it_issues_nothing() {
    let domain = Domain::start().await.unwrap();
    let (server, kube) = (&domain.server, &domain.kube);
    until_all_is_well(&domain).await;
    kube.fault_at(Endpoint::PodWatches, Fault::InternalError);
    kube.cut_watches();
    until_only(&domain, "clusters_away").await;

    let checked = server.command(&["healthcheck"]).await.unwrap();
    assert!(!checked.status.success());
    assert!(checked.stderr.contains("clusters_away: "), "{}", checked.stderr);
    let probe = server.command(&["healthcheck", "--serving"]).await.unwrap();
    assert!(probe.status.success(), "{}", probe.stderr);
    let status = server.admin(&["status"]).await.unwrap();
    assert_eq!(
        (&status["ready"], &status["ready_issue"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(status["not_ready"][0]["reason"], "clusters_away");
    assert_eq!(status["not_ready"][0]["level"], "/ready/issue");
    let metrics = http::metrics(&server.telemetry_url()).await.unwrap();
    for line in [
        "signet_server_ready 1",
        "signet_server_ready_issue 0",
        r#"signet_server_not_ready{reason="clusters_away"} 1"#,
        r#"signet_server_not_ready{reason="store_failing"} 0"#,
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in {metrics}"
        );
    }
    // Revocations go on meanwhile.
    let revoked = server
        .admin(&["revoke", "--spiffe-id", "/ns/shop/sa/x"])
        .await
        .unwrap();
    assert_eq!(revoked["published"], true);

    kube.clear_faults();
    until_all_is_well(&domain).await;
    let healthy = server.command(&["healthcheck"]).await.unwrap();
    assert!(healthy.status.success(), "{}", healthy.stderr);
}

/// The agent of a server that cannot issue says so too, with the server's reason, and takes it back with it.
#[tokio::test]
async fn an_agent_says_that_its_server_cannot_issue() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let telemetry = agent.telemetry_url();
    domain.kube.fault_at(Endpoint::PodWatches, Fault::InternalError);
    domain.kube.cut_watches();
    eventually("the agent to know that the server cannot issue", async || {
        (asked(&telemetry, "/ready/issue").await == (503, vec!["server_not_issuing".to_owned()]))
            .then_some(())
    })
    .await;
    assert_eq!(asked(&telemetry, "/ready").await, (200, vec![]));
    let checked = agent.command(&["healthcheck"]).await.unwrap();
    assert!(
        !checked.status.success() && checked.stderr.contains("server_not_issuing: clusters_away"),
        "{checked:?}"
    );
    domain.kube.clear_faults();
    eventually("the agent to know that the server issues", async || {
        (asked(&telemetry, "/ready/issue").await == (200, vec![])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_audit_log_that_takes_no_line_is_a_reason_and_costs_none() {
    let domain = Domain::start().await.unwrap();
    until_all_is_well(&domain).await;
    let log = domain.server.folder().join("audit.log");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    let denied = domain
        .server
        .admin(&["revoke", "--spiffe-id", "/ns/shop/sa/x"])
        .await
        .unwrap();
    assert!(denied["denial_id"].is_string(), "{denied}");
    until_only(&domain, "audit_stuck").await;
    fs::remove_dir(&log).unwrap();
    until_all_is_well(&domain).await;
    audited(&domain, &["\"revoked\"", "/ns/shop/sa/x"]).await;
}
