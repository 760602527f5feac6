//! What a revocation can be aimed at: what it hits loses its identity and gets no other, and nobody else loses anything.

use serde_json::Value;
use signet_certs::verify::inspect_leaf;
use signet_proto::agent::refusal::Reason;
use signet_tests::{
    agent_client::new_csr,
    domain::{Agent, CLUSTER, Domain, Plan},
    fake_kube::PodSpec,
    kubelet::Volume,
    process::{Process, binary},
    wait::{PATIENCE, eventually},
    workload::{Updates, WorkloadClient},
};
use tonic::Code;

use super::super::support::{assert_refused, audited, id_of, pod_with_volume};

/// A pod of any namespace on `node-a`, under a service account, with its volume published.
async fn pod_of(domain: &Domain, agent: &Agent, namespace: &str, name: &str, account: &str) -> Volume {
    let spec = PodSpec::new(namespace, name)
        .service_account(account)
        .node("node-a");
    domain.kube.add_pod(&spec).unwrap();
    agent.publish(namespace, name).await.unwrap()
}

/// Waits until a workload is told that it has no identity any more.
async fn loses_its_identity(mut updates: Updates) {
    let end = loop {
        if let Err(status) = updates.next().await {
            break status;
        }
    };
    assert_eq!(end.code(), Code::PermissionDenied, "{end:?}");
}

/// The same identity as before is served, and nothing has been issued anew.
async fn keeps(workload: &WorkloadClient, serial: &str) {
    let now = workload.identity().await;
    assert_eq!(now.svid.serial().to_string(), serial);
}

async fn revoke(domain: &Domain, args: &[&str]) -> Value {
    domain.server.admin(&[&["revoke"], args].concat()).await.unwrap()
}

async fn refused(domain: &Domain, args: &[&str]) -> String {
    let finished = domain
        .server
        .command(&[&["revoke"], args].concat())
        .await
        .unwrap();
    assert!(!finished.status.success(), "{args:?}: {}", finished.stdout);
    finished.stderr
}

async fn denials(domain: &Domain) -> Vec<Value> {
    let denials = domain.server.admin(&["denials"]).await.unwrap();
    denials["denials"].as_array().unwrap().clone()
}

/// Covers INV-11.
#[tokio::test]
async fn a_prefix_hits_what_lies_below_it_and_no_sibling() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let back = agent.workload(&pod_with_volume(&domain, &agent, "back").await);
    let sibling = agent.workload(&pod_of(&domain, &agent, "shop-admin", "ops", "ops").await);
    let victims = [front.watch().await.unwrap(), back.watch().await.unwrap()];
    let (one, two) = (front.identity().await, back.identity().await);
    let spared = sibling.identity().await.svid.serial().to_string();

    let would = revoke(&domain, &["--prefix", "/ns/shop", "--dry-run"]).await;
    assert_eq!(would["revoked_total"], 2, "{would}");
    assert_eq!(would["denies"], "prefix spiffe://example.org/ns/shop");
    assert!(denials(&domain).await.is_empty(), "a dry run denies nobody");
    keeps(&front, &one.svid.serial().to_string()).await;

    let revoked = revoke(&domain, &["--prefix", "/ns/shop"]).await;
    assert_eq!(revoked["revoked"], would["revoked"], "the dry run told the truth");
    assert!(revoked["crls"][0]["number"].as_u64() > Some(0), "{revoked}");
    for updates in victims {
        loses_its_identity(updates).await;
    }
    keeps(&sibling, &spared).await;
    let peer = eventually("the lists at the sibling", async || {
        let peer = sibling.identity().await;
        peer.sees_revoked(&one.svid).then_some(peer)
    })
    .await;
    assert!(peer.judge(&one.svid).is_err() && peer.judge(&two.svid).is_err());

    let (mut raw, _) = domain.raw_agent("node-b").await.unwrap();
    let future = domain.shop_pod("of-tomorrow", "node-b").unwrap();
    let outcome = raw.issue_one(new_csr().unwrap(), &future).await.unwrap();
    assert_refused("a pod that came later", outcome, Reason::Denied);
    let standing = denials(&domain).await;
    assert_eq!(standing[0]["kind"], "prefix");
    assert_eq!(standing[0]["target"], "spiffe://example.org/ns/shop");
    audited(&domain, &["\"revoked\"", "prefix spiffe://example.org/ns/shop"]).await;

    let denial = revoked["denial_id"].as_str().unwrap();
    domain.server.admin(&["allow", denial]).await.unwrap();
    raw.issue_good(&future).await.unwrap();
    assert_ne!(front.identity().await.svid.serial(), one.svid.serial());
}

