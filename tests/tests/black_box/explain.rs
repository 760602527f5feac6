//! Why not: what a workload, and an admin, are told of an identity that does not come. By the real programs.

mod ended;

use std::path::Path;

use serde_json::{Value, json};
use signet_runtime::table::Table;
use signet_testkit::golden;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    fake_kube::PodSpec,
    kubelet::Volume,
    process::{Finished, binary, run},
    wait::eventually,
};

use super::support::{audited, id_of, pod_with_volume};

/// What the command of the agent says over a socket, whatever its status.
async fn asked(socket: &Path, args: &[&str]) -> Finished {
    let address = format!("unix://{}", socket.display());
    let all = [&["explain", "--socket", &address], args].concat();
    run(&binary("signet-agent"), all, &[]).await.unwrap()
}

fn json_of(finished: &Finished, fails: bool) -> Value {
    assert_eq!(finished.status.code(), Some(i32::from(fails)), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// The step that fails first, its words and its remedy.
async fn why(socket: &Path) -> (String, String, String) {
    let told = json_of(&asked(socket, &["-o", "json"]).await, true);
    let fails = told["fails"].as_str().unwrap().to_owned();
    let steps = told["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["state"] == "fails").unwrap();
    assert_eq!(step["step"], fails.as_str());
    let text = |key: &str| step[key].as_str().unwrap().to_owned();
    (fails, text("says"), text("remedy"))
}

/// What the server says of a pod, once it knows of the pod's volume.
async fn of_pod(domain: &Domain, pod: &str) -> Value {
    eventually("the agent to report the volume", async || {
        let asked = domain
            .server
            .command(&["explain", "--pod", pod, "-o", "json"])
            .await
            .unwrap();
        let told: Value = serde_json::from_str(&asked.stdout).unwrap();
        let agent = finding(&told, "agent")?;
        assert_eq!(
            asked.status.code(),
            Some(if told["granted"] == true { 0 } else { 1 })
        );
        (agent["state"] == "ok").then_some(told)
    })
    .await
}

fn finding<'t>(told: &'t Value, about: &str) -> Option<&'t Value> {
    told["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["about"] == about)
}

/// A trust domain that gives identities to pods of `shop` with the label `app=web`, alone.
async fn web_only() -> (Domain, Agent, Volume) {
    let rules = json!([
        { "name": "bank", "match": { "namespaces": ["bank"] }, "spiffe_id": "/bank/{service_account}" },
        { "name": "web", "match": { "namespaces": ["shop"], "pod_labels": { "app": "web" } }, "spiffe_id": "/web/{service_account}" },
    ]);
    let plan = Plan::default()
        .server("/rules", rules)
        .server("/builtin_rule", json!(false));
    let domain = plan.start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let pod = PodSpec::new("shop", "front")
        .service_account("front")
        .node("node-a");
    domain.kube.add_pod(&pod.label("app", "api")).unwrap();
    let volume = agent.publish("shop", "front").await.unwrap();
    (domain, agent, volume)
}

#[tokio::test]
async fn a_pod_that_no_rule_matches_is_told_the_nearest_and_what_differs() {
    let (domain, agent, volume) = web_only().await;
    let (step, says, remedy) = why(&agent.socket(&volume)).await;
    assert_eq!(step, "answer");
    assert!(says.contains("no rule gives this workload an identity"), "{says}");
    assert!(
        remedy.contains("`signet-server explain --pod shop/front`"),
        "{remedy}"
    );

    let told = of_pod(&domain, "shop/front").await;
    let rules = finding(&told, "rules").unwrap();
    assert_eq!(
        (&rules["state"], &told["granted"]),
        (&json!("fails"), &json!(false))
    );
    assert_eq!(
        rules["says"],
        "none of 2 rules matches it; the nearest, \"web\", wants pod_labels app=web and found app=api"
    );
    assert_eq!(told["rules"][0]["name"], "web");
    let mismatch = json!({ "criterion": "pod_labels", "wanted": "app=web", "found": "app=api" });
    assert_eq!(told["rules"][0]["mismatches"], json!([mismatch]));
    assert_eq!(told["rules"][1]["mismatches"][0]["criterion"], "namespaces");
    assert!(
        finding(&told, "refusals").unwrap()["says"]
            .as_str()
            .unwrap()
            .contains("no_match")
    );

    // What people read of both stands in docs/operating.md.
    let agents = asked(&agent.socket(&volume), &[]).await;
    read_in_docs("explain/agent", &readable(&agents.stdout, &agent.socket(&volume)));
    let servers = domain
        .server
        .command(&["explain", "--pod", "shop/front"])
        .await
        .unwrap();
    read_in_docs(
        "explain/server",
        &readable(&servers.stdout, Path::new("/nowhere")),
    );

    audited(&domain, &["\"method\":\"ExplainPod\"", "pod shop/front"]).await;
}

#[tokio::test]
async fn one_that_gets_its_identity_is_told_every_step_and_by_its_id_its_holder_is_found() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let told = json_of(&asked(&agent.socket(&volume), &["-o", "json"]).await, false);
    let steps: Vec<_> = told["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    let all = [
        "address",
        "path",
        "permission",
        "connection",
        "grpc",
        "agent",
        "caller",
        "evidence",
        "server",
        "answer",
        "clock",
        "identity",
        "bundle",
        "list",
        "verification",
    ];
    assert_eq!(steps, all, "{told}");
    assert_eq!(told["spiffe_ids"], json!([id_of("front")]));
    assert_eq!(told["caller"]["pod"], "shop/front");
    assert_eq!(told["server"]["connected"], true);
    assert_eq!(told["svids"][0]["spiffe_id"], id_of("front").as_str());

    let pod = of_pod(&domain, "shop/front").await;
    assert_eq!(pod["granted"], true, "{pod}");
    assert_eq!(pod["svids"][0]["serial"], told["svids"][0]["serial"]);
    let of_id = domain
        .server
        .admin(&["explain", "--spiffe-id", "/ns/shop/sa/front"])
        .await
        .unwrap();
    assert_eq!(of_id["pods"][0]["name"], "front", "{of_id}");
    assert_eq!(of_id["rules"][0]["pinned"]["{service_account}"], "front");
    assert_eq!(of_id["svids"][0]["serial"], told["svids"][0]["serial"]);
    let nobodys = domain
        .server
        .command(&["explain", "--spiffe-id", "/other", "-o", "json"])
        .await
        .unwrap();
    let nobodys = json_of(&nobodys, true);
    assert!(
        nobodys["verdict"]
            .as_str()
            .unwrap()
            .contains("no rule has a template that can give it"),
        "{nobodys}"
    );
}

#[tokio::test]
async fn one_that_is_denied_is_told_by_what() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let order = ["revoke", "--spiffe-id", &id_of("front"), "--comment", "leaked"];
    let denied = domain.server.admin(&order).await.unwrap();
    let denial = denied["denial_id"].as_str().unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let (step, says, remedy) = why(&agent.socket(&volume)).await;
    assert_eq!(step, "answer");
    assert!(
        says.contains(denial) && remedy.contains("--pod shop/front"),
        "{says}: {remedy}"
    );
    let told = of_pod(&domain, "shop/front").await;
    let found = finding(&told, "denials").unwrap();
    assert!(found["says"].as_str().unwrap().contains("leaked"), "{found}");
    assert_eq!(
        found["remedy"],
        format!("if it may have it again: `signet-server allow {denial}`")
    );
    let of_id = domain
        .server
        .command(&["explain", "--spiffe-id", &id_of("front"), "-o", "json"])
        .await
        .unwrap();
    let of_id = json_of(&of_id, true);
    assert!(
        of_id["verdict"].as_str().unwrap().starts_with("nobody gets"),
        "{of_id}"
    );
    assert_eq!(of_id["denials"][0]["id"], denial);
}

