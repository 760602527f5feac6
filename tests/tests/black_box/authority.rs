//! What admins order of authorities, on the running programs: each verb ends when it is true everywhere, and a mistake is one line.

use std::{collections::BTreeSet, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use signet_certs::bundle::parse_pem_certificates;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    http,
    process::{Process, binary},
    wait::{PATIENCE, eventually, within},
    workload::{Identity, WorkloadClient},
};

use super::support::{audited, pod_with_volume};

/// Agents replace what a tainted authority has signed within ten seconds of hearing of it; the rest is this machine's.
const REPLACED_WITHIN: Duration = Duration::from_secs(20);

pub(super) async fn states(domain: &Domain, kind: &str) -> Vec<(String, String)> {
    let shown = domain.server.admin(&["ca", "show"]).await.unwrap();
    let all = shown["authorities"].as_array().unwrap().iter();
    let of_kind = all.filter(|one| one["kind"] == kind);
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    of_kind
        .map(|one| (text(one, "state"), text(one, "authority_id")))
        .collect()
}

pub(super) async fn in_state(domain: &Domain, kind: &str, state: &str) -> Option<String> {
    let all = states(domain, kind).await;
    let found = all.into_iter().find(|(standing, _)| standing == state);
    found.map(|(_, id)| id)
}

/// A mistake: exit 1, and one line that says so.
pub(super) async fn refused(domain: &Domain, args: &[&str], says: &str) {
    let finished = domain.server.command(args).await.unwrap();
    assert_eq!(finished.status.code(), Some(1), "{args:?}: {finished:?}");
    assert_eq!(finished.stdout, "", "{args:?}");
    assert_eq!(
        finished.stderr.lines().count(),
        1,
        "{args:?}: {}",
        finished.stderr
    );
    assert!(finished.stderr.contains(says), "{args:?}: {}", finished.stderr);
}

pub(super) async fn pods<const N: usize>(
    domain: &Domain,
    agent: &Agent,
    names: [&str; N],
) -> Vec<WorkloadClient> {
    let mut clients = Vec::new();
    for name in names {
        clients.push(agent.workload(&pod_with_volume(domain, agent, name).await));
    }
    clients
}

pub(super) async fn identities(clients: &[WorkloadClient]) -> Vec<Identity> {
    let mut all = Vec::new();
    for client in clients {
        all.push(client.identity().await);
    }
    all
}

/// Everyone believes everyone.
pub(super) fn believe(all: &[Identity]) {
    for one in all {
        for other in all {
            one.judge(&other.svid).unwrap();
        }
    }
}

fn roots(identity: &Identity) -> BTreeSet<String> {
    let authorities = identity.authorities.iter();
    authorities
        .map(|authority| authority.certificate.id().to_string())
        .collect()
}

/// Each with the reason.
async fn mistakes_are_refused(domain: &Domain, new: &str, old: &str) {
    refused(domain, &["ca", "activate"], "no authority is prepared").await;
    refused(domain, &["ca", "taint", new], "is the one that signs").await;
    refused(domain, &["ca", "revoke", new, "--force"], "is the one that signs").await;
    refused(domain, &["ca", "revoke", old], "`ca taint` it first").await;
    refused(domain, &["ca", "taint", &"0".repeat(40)], "there is no authority").await;
    refused(domain, &["ca", "revoke", "abc"], "40 hexadecimal digits").await;
}

