//! The audit log of a running server: whoever did something, or was refused it, can be found.

use std::collections::BTreeSet;

use serde_json::Value;
use signet_testkit::provoked;
use signet_tests::{
    domain::Domain,
    wait::{PATIENCE, within},
};

use super::support::{audited, identity_of};

/// Every command of an admin that calls the server, and one that fails for each that can.
const ADMIN_COMMANDS: &[(&str, &[&str], bool)] = &[
    ("Status", &["status"], true),
    ("ShowAuthorities", &["ca", "show"], true),
    ("PrepareAuthority", &["ca", "prepare", "--no-wait"], true),
    ("ActivateAuthority", &["ca", "activate", "--force"], true),
    ("ActivateAuthority", &["ca", "activate"], false),
    ("RotateAuthority", &["ca", "rotate", "--force"], true),
    ("StartEmergency", &["ca", "emergency", "--no-wait"], true),
    ("TaintAuthority", &["ca", "taint", "nonsense"], false),
    ("RevokeAuthority", &["ca", "revoke", "nonsense"], false),
    ("ListSvids", &["svid", "list"], true),
    (
        "ListSvids",
        &["svid", "list", "--id", "spiffe://other.org/x"],
        false,
    ),
    ("Revoke", &["revoke", "--spiffe-id", "/ns/shop/sa/leaver"], true),
    ("Revoke", &["revoke", "--spiffe-id", "/signet/server"], false),
    ("Allow", &["allow", "no-such-denial"], false),
    ("ListDenials", &["denials"], true),
    ("ShowCrls", &["crl", "show"], true),
    ("ListAgents", &["agent", "list"], true),
    (
        "ExplainId",
        &["explain", "--spiffe-id", "/ns/shop/sa/front"],
        true,
    ),
    (
        "ExplainPod",
        &["explain", "--pod", "shop/front", "--cluster", "other"],
        false,
    ),
    ("DeleteRule", &["rule", "delete", "nobodys"], false),
    ("TestRule", &["rule", "test", "--pod", "shop/none"], false),
    ("TailAudit", &["audit", "tail"], true),
    ("ShowClock", &["clock", "show"], true),
    (
        "ConfirmClock",
        &["clock", "confirm", "2001-01-01T00:00:00Z"],
        false,
    ),
];

#[tokio::test]
async fn every_call_of_an_admin_is_a_line_with_author_target_and_outcome() {
    let domain = Domain::start().await.unwrap();
    let uid = format!("uid:{}", nix::unistd::getuid());
    let denied = domain
        .server
        .admin(&["revoke", "--spiffe-id", "/ns/shop/sa/front"])
        .await
        .unwrap();
    let denial = denied["denial_id"].as_str().unwrap();
    domain.server.admin(&["allow", denial]).await.unwrap();
    for (_, command, succeeds) in ADMIN_COMMANDS {
        let finished = domain.server.command(command).await.unwrap();
        assert_eq!(
            finished.status.success(),
            *succeeds,
            "{command:?}: {}",
            finished.stderr
        );
    }
    for (method, command, succeeds) in ADMIN_COMMANDS {
        let method = format!("\"method\":\"{method}\"");
        let lines = audited(&domain, &["\"admin_call\"", &method, &uid]).await;
        let fits = |line: &Value| (line["outcome"] == "ok") == *succeeds;
        assert!(lines.iter().any(fits), "{command:?}: {lines:?}");
    }
    let targets = audited(&domain, &["\"admin_call\""]).await;
    let targets: BTreeSet<&str> = targets
        .iter()
        .filter_map(|line| line["target"].as_str())
        .collect();
    for target in [
        "/ns/shop/sa/leaver",
        "/signet/server",
        "x509",
        "no-such-denial",
        denial,
        "2001-01-01T00:00:00Z",
    ] {
        assert!(targets.contains(target), "{target} is not in {targets:?}");
    }
}

/// Who is refused with a certificate that was taken from its agent, or with one that an agent has left behind, is written
/// down: nothing looks more like a theft.
#[tokio::test]
async fn the_use_of_a_refused_agent_certificate_is_a_line() {
    let domain = Domain::start().await.unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    raw.issue_good(&token).await.unwrap();
    // The agent proper attests anew, and by its first call supersedes the certificate that the test holds.
    let agent = domain.agent("node-a").await.unwrap();
    identity_of(&domain, &agent, "other").await;
    raw.issue_good(&token).await.unwrap_err();
    let refused = audited(&domain, &["\"refused\"", "\"superseded\""]).await;
    assert_eq!(refused[0]["operation"], "IssueX509Svids");
    assert!(refused[0]["caller"].as_str().unwrap().contains("/signet/agent/"));
    let agent_id = refused[0]["spiffe_id"].as_str().unwrap().to_owned();

    // Whoever asks on and on does not fill the log: most of it is only counted.
    let lines = within(PATIENCE, async || {
        raw.issue_good(&token).await.unwrap_err();
        let lines = domain.server.audit().ok()?;
        let is_counted = |line: &Value| line["event"] == "refusals_suppressed";
        lines.iter().any(is_counted).then_some(lines)
    });
    let counted = lines.await.expect("every refusal was written");
    for line in provoked("refusals_suppressed", &counted) {
        assert_eq!(line["caller"], agent_id);
    }

    domain
        .server
        .admin(&["revoke", "--spiffe-id", &agent_id, "--force"])
        .await
        .unwrap();
    raw.issue_good(&token).await.unwrap_err();
    audited(&domain, &["\"refused\"", &agent_id, "revoked"]).await;
}