#[tokio::test]
async fn while_the_server_is_away_a_new_pod_is_told_since_when_and_an_old_one_keeps_its_own() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let old = pod_with_volume(&domain, &agent, "old").await;
    agent.workload(&old).identity().await;
    domain.server.stop().await.unwrap();
    let new = pod_with_volume(&domain, &agent, "new").await;
    let (step, says, remedy) = eventually("the agent to notice", async || {
        let told = why(&agent.socket(&new)).await;
        (told.0 == "server").then_some(told)
    })
    .await;
    assert_eq!(step, "server");
    assert!(says.contains("not connected to its server since 20"), "{says}");
    assert!(remedy.contains("`signet-server status`"), "{remedy}");
    let told = json_of(&asked(&agent.socket(&old), &["-o", "json"]).await, false);
    let server = told["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["step"] == "server")
        .unwrap();
    assert_eq!(server["state"], "note", "{told}");
    let asked = domain
        .server
        .command(&["explain", "--pod", "shop/new"])
        .await
        .unwrap();
    assert_eq!(asked.status.code(), Some(2));
    assert!(
        asked.stderr.contains("cannot reach the server"),
        "{}",
        asked.stderr
    );
}

#[tokio::test]
async fn a_wrong_path_a_dead_agent_and_another_pods_name_are_told() {
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let socket = agent.socket(&volume);
    let folder = socket.parent().unwrap();
    let (step, says, _) = why(&folder.join("other.sock")).await;
    assert!(
        step == "path" && says.contains("other.sock does not exist"),
        "{says}"
    );
    let (step, _, remedy) = why(folder).await;
    assert!(
        step == "path" && remedy.contains(&format!("unix://{}", socket.display())),
        "{remedy}"
    );
    agent.kill().await;
    let (step, says, remedy) = why(&socket).await;
    assert!(
        step == "connection" && says.contains("nobody listens"),
        "{step}: {says}"
    );
    assert!(remedy.contains("start the agent"), "{remedy}");

    let asked = domain
        .server
        .command(&["explain", "--pod", "shop/none", "-o", "json"])
        .await
        .unwrap();
    let told = json_of(&asked, true);
    assert_eq!(
        told["verdict"],
        "pod shop/none gets nothing: there is no pod shop/none in box"
    );
    for wrong in [
        ["--pod", "none"],
        ["--pod", "a/b/c"],
        ["--spiffe-id", "spiffe://other.org/x"],
    ] {
        let asked = domain
            .server
            .command(&["explain", wrong[0], wrong[1]])
            .await
            .unwrap();
        assert_eq!(asked.status.code(), Some(2), "{wrong:?}");
    }
}