/// Covers INV-2, INV-3.
#[tokio::test]
async fn each_verb_ends_when_it_is_true_everywhere_and_nobody_is_cut_off() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let clients = pods(&domain, &agent, ["front", "back", "cart"]).await;
    let before = identities(&clients).await;
    let old = before[0].svid.authority_id().to_string();

    let prepared = domain.server.admin(&["ca", "prepare"]).await.unwrap();
    assert_eq!(
        (&prepared["step"], &prepared["old_authority_id"]),
        (&json!("spread"), &json!(old))
    );
    let new = prepared["authority_id"].as_str().unwrap().to_owned();
    assert_eq!(in_state(&domain, "x509", "prepared").await.as_ref(), Some(&new));
    let activated = domain.server.admin(&["ca", "activate", "--wait"]).await.unwrap();
    assert_eq!(
        (&activated["step"], &activated["authority_id"]),
        (&json!("activated"), &json!(new))
    );
    believe(&identities(&clients).await);

    mistakes_are_refused(&domain, &new, &old).await;

    let tainted = domain.server.admin(&["ca", "taint", &old]).await.unwrap();
    assert_eq!(
        (&tainted["step"], &tainted["agents_reported"]),
        (&json!("tainted"), &json!(1))
    );
    let replaced = within(REPLACED_WITHIN, async || {
        let now = identities(&clients).await;
        believe(&now);
        let of_new = |one: &Identity| one.svid.authority_id().to_string() == new;
        now.iter().all(of_new).then_some(now)
    });
    let replaced = replaced
        .await
        .expect("every workload has a certificate of the successor");
    for old in &before {
        replaced[0].judge(&old.svid).expect("it is still believed");
    }
    let revoked = eventually("nobody to use it any more", async || {
        domain.server.admin(&["ca", "revoke", &old]).await.ok()
    });
    assert_eq!(revoked.await["step"], "revoked");
    gone_everywhere(&domain, &agent, &clients, &old).await;
    believe(&identities(&clients).await);
    assert_eq!(states(&domain, "x509").await, [("active".to_owned(), new)]);
    refused(&domain, &["ca", "taint", &old], "has left every bundle").await;
    let again = domain.server.admin(&["ca", "revoke", &old]).await.unwrap();
    assert_eq!(again["step"], "revoked", "it is no mistake to ask again");
    audited(&domain, &["authority_tainted", &old]).await;
    let lines = audited(&domain, &["authority_revoked", &old]).await;
    assert_eq!(lines[0]["forced"], false);
}

/// No reader finds it any more, by any door.
pub(super) async fn gone_everywhere(domain: &Domain, agent: &Agent, clients: &[WorkloadClient], old: &str) {
    for client in clients {
        let identity = eventually("a bundle without it", async || {
            let identity = client.fetch().await.ok()?;
            (!roots(&identity).contains(old)).then_some(identity)
        });
        assert_eq!(roots(&identity.await).len(), 1);
    }
    for path in [format!("ca/{old}.cer"), format!("crl/{old}.crl")] {
        let answer = http::get(&format!("{}/{path}", domain.server.publish_url())).await;
        assert_eq!(answer.unwrap().status, 404, "{path}");
    }
    let written = agent.folder().join("written");
    let volume = pod_with_volume(domain, agent, "late").await;
    let socket = format!("unix://{}", agent.socket(&volume).display());
    let folder = written.to_str().unwrap();
    let fetch = ["fetch", "x509", "--socket", &socket, "--write", folder];
    let fetched = agent.command(&fetch).await.unwrap();
    assert!(fetched.status.success(), "{fetched:?}");
    let bundle = std::fs::read_to_string(written.join("bundle.pem")).unwrap();
    assert_eq!(parse_pem_certificates(&bundle).unwrap().len(), 1);
    let shown = domain.server.admin(&["ca", "show"]).await.unwrap();
    assert_eq!(shown["departed"][0]["authority_id"], old);
}

/// One command, with a server that is killed at each turn of it: the command goes on by itself, and so does the rotation.
///
/// Covers INV-3.
#[tokio::test]
async fn a_retirement_outlives_a_server_that_is_killed_and_its_client_finds_it_again() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let clients = pods(&domain, &agent, ["front", "back"]).await;
    let old = identities(&clients).await[0].svid.authority_id().to_string();
    let command = {
        let socket = domain.server.admin_socket();
        async move {
            let socket = socket.to_str().unwrap();
            let args = ["ca", "rotate", "--retire", "--output", "json"];
            let env = [("SIGNET_ADMIN_SOCKET", socket)];
            signet_tests::process::run(&binary("signet-server"), &args, &env).await
        }
    };
    let command = tokio::spawn(command);
    for turn in ["prepared", "tainted"] {
        eventually(turn, async || in_state(&domain, "x509", turn).await).await;
        domain.server.kill().await;
        believe(&identities(&clients).await);
        domain.server.start().await.unwrap();
    }
    let finished = command.await.unwrap().unwrap();
    assert!(finished.status.success(), "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        (&answer["step"], &answer["old_authority_id"]),
        (&json!("retired"), &json!(old))
    );
    assert!(finished.stderr.contains("is away"), "{}", finished.stderr);
    gone_everywhere(&domain, &agent, &clients, &old).await;
    believe(&identities(&clients).await);
}