#[tokio::test]
async fn what_is_no_target_or_belongs_to_the_control_plane_is_refused() {
    let domain = Domain::start().await.unwrap();
    for (args, word) in [
        (&["--prefix", "/signet/agent"][..], "--force"),
        (&["--prefix", "spiffe://example.org"], "whole trust domain"),
        (&["--prefix", "spiffe://other.org/a"], "another trust domain"),
        (&["--pod", "shop/nobody"], "no pod shop/nobody is known"),
        (&["--node", "nowhere"], "no node nowhere is known"),
        (&["--node", "node-a", "--cluster", "other"], "no such cluster"),
        (&["--issued-by", "xyz"], "not an authority id"),
        (&["--issued-by", &"ab".repeat(20)], "authority"),
        (&["--pod", "a/b", "--node", "c"], "cannot be used with"),
        (&["--serial", "01", "--wait", "--dry-run"], "cannot be used with"),
    ] {
        let said = refused(&domain, args).await;
        assert!(said.contains(word), "{args:?}: {said}");
    }
    assert!(denials(&domain).await.is_empty());
}

/// Covers INV-11.
#[tokio::test]
async fn a_pod_is_hit_alone_whatever_its_identity() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let victim = agent.workload(&pod_of(&domain, &agent, "shop", "web-0", "web").await);
    let twin = agent.workload(&pod_of(&domain, &agent, "shop", "web-1", "web").await);
    let updates = victim.watch().await.unwrap();
    let serial = victim.identity().await.svid.serial().to_string();
    let spared = twin.identity().await.svid.serial().to_string();

    let revoked = revoke(&domain, &["--pod", "shop/web-0", "--comment", "shell"]).await;
    assert_eq!(revoked["revoked_total"], 1, "{revoked}");
    assert_eq!(revoked["revoked"][0]["serial"], serial);
    loses_its_identity(updates).await;
    assert_eq!(victim.fetch().await.err().unwrap().code(), Code::PermissionDenied);
    keeps(&twin, &spared).await;
    let standing = denials(&domain).await;
    assert_eq!(standing[0]["kind"], "pod");
    assert!(
        standing[0]["target"]
            .as_str()
            .unwrap()
            .starts_with("shop/web-0, UID "),
        "{standing:?}"
    );
    let explained = domain
        .server
        .command(&["explain", "--pod", "shop/web-0"])
        .await
        .unwrap();
    assert!(
        explained.stdout.contains("pod shop/web-0"),
        "{}",
        explained.stdout
    );
    assert_eq!(explained.status.code(), Some(1), "{}", explained.stdout);

    let denial = revoked["denial_id"].as_str().unwrap();
    domain.server.admin(&["allow", denial]).await.unwrap();
    assert_ne!(victim.identity().await.svid.serial().to_string(), serial);
}

/// What a pod had outlives it: its name stands for all that had it, present or not.
#[tokio::test]
async fn a_pod_by_name_is_all_that_had_the_name() {
    let domain = Domain::start().await.unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    let mut serials = Vec::new();
    for _ in 0..3 {
        let token = domain.shop_pod("web-0", "node-a").unwrap();
        let issued = raw.issue_good(&token).await.unwrap();
        let leaf = inspect_leaf(&issued.certificate_chain[0]).unwrap();
        serials.push(Value::String(leaf.serial.to_string()));
        if serials.len() < 3 {
            domain.kube.delete_pod("shop", "web-0").unwrap();
        }
    }
    serials.sort_by_key(ToString::to_string);
    let hit = async |args: &[&str]| {
        let answer = revoke(&domain, &[&["--pod", "shop/web-0"], args].concat()).await;
        let svids = answer["revoked"].as_array().unwrap();
        let mut hit: Vec<Value> = svids.iter().map(|svid| svid["serial"].clone()).collect();
        hit.sort_by_key(ToString::to_string);
        hit
    };
    assert_eq!(hit(&["--dry-run"]).await, serials);
    domain.kube.delete_pod("shop", "web-0").unwrap();
    assert_eq!(hit(&["--cluster", CLUSTER]).await, serials);
    assert_eq!(denials(&domain).await.len(), 1);
}

