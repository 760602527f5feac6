//! Rules that admins set while server, agents and pods run, beside those of the file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use signet_testkit::provoked;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    kubelet::Volume,
    process::{Process, binary},
    wait::eventually,
};

use super::support::{audited, id_of, pod_with_volume};

fn file(folder: &Path, rule: &str) -> PathBuf {
    let path = folder.join("rule.yaml");
    fs::write(&path, rule).unwrap();
    path
}

fn extra(name: &str, account: &str) -> String {
    format!(
        "name: {name}\nmatch:\n  namespaces: [shop]\n  service_accounts: [{account}]\nspiffe_id: /extra/{{service_account}}\n"
    )
}

async fn set(domain: &Domain, rule: &str) -> anyhow::Result<Value> {
    let folder = signet_testkit::folder();
    let path = file(folder.path(), rule);
    domain
        .server
        .admin(&["rule", "set", path.to_str().unwrap()])
        .await
}

async fn rules(domain: &Domain) -> Value {
    domain.server.admin(&["rule", "list"]).await.unwrap()
}

/// Name and source of each in force.
async fn sources(domain: &Domain) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rules = rules(domain).await["rules"].as_array().unwrap().clone();
    rules
        .iter()
        .map(|rule| (text(&rule["name"]), text(&rule["source"])))
        .collect()
}

fn are(sources: &[(String, String)], wanted: &[(&str, &str)]) -> bool {
    let have = sources
        .iter()
        .map(|(name, source)| (name.as_str(), source.as_str()));
    have.eq(wanted.iter().copied())
}

async fn served(agent: &Agent, volume: &Volume) -> Vec<String> {
    let answer = agent.workload(volume).fetch().await;
    let ids = answer.into_iter().flat_map(|identity| identity.ids);
    ids.map(|id| id.to_string()).collect()
}

async fn until_served(what: &str, agent: &Agent, volume: &Volume, ids: &[String]) {
    eventually(what, async || (served(agent, volume).await == ids).then_some(())).await;
}

/// At once, and the log says whose it was.
async fn delete_extra(domain: &Domain, set_by: &str) {
    let deleted = domain.server.admin(&["rule", "delete", "extra"]).await.unwrap();
    assert_eq!(deleted["waiting"], Value::Null);
    let lines = audited(domain, &["\"rule_deleted\"", "extra"]).await;
    assert_eq!(provoked("rule_deleted", &lines)[0]["set_by"], *set_by);
}

#[tokio::test]
async fn a_rule_that_is_set_gives_a_running_pod_an_identity_and_deleted_takes_it() {
    let of_file = json!([{ "name": "of-file", "match": { "namespaces": ["shop"], "service_accounts": ["x"] }, "spiffe_id": "/x" }]);
    let mut domain = Plan::default().server("/rules", of_file).start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = pod_with_volume(&domain, &agent, "front").await;
    until_served("front", &agent, &front, &[id_of("front")]).await;
    let folder = signet_testkit::folder();
    let path = file(folder.path(), &extra("extra", "front"));
    let path = path.to_str().unwrap();

    let tried = domain
        .server
        .admin(&["rule", "test", "--pod", "shop/front", "--rule", path])
        .await
        .unwrap();
    let more = "spiffe://example.org/extra/front".to_owned();
    assert_eq!(tried["pod"]["now"]["identities"][0]["spiffe_id"], id_of("front"));
    assert_eq!(tried["pod"]["with_rule"]["identities"][0]["spiffe_id"], *more);
    assert_eq!(tried["effect"]["given"], 1);
    assert_eq!(tried["effect"]["given_examples"][0]["holder"], "pod shop/front");
    assert_eq!(tried["effect"]["withdrawn"], 0);
    assert!(are(
        &sources(&domain).await,
        &[("of-file", "file"), ("builtin", "builtin")]
    ));

    set(&domain, &extra("extra", "front")).await.unwrap();
    until_served(
        "another identity",
        &agent,
        &front,
        &[more.clone(), id_of("front")],
    )
    .await;
    let both = [("of-file", "file"), ("extra", "admin"), ("builtin", "builtin")];
    assert!(are(&sources(&domain).await, &both));
    let uid = format!("uid:{}", nix::unistd::getuid());
    let lines = audited(&domain, &["rules_changed", &format!("\"{uid}\"")]).await;
    provoked("rules_changed", &lines);
    assert_eq!(rules(&domain).await["rules"][1]["set_by"], *uid);
    let lines = audited(&domain, &["\"rule_set\"", "extra"]).await;
    let line = provoked("rule_set", &lines)[0];
    assert_eq!(line["author"], *uid);
    assert_eq!(line["rule"]["spiffe_id"], "/extra/{service_account}");
    let calls = audited(&domain, &["admin_call", "\"SetRule\""]).await;
    assert_eq!(
        (&calls[0]["target"], &calls[0]["outcome"]),
        (&json!("rule extra"), &json!("ok"))
    );

    // An edit of the file by SIGHUP, a restart and a power cut leave it.
    domain.server.change(&[("/rules".to_owned(), json!([]))]).unwrap();
    domain.server.process().unwrap().signal(Signal::SIGHUP);
    let own = [("extra", "admin"), ("builtin", "builtin")];
    eventually("the file's edit", async || {
        are(&sources(&domain).await, &own).then_some(())
    })
    .await;
    domain.server.kill().await;
    domain.server.start().await.unwrap();
    assert!(are(&sources(&domain).await, &own));
    assert_eq!(rules(&domain).await["problem"], "");

    delete_extra(&domain, &uid).await;
    until_served("the first alone", &agent, &front, &[id_of("front")]).await;
}