/// What a command has said that is interrupted (Ctrl-C) once it says this.
async fn interrupted(domain: &Domain, args: &[&str], once: &str) -> String {
    let socket = domain.server.admin_socket();
    let env = [("SIGNET_ADMIN_SOCKET", socket.to_str().unwrap())];
    let mut command = Process::start("command", &binary("signet-server"), args, &env).unwrap();
    let said = async || command.stderr().contains(once).then_some(());
    eventually("it to wait", said).await;
    command.signal(Signal::SIGINT);
    let status = command.wait(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(1), "it is not done");
    command.stderr()
}

/// Whoever leaves loses nothing: what waits for whom is shown, and it can be followed again, over its end.
#[tokio::test]
async fn an_order_goes_on_without_its_admin_and_names_who_is_waited_for() {
    let plan = Plan::default().server("/authority/spread_max", json!("1h"));
    let mut domain = plan.start().await.unwrap();
    let (_silent, _) = domain.raw_agent("node-a").await.unwrap();
    let recorded = domain.server.admin(&["ca", "rotate", "--no-wait"]).await.unwrap();
    let operation = recorded["operation_id"].as_str().unwrap().to_owned();
    assert_eq!(recorded["step"], "prepared");
    domain.server.kill().await;
    domain.server.start().await.unwrap();
    let shown = eventually("it to be published", async || {
        let shown = domain.server.admin(&["ca", "show"]).await.ok()?;
        (shown["operations"][0]["awaited_total"] == 1).then_some(shown)
    });
    let shown = shown.await;
    let waits = &shown["operations"][0];
    assert_eq!(
        (&waits["operation_id"], &waits["verb"]),
        (&json!(operation), &json!("rotate"))
    );
    assert_eq!(waits["awaited"][0]["node_name"], "node-a", "{waits}");
    assert_eq!(waits["awaited"][0]["why"], "is not connected", "{waits}");
    refused(&domain, &["ca", "activate"], "reported by 0 of 1 agents").await;
    let text = domain.server.command(&["ca", "show"]).await.unwrap().stdout;
    assert!(text.contains("waits for node-a (is not connected)"), "{text}");
    let again = domain.server.admin(&["ca", "rotate", "--no-wait"]).await.unwrap();
    assert_eq!(again["operation_id"], operation, "it is the same one");
    let said = interrupted(&domain, &["ca", "wait", &operation], "waits for node-a").await;
    let follows = format!("`signet-server ca wait {operation}` follows it");
    assert!(said.contains(&follows), "{said}");
    let forced = domain.server.admin(&["ca", "activate", "--force"]).await.unwrap();
    assert_eq!(
        (&forced["step"], &forced["operation_id"]),
        (&json!("activated"), &json!(operation))
    );
    let lines = audited(&domain, &["authority_activated", "uid:"]).await;
    assert!(lines.iter().any(|line| line["forced"] == true), "{lines:?}");
    // It has ended, and is no rotation that would begin again.
    let waited = domain.server.command(&["ca", "wait", &operation]).await.unwrap();
    assert!(waited.stderr.contains("activated"), "{}", waited.stderr);
    let text = domain.server.command(&["ca", "show"]).await.unwrap().stdout;
    assert!(
        text.contains("reported by 0 of 1 agents"),
        "it was forced: {text}"
    );
    refused(&domain, &["ca", "wait", "x509-77"], "is remembered").await;
}

/// The control plane's own: agents get certificates of the successor and go on, and nothing leads over the old one.
///
/// Covers INV-14.
#[tokio::test]
async fn a_control_authority_is_retired_under_running_agents() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let clients = pods(&domain, &agent, ["front"]).await;
    let first = identities(&clients).await;
    let args = ["ca", "rotate", "--retire", "--kind", "control"];
    let retired = domain.server.admin(&args).await.unwrap();
    assert_eq!(retired["step"], "retired");
    assert_eq!(states(&domain, "control").await.len(), 1);
    let later = pods(&domain, &agent, ["back"]).await;
    first[0].judge(&identities(&later).await[0].svid).unwrap();
    let anchors = std::fs::read_to_string(domain.server.anchors()).unwrap();
    assert_eq!(parse_pem_certificates(&anchors).unwrap().len(), 1);
}