/// A process outside pods is told for whom it is taken, and of no other.
#[tokio::test]
async fn a_process_is_told_its_own_facts() {
    let uid = nix::unistd::getuid().as_raw();
    let shell = json!([{
        "name": "shell",
        "match": { "evidence": ["unix"], "unix": { "uids": [uid] } },
        "spiffe_id": "/shell/{uid}",
    }]);
    let domain = Plan::default().server("/rules", shell).start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    pod_with_volume(&domain, &agent, "front").await;
    let told = json_of(&asked(&agent.shell_socket(), &["-o", "json"]).await, false);
    assert_eq!(told["caller"]["kind"], "unix");
    assert_eq!(told["caller"]["process"]["uid"], uid);
    assert!(
        told["caller"]["process"]["path"]
            .as_str()
            .unwrap()
            .ends_with("signet-agent"),
        "{told}"
    );
    assert_eq!(
        told["spiffe_ids"],
        json!([format!("spiffe://example.org/shell/{uid}")])
    );
    assert!(!told.to_string().contains("front"), "{told}");
}

/// The API server is asked for a pod that the watch does not show, once for each question, and no token is reviewed.
#[tokio::test]
async fn explaining_reviews_no_token_and_reads_no_more_than_one_pod() {
    use signet_tests::fake_kube::Endpoint;
    let (domain, agent, volume) = web_only().await;
    why(&agent.socket(&volume)).await;
    of_pod(&domain, "shop/front").await;
    let calls = || {
        (
            domain.kube.calls(Endpoint::TokenReviews),
            domain.kube.calls(Endpoint::Pods),
        )
    };
    let before = calls();
    of_pod(&domain, "shop/front").await;
    assert_eq!(calls(), before, "the watch shows it");
    domain
        .server
        .command(&["explain", "--pod", "shop/none"])
        .await
        .unwrap();
    assert_eq!(calls(), (before.0, before.1 + 1));
}