#[tokio::test]
async fn what_would_take_much_waits_until_it_is_confirmed() {
    let of_file = json!([{ "name": "of-file", "match": { "namespaces": ["shop"], "service_accounts": ["x"] }, "spiffe_id": "/x" }]);
    let domain = Plan::default()
        .server("/rules", of_file)
        .server("/rules_confirm_above", json!(0))
        .start()
        .await
        .unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = pod_with_volume(&domain, &agent, "front").await;
    until_served("front", &agent, &front, &[id_of("front")]).await;

    let deny = "name: none\nmatch: { namespaces: [shop] }\ndeny: true\n";
    let refused = set(&domain, deny).await.unwrap_err().to_string();
    assert!(refused.contains("signet-server rule confirm"), "{refused}");
    let listed = rules(&domain).await;
    assert_eq!(listed["waiting"]["withdrawn"], 1, "{listed}");
    assert_eq!(listed["waiting"]["rules"][1]["source"], "admin", "{listed}");
    assert_eq!(served(&agent, &front).await, [id_of("front")]);
    let revision = listed["waiting"]["revision"].as_str().unwrap();
    domain.server.admin(&["rule", "confirm", revision]).await.unwrap();
    until_served("nothing more", &agent, &front, &[]).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_told_with_its_place_and_remedy() {
    let of_file = json!([{ "name": "of-file", "match": { "namespaces": ["shop"], "service_accounts": ["x"] }, "spiffe_id": "/x" }]);
    let domain = Plan::default().server("/rules", of_file).start().await.unwrap();
    let folder = signet_testkit::folder();
    let told = [
        (
            extra("of-file", "front"),
            "rule.yaml: rule `of-file`: the configuration file has a rule of this name; change it there",
        ),
        (
            extra("builtin", "front"),
            "rule.yaml: rule `builtin`: the name belongs to the built-in rule",
        ),
        (
            "name: a\nspiffe_id: /{nonsense}\n".to_owned(),
            "rule.yaml: rule `a`: `/{nonsense}` is not a template for a SPIFFE ID",
        ),
        (
            "name: a\nmatch:\n  namespace: [shop]\nspiffe_id: /a\n".to_owned(),
            "rule.yaml:3:3: match.namespace: unknown key `namespace`; did you mean `namespaces`?",
        ),
        (String::new(), "rule.yaml"),
    ];
    for (rule, why) in told {
        let path = file(folder.path(), &rule);
        let path = path.to_str().unwrap();
        for command in [&["rule", "set", path][..], &["rule", "test", "--rule", path][..]] {
            let finished = domain.server.command(command).await.unwrap();
            assert!(!finished.status.success());
            let said = finished.stderr;
            let wanted = if command[1] == "set" {
                why
            } else {
                why.trim_start_matches("rule.yaml: ")
            };
            assert!(said.contains(wanted), "{command:?}: {wanted} is not in {said}");
        }
    }
    let refused = domain
        .server
        .admin(&["rule", "delete", "of-file"])
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("remove it there"), "{refused}");
}

/// However late in a command the power goes: afterwards all of it is there, or nothing.
#[tokio::test]
async fn a_power_cut_between_an_edit_and_its_answer_leaves_all_of_it_or_nothing() {
    let mut domain = Domain::start().await.unwrap();
    let folder = signet_testkit::folder();
    let socket = domain.server.admin_socket();
    let mut wanted_before: Vec<String> = Vec::new();
    let log = domain.server.data_dir().join("signet.db-wal");
    let written = || fs::metadata(&log).and_then(|log| log.modified()).ok();
    for round in 0..8_u32 {
        let name = format!("r{round}");
        let path = file(folder.path(), &extra(&name, &name));
        let mut command = Process::start(
            "rule set",
            &binary("signet-server"),
            ["rule", "set", path.to_str().unwrap()],
            &[("SIGNET_ADMIN_SOCKET", socket.to_str().unwrap())],
        )
        .unwrap();
        // At once; when something is written, which is within the transaction or just behind it; and when it is done.
        let before = written();
        let mut turns = 0_u64;
        while round > 0
            && command.is_running()
            && (round % 2 == 0 || written() == before || turns < u64::from(round) * 50)
        {
            turns += 1;
            tokio::task::yield_now().await;
        }
        domain.server.kill().await;
        let answered = command.ended().await.unwrap().success();
        domain.server.start().await.unwrap();
        let listed = rules(&domain).await;
        assert_eq!(
            (&listed["problem"], &listed["waiting"]),
            (&json!(""), &Value::Null),
            "{listed}"
        );
        let sources = sources(&domain).await;
        let set = sources.iter().filter(|(_, source)| source == "admin");
        let set: Vec<String> = set.map(|(name, _)| name.clone()).collect();
        let with = [wanted_before.clone(), vec![name.clone()]].concat();
        assert!(
            set == with || (set == wanted_before && !answered),
            "{round}: {set:?}, answered: {answered}"
        );
        wanted_before = set;
    }
}
