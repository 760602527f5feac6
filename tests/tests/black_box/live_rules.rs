//! Rules that change while server, agents and pods run.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use signet_testkit::provoked;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    kubelet::Volume,
    wait::eventually,
};

use crate::support::{audited, id_of, pod_with_volume};

/// A rule of the file that gives `/extra/<account>` to one account of `shop`.
fn extra(account: &str) -> Value {
    json!({
        "name": format!("extra-{account}"),
        "match": { "namespaces": ["shop"], "service_accounts": [account] },
        "spiffe_id": "/extra/{service_account}",
    })
}

fn deny(account: &str) -> Value {
    json!({
        "name": format!("no-{account}"),
        "match": { "namespaces": ["shop"], "service_accounts": [account] },
        "deny": true,
    })
}

fn extra_of(account: &str) -> String {
    format!("spiffe://example.org/extra/{account}")
}

/// Writes rules into the server's file.
fn write(domain: &mut Domain, rules: &[Value]) {
    domain
        .server
        .change(&[("/rules".to_owned(), json!(rules))])
        .unwrap();
}

fn hangup(domain: &mut Domain) {
    domain.server.process().unwrap().signal(Signal::SIGHUP);
}

/// What a pod is served now; none while it is refused.
async fn served(agent: &Agent, volume: &Volume) -> Vec<String> {
    let answer = agent.workload(volume).fetch().await;
    let ids = answer.into_iter().flat_map(|identity| identity.ids);
    ids.map(|id| id.to_string()).collect()
}

async fn until_served(what: &str, agent: &Agent, volume: &Volume, ids: &[String]) {
    eventually(what, async || (served(agent, volume).await == ids).then_some(())).await;
}

async fn rules_of(domain: &Domain) -> Value {
    domain.server.admin(&["status"]).await.unwrap()["rules"].clone()
}

#[tokio::test]
async fn a_hangup_and_a_changed_file_give_running_pods_identities_and_take_them() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = pod_with_volume(&domain, &agent, "front").await;
    let back = pod_with_volume(&domain, &agent, "back").await;
    until_served("front", &agent, &front, &[id_of("front")]).await;
    until_served("back", &agent, &back, &[id_of("back")]).await;
    let before = rules_of(&domain).await["revision"].clone();

    write(&mut domain, &[extra("front"), deny("back")]);
    hangup(&mut domain);
    until_served("nothing more", &agent, &back, &[]).await;
    let both = [extra_of("front"), id_of("front")];
    until_served("another identity", &agent, &front, &both).await;
    let lines = audited(&domain, &["rules_changed", "\"source\""]).await;
    let lines = provoked("rules_changed", &lines);
    assert_eq!(lines[0]["withdrawn"], 1, "{lines:?}");
    assert_eq!(lines[0]["previous_revision"], before, "{lines:?}");

    // No signal: the file is looked at.
    write(&mut domain, &[]);
    until_served("the first again", &agent, &back, &[id_of("back")]).await;
    until_served("the first alone", &agent, &front, &[id_of("front")]).await;
    assert_eq!(rules_of(&domain).await["revision"], before);
}

#[tokio::test]
async fn a_faulty_file_and_other_keys_are_told_and_change_nothing() {
    let mut domain = Domain::start().await.unwrap();
    let mut nameless = extra("front");
    nameless["name"] = json!("");
    write(&mut domain, &[nameless]);
    hangup(&mut domain);
    let problem = eventually("the problem", async || {
        let problem = rules_of(&domain).await["problem"].as_str()?.to_owned();
        (!problem.is_empty()).then_some(problem)
    });
    let problem = problem.await;
    assert!(
        problem.contains("rules[0]") && problem.contains("a name has"),
        "{problem}"
    );
    domain
        .server
        .change(&[
            ("/rules".to_owned(), json!([extra("front")])),
            ("/svid/ttl".to_owned(), json!("30m")),
        ])
        .unwrap();
    hangup(&mut domain);
    eventually("the keys that need a restart", async || {
        let rules = rules_of(&domain).await;
        (rules["restart_for"] == json!(["svid.ttl"]) && rules["count"] == 2 && rules["problem"] == "")
            .then_some(())
    })
    .await;
    let said = domain.server.said();
    assert!(
        said.contains("that needs a restart") && said.contains("svid.ttl"),
        "{said}"
    );
}

/// Over the bound: kept out through a power cut, until it is confirmed by its revision.
#[tokio::test]
async fn an_edit_that_withdraws_much_waits_also_over_a_power_cut_until_it_is_confirmed() {
    let mut domain = Plan::default()
        .server("/rules_confirm_above", json!(1))
        .start()
        .await
        .unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = pod_with_volume(&domain, &agent, "front").await;
    let back = pod_with_volume(&domain, &agent, "back").await;
    until_served("front", &agent, &front, &[id_of("front")]).await;
    until_served("back", &agent, &back, &[id_of("back")]).await;
    let in_force = rules_of(&domain).await["revision"].clone();

    let only_front = json!({ "name": "front", "match": { "namespaces": ["shop"], "service_accounts": ["front"] }, "spiffe_id": "/only/front" });
    let edit = [
        ("/rules".to_owned(), json!([only_front])),
        ("/builtin_rule".to_owned(), json!(false)),
    ];
    domain.server.change(&edit).unwrap();
    hangup(&mut domain);
    let waits = async |domain: &Domain| {
        eventually("an edit that waits", async || {
            let waiting = rules_of(domain).await["waiting"].clone();
            (!waiting.is_null()).then_some(waiting)
        })
        .await
    };
    let waiting = waits(&domain).await;
    assert_eq!(waiting["withdrawn"], 2, "{waiting}");
    assert_eq!(served(&agent, &back).await, [id_of("back")]);

    domain.server.kill().await;
    domain.server.start().await.unwrap();
    let again = waits(&domain).await;
    assert_eq!(again["revision"], waiting["revision"]);
    assert_eq!(rules_of(&domain).await["revision"], in_force);
    // Who comes now is served by what is in force.
    let late = pod_with_volume(&domain, &agent, "late").await;
    until_served("late", &agent, &late, &[id_of("late")]).await;

    let stale = in_force.as_str().unwrap();
    let refused = domain
        .server
        .admin(&["rule", "confirm", stale])
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("others"), "{refused}");
    let revision = waiting["revision"].as_str().unwrap();
    let confirmed = domain.server.admin(&["rule", "confirm", revision]).await.unwrap();
    assert_eq!(confirmed["withdrawn"], 3, "{confirmed}");
    until_served("nothing more", &agent, &back, &[]).await;
    until_served(
        "the other one",
        &agent,
        &front,
        &["spiffe://example.org/only/front".to_owned()],
    )
    .await;
    let lines = audited(&domain, &["rules_changed", "\"uid:"]).await;
    assert_eq!(lines[0]["withdrawn"], 3, "{lines:?}");

    domain.server.kill().await;
    domain.server.start().await.unwrap();
    let rules = rules_of(&domain).await;
    assert_eq!(rules["revision"], waiting["revision"], "{rules}");
    assert!(rules["waiting"].is_null(), "{rules}");
}