mod needs_root {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[tokio::test]
    #[ignore = "needs root: `.ci/step machine` runs it"]
    async fn who_may_not_open_the_socket_is_told_whose_it_is() {
        let domain = Domain::start().await.unwrap();
        let agent = domain.agent("node-a").await.unwrap();
        let socket = agent.shell_socket();
        for folder in socket
            .ancestors()
            .skip(1)
            .take_while(|folder| folder.starts_with(domain.path()))
        {
            std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let program = socket.with_file_name("explains");
        std::fs::copy(binary("signet-agent"), &program).unwrap();
        let address = format!("unix://{}", socket.display());
        let asked = std::process::Command::new(&program)
            .args(["explain", "--socket", &address, "-o", "json"])
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap();
        assert_eq!(asked.status.code(), Some(1));
        let told: Value = serde_json::from_slice(&asked.stdout).unwrap();
        assert_eq!(told["fails"], "permission", "{told}");
        let step = told["steps"].as_array().unwrap().last().unwrap();
        assert_eq!(
            step["says"],
            "user 65534 of group 65534 may not open it: it is of user 0 and group 0, mode 0600"
        );
        assert!(
            step["remedy"].as_str().unwrap().contains("shared_socket.mode"),
            "{step}"
        );

        std::fs::set_permissions(
            agent.folder(),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .unwrap();
        // It was opened before the folder was closed.
        let program = domain.path().join("explains");
        std::fs::copy(binary("signet-agent"), &program).unwrap();
        let asked = std::process::Command::new(&program)
            .args(["explain", "--socket", &address])
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap();
        let said = String::from_utf8(asked.stdout).unwrap();
        assert!(
            said.contains(&format!("may not look into {}", agent.folder().display())),
            "{said}"
        );
    }
}

/// As it was printed, but for what differs with each run.
fn readable(text: &str, socket: &Path) -> String {
    let text = text.replace(&socket.display().to_string(), "/spiffe/spiffe.sock");
    let mut blocks = text.split("\n\n").map(|block| {
        let lines: Vec<_> = block.lines().map(same_words).collect();
        match lines.first() {
            Some(head)
                if head.contains("STEP") || head.contains("LOOKED AT") || head.starts_with("RULE ") =>
            {
                aligned(&lines)
            }
            _ => format!("{}\n", lines.join("\n")),
        }
    });
    let blocks: Vec<_> = blocks.by_ref().collect();
    blocks.join("\n")
}

fn aligned(lines: &[String]) -> String {
    let cells = |line: &str| -> Vec<String> {
        let (first, rest) = line.split_once("  ").unwrap_or((line, ""));
        let rest = rest.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        [first.trim()]
            .into_iter()
            .chain(rest)
            .map(ToOwned::to_owned)
            .collect()
    };
    let heads = cells(&lines[0]);
    let mut table = Table::new(&heads.iter().map(String::as_str).collect::<Vec<_>>());
    for line in &lines[1..] {
        table.row(cells(line));
    }
    table.render()
}

/// Times, UIDs and users are those of a sample.
fn same_words(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
    for at in 0..words.len() {
        let bare = words[at].trim_matches([',', ':', ';']).to_owned();
        let is_uid = bare.len() == 36 && bare.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let is_time = bare.len() == 20 && bare.ends_with('Z') && bare.starts_with("20");
        let is_number = bare.parse::<f64>().is_ok();
        let before = at
            .checked_sub(1)
            .map(|before| words[before].clone())
            .unwrap_or_default();
        let sample = if is_uid {
            "9e4c2c67-6f0a-4d2a-9a51-3f1f8a2f0c11"
        } else if is_time {
            "2026-11-27T08:00:00Z"
        } else if is_number && words.get(at + 1).is_some_and(|next| next.starts_with("ms")) {
            "0.4"
        } else if is_number && matches!(before.as_str(), "user" | "group") {
            "1000"
        } else {
            continue;
        };
        words[at] = words[at].replace(&bare, sample);
    }
    words.join(" ")
}

/// The output of a command, as people have read it, and as the document shows it.
fn read_in_docs(name: &str, text: &str) {
    let root = env!("CARGO_MANIFEST_DIR");
    golden(root, name, text);
    let document = std::fs::read_to_string(Path::new(root).join("../docs/operating.md")).unwrap();
    assert!(document.contains(text), "docs/operating.md does not show\n{text}");
}