/// Its agent and its pods, those of tomorrow too; another node is as before. Covers INV-11, INV-12.
#[tokio::test]
async fn a_node_is_shut_out_with_all_that_runs_on_it() {
    let domain = Domain::start().await.unwrap();
    let (mut bad, _) = domain.raw_agent("node-a").await.unwrap();
    let (mut good, _) = domain.raw_agent("node-b").await.unwrap();
    let (here, there) = (
        domain.shop_pod("here", "node-a").unwrap(),
        domain.shop_pod("there", "node-b").unwrap(),
    );
    bad.issue_good(&here).await.unwrap();
    good.issue_good(&there).await.unwrap();

    let revoked = revoke(&domain, &["--node", "node-a"]).await;
    assert_eq!(
        revoked["revoked_total"], 2,
        "the pod's and the agent's: {revoked}"
    );
    let ids = revoked["revoked"].to_string();
    assert!(
        ids.contains("/signet/agent/") && ids.contains(&id_of("here")),
        "{ids}"
    );
    let status = eventually("the agent to be shut out", async || bad.shut_out().await).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let error = domain.raw_agent("node-a").await.err().unwrap();
    let status = error.downcast_ref::<tonic::Status>().unwrap();
    assert_eq!(
        status.code(),
        Code::PermissionDenied,
        "it attested again: {status:?}"
    );
    good.issue_good(&there).await.unwrap();
    let again = domain.shop_pod("later", "node-b").unwrap();
    good.issue_good(&again).await.unwrap();
    assert_eq!(denials(&domain).await[0]["kind"], "node");

    let denial = revoked["denial_id"].as_str().unwrap();
    domain.server.admin(&["allow", denial]).await.unwrap();
    let (mut back, _) = domain.raw_agent("node-a").await.unwrap();
    back.issue_good(&here).await.unwrap();
}

#[tokio::test]
async fn an_agent_is_banned_by_its_node_and_the_answer_says_how_that_is_undone() {
    let domain = Domain::start().await.unwrap();
    let (mut bad, _) = domain.raw_agent("node-a").await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    bad.issue_good(&token).await.unwrap();
    let unknown = domain.server.command(&["agent", "ban", "node-z"]).await.unwrap();
    assert!(unknown.stderr.contains("agent list"), "{}", unknown.stderr);
    let banned = domain.server.command(&["agent", "ban", "node-a"]).await.unwrap();
    assert!(banned.status.success(), "{}", banned.stderr);
    let denial = denials(&domain).await[0]["id"].as_str().unwrap().to_owned();
    assert!(
        banned.stdout.contains(&format!("signet-server allow {denial}")),
        "{}",
        banned.stdout
    );
    eventually("the agent to be shut out", async || bad.shut_out().await).await;
    assert!(domain.raw_agent("node-a").await.is_err());
    audited(&domain, &["\"revoked\"", "/signet/agent/", &denial]).await;
    domain.server.admin(&["allow", &denial]).await.unwrap();
    let (mut back, _) = domain.raw_agent("node-a").await.unwrap();
    back.issue_good(&token).await.unwrap();
}

/// Whoever has one gets another by the authority that signs now, at once, and nobody is denied.
#[tokio::test]
async fn all_that_an_authority_signed_is_replaced() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let before = front.identity().await;
    let authority = before.svid.authority_id().to_string();
    let said = refused(&domain, &["--issued-by", &authority]).await;
    assert!(said.contains("ca rotate"), "{said}");
    let mut updates = front.watch().await.unwrap();
    domain.server.admin(&["ca", "rotate", "--force"]).await.unwrap();
    keeps(&front, &before.svid.serial().to_string()).await;
    let revoked = revoke(&domain, &["--issued-by", &authority, "--reason", "superseded"]).await;
    assert_eq!(revoked["denial_id"], Value::Null);
    assert!(revoked["revoked_total"].as_u64() >= Some(1), "{revoked}");
    let after = updates
        .until("a certificate by the other authority", |now| {
            now.svid.authority_id().to_string() != authority
        })
        .await;
    assert!(after.judge(&before.svid).is_err());
    assert!(denials(&domain).await.is_empty());
}

/// It names the agent that is away, and ends when that one is back and has the list.
#[tokio::test]
async fn to_wait_is_to_wait_for_every_agent() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let mut away = domain.agent("node-b").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    front.identity().await;
    eventually("both agents to report", async || {
        let agents = domain.server.admin(&["agent", "list"]).await.unwrap();
        let all = agents["agents"].as_array().unwrap();
        let reported = all
            .iter()
            .filter(|agent| agent["sequence_number"].as_u64() > Some(0));
        (reported.count() == 2).then_some(())
    })
    .await;
    away.kill().await;
    let id = id_of("front");
    let args = ["revoke", "--spiffe-id", &id, "--wait", "-o", "json"];
    let socket = domain.server.admin_socket();
    let env = [("SIGNET_ADMIN_SOCKET", socket.to_str().unwrap())];
    let mut waits = Process::start("revoke", &binary("signet-server"), args, &env).unwrap();
    eventually("the one that is there to report", async || {
        let said = waits.stderr();
        let lines = said
            .lines()
            .filter(|line| line.contains("reported by 1 of 2 agents"));
        let names = |line: &str| {
            line.contains("node-b") && line.contains("not connected") && !line.contains("node-a")
        };
        lines.into_iter().any(names).then_some(())
    })
    .await;
    assert!(waits.is_running(), "it ended without node-b: {}", waits.said());
    assert!(
        !waits.stderr().contains("reported by 2 of 2 agents"),
        "{}",
        waits.stderr()
    );
    away.start().await.unwrap();
    let status = waits.wait(PATIENCE).await.unwrap();
    assert!(status.success(), "{}", waits.stderr());
    let last = waits.stderr().lines().last().map(str::to_owned);
    assert!(
        last.is_some_and(|line| line.contains("reported by 2 of 2 agents")),
        "{}",
        waits.stderr()
    );
    let answer: Value = serde_json::from_str(&waits.stdout()).unwrap();
    assert_eq!(answer["published"], true);
}

/// Only where that is wanted, without a denial, and nobody else loses anything.
#[tokio::test]
async fn what_a_deleted_pod_had_is_revoked_where_that_is_wanted() {
    let plan = Plan::default().server("/revocation/on_pod_deletion", true.into());
    let domain = plan.start().await.unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    let mut serials = Vec::new();
    for name in ["goes", "stays"] {
        let token = domain.shop_pod(name, "node-a").unwrap();
        let issued = raw.issue_good(&token).await.unwrap();
        serials.push(
            inspect_leaf(&issued.certificate_chain[0])
                .unwrap()
                .serial
                .to_string(),
        );
    }
    domain.kube.delete_pod("shop", "goes").unwrap();
    let listed = eventually("the list", async || {
        let shown = domain.server.admin(&["crl", "show"]).await.ok()?.to_string();
        shown.contains(&serials[0]).then_some(shown)
    })
    .await;
    assert!(!listed.contains(&serials[1]), "{listed}");
    assert!(listed.contains("cessationOfOperation"), "{listed}");
    assert!(denials(&domain).await.is_empty());
    audited(&domain, &["\"revoked\"", "its pod is gone", "\"system\""]).await;
}

#[tokio::test]
async fn a_list_says_since_when_a_key_was_somebody_elses() {
    let domain = Domain::start().await.unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    let issued = raw
        .issue_good(&domain.shop_pod("front", "node-a").unwrap())
        .await
        .unwrap();
    let serial = inspect_leaf(&issued.certificate_chain[0])
        .unwrap()
        .serial
        .to_string();
    let by = |since| {
        [
            "--serial",
            &serial,
            "--reason",
            "keyCompromise",
            "--invalid-since",
            since,
        ]
        .map(str::to_owned)
    };
    for (since, word) in [("yesterday", "no time"), ("2099-01-01T00:00:00Z", "time to come")] {
        let args = by(since);
        let said = refused(&domain, &args.each_ref().map(String::as_str)).await;
        assert!(said.contains(word), "{said}");
    }
    let args = by("2026-01-02T03:04:05Z");
    revoke(&domain, &args.each_ref().map(String::as_str)).await;
    let shown = domain.server.admin(&["crl", "show"]).await.unwrap();
    let entries = shown["crls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|crl| crl["entries"].as_array().unwrap());
    let entry = entries
        .into_iter()
        .find(|entry| entry["serial"] == serial)
        .unwrap();
    assert_eq!(entry["invalid_since"], "2026-01-02T03:04:05Z");
    audited(&domain, &["\"revoked\"", "2026-01-02T03:04:05Z", &serial]).await;
}
