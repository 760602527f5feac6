//! The main job: a pod gets its identity over its own socket.

use serde_json::json;
use signet_certs::verify::Role;
use signet_proto::agent::refusal::Reason;
use signet_tests::{
    agent_client::{RawAgent, new_csr},
    domain::{Domain, Plan},
    fake_kube::PodSpec,
    process::{binary, run},
    wait::eventually,
};
use tonic::Code;

use super::support::{assert_refused, audited, id_of, pod_with_volume, workload_svids};

/// The rule that makes whoever runs these tests a workload.
fn shell_rule() -> serde_json::Value {
    json!([{
        "name": "shell",
        "match": { "evidence": ["unix"], "unix": { "uids": [nix::unistd::getuid().as_raw()] } },
        "spiffe_id": "/shell/{uid}",
        "dns_names": ["localhost"],
        "hint": "shell",
    }])
}

/// Covers INV-2, INV-4.
#[tokio::test]
async fn pods_get_their_identities_over_their_own_sockets_and_believe_each_other() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = pod_with_volume(&domain, &agent, "front").await;
    let back = pod_with_volume(&domain, &agent, "back").await;
    let front = agent.workload(&front).identity().await;
    let back = agent.workload(&back).identity().await;
    assert_eq!(front.svid.spiffe_id().as_str(), id_of("front"));
    assert_eq!(back.svid.spiffe_id().as_str(), id_of("back"));
    for authority in front.authorities.iter().chain(&back.authorities) {
        assert!(
            authority.crl.is_some(),
            "every authority of the bundle has its list"
        );
    }
    assert_eq!(
        front.judge(&back.svid).unwrap().spiffe_id(),
        back.svid.spiffe_id()
    );
    assert_eq!(
        back.judge(&front.svid).unwrap().spiffe_id(),
        front.svid.spiffe_id()
    );

    let serials: Vec<_> = workload_svids(&domain)
        .await
        .iter()
        .map(|svid| svid["serial"].clone())
        .collect();
    for svid in [&front.svid, &back.svid] {
        let serial = json!(svid.serial().to_string());
        assert!(
            serials.contains(&serial),
            "{serial} is not in the ledger: {serials:?}"
        );
        audited(&domain, &[&svid.serial().to_string(), svid.spiffe_id().as_str()]).await;
    }
}

/// Covers BG-14.
#[tokio::test]
async fn a_process_is_attested_by_its_uid_if_a_rule_says_so() {
    let domain = Plan::default()
        .server("/rules", shell_rule())
        .start()
        .await
        .unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let shell = agent.shell().identity().await;
    let expected = format!("spiffe://example.org/shell/{}", nix::unistd::getuid());
    assert_eq!(shell.svid.spiffe_id().as_str(), expected);

    let out = domain.path().join("made/by/fetch");
    let fetched = agent
        .command(&["fetch", "x509", "--write", out.to_str().unwrap()])
        .await
        .unwrap();
    assert!(fetched.status.success(), "{}", fetched.stderr);
    for file in ["svid.pem", "svid_key.pem", "bundle.pem", "crl.pem"] {
        assert!(
            std::fs::read_to_string(out.join(file))
                .unwrap()
                .starts_with("-----BEGIN "),
            "{file}"
        );
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(out.join("svid_key.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "the key is for its owner only");
}

/// Covers BG-14.
#[tokio::test]
async fn a_process_without_a_rule_is_told_that_no_identity_is_issued() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let refused = eventually("the verdict", async || match agent.shell().fetch().await {
        Err(status) if status.code() == Code::PermissionDenied => Some(status),
        _ => None,
    });
    assert!(refused.await.message().contains("no identity issued"));
}

/// A rule that matches and gives nothing, and one that just does not match, are found by whoever wrote them; the workload hears of
/// neither.
#[tokio::test]
async fn a_rule_that_gives_nothing_is_told_to_admins() {
    let by_label = |name: &str, value: serde_json::Value| {
        json!({
            "name": name,
            "match": { "namespaces": ["shop"], "pod_labels": { "team": value } },
            "spiffe_id": "/team/{label:team}",
        })
    };
    let domain = Plan::default()
        .server("/builtin_rule", json!(false))
        .server("/rules", json!([by_label("of-a-team", json!(""))]))
        .start()
        .await
        .unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    let refused = async |raw: &mut RawAgent, token: &str| {
        let outcome = raw.issue_one(new_csr().unwrap(), token).await.unwrap();
        assert_refused("no rule", outcome, Reason::NoMatch)
    };
    let without = domain.shop_pod("without", "node-a").unwrap();
    let said = refused(&mut raw, &without).await;
    assert!(!said.contains("of-a-team"), "{said}");
    audited(
        &domain,
        &["no_match", "of-a-team", "does not match by pod_labels"],
    )
    .await;

    let empty = PodSpec::new("shop", "empty").node("node-a").label("team", "");
    domain.kube.add_pod(&empty).unwrap();
    let token = domain.pod_token("shop", "empty").unwrap();
    let said = refused(&mut raw, &token).await;
    assert!(!said.contains("of-a-team"), "{said}");
    audited(&domain, &["no_match", "of-a-team", "{label:team} is empty"]).await;
    let log = domain.server.said();
    let line = log.lines().find(|line| line.contains("gives it no identity"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains("WARN") && line.contains("of-a-team") && line.contains("shop/empty"),
        "{line}"
    );
}

/// Covers BT-09.
#[tokio::test]
async fn a_pod_that_is_gone_is_no_longer_served() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let workload = agent.workload(&volume);
    workload.identity().await;
    let mut updates = workload.watch().await.unwrap();
    updates.next().await.unwrap();
    domain.kube.delete_pod("shop", "front").unwrap();
    agent.kubelet().unwrap().unpublish(&volume).await.unwrap();
    let end = updates
        .next()
        .await
        .err()
        .expect("the stream goes on though the pod is gone");
    assert!(
        matches!(end.code(), Code::Unavailable | Code::PermissionDenied),
        "{end:?}"
    );
    assert!(!agent.socket(&volume).exists(), "the socket is gone with its pod");
    assert!(workload.fetch().await.is_err());
}

/// Covers INV-5, INV-13.
#[tokio::test]
async fn no_key_and_no_token_leaves_its_place() {
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let identity = agent.workload(&volume).identity().await;
    let status = agent.command(&["status", "--output", "json"]).await.unwrap();
    let metrics = signet_tests::http::metrics(&domain.server.telemetry_url())
        .await
        .unwrap();
    agent.stop().await.unwrap();
    let mut domain = domain;
    let process = domain.server.process().unwrap();
    let said = [process.stdout(), process.stderr(), status.stdout, status.stderr];
    domain.server.stop().await.unwrap();
    let mut haystacks: Vec<(String, Vec<u8>)> = said
        .into_iter()
        .map(|text| ("output".to_owned(), text.into_bytes()))
        .collect();
    haystacks.push(("metrics".to_owned(), metrics.into_bytes()));
    // Both may be kept for their volumes only.
    let folder = domain.path().to_owned();
    for path in files_below(&folder) {
        haystacks.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    let key = identity.svid.key().pkcs8_der();
    // The scalar, without the structure around it that every key has.
    let scalar = &key[36..68];
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key);
    let secrets = [
        scalar.to_vec(),
        hex::encode(scalar).into_bytes(),
        base64.into_bytes(),
    ];
    for (place, bytes) in &haystacks {
        let kept_for_volume = place.contains("/volumes/");
        for secret in secrets.iter().filter(|_| !kept_for_volume) {
            assert!(!contains(bytes, secret), "a workload's key in {place}");
        }
        let node_token = place.ends_with("/node-a/token");
        if !kept_for_volume && !node_token {
            assert!(!contains(bytes, b"eyJ"), "the beginning of a token in {place}");
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// Each is a workload of its own, and none takes another's place.
#[tokio::test]
async fn ten_copies_of_one_program_of_one_user_all_get_an_identity() {
    let domain = Plan::default()
        .server("/rules", shell_rule())
        .start()
        .await
        .unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let socket = format!("unix://{}", agent.shell_socket().display());
    let expected = format!("spiffe://example.org/shell/{}", nix::unistd::getuid());
    for number in 0..10 {
        let copy = domain.path().join(format!("program-{number}"));
        let program = binary("signet-agent");
        // On another file system than the folder's there is no link. Another process copies: what is open for writing, here or in a
        // child that inherited it, cannot be executed.
        if std::fs::hard_link(&program, &copy).is_err() {
            let mut cp = std::process::Command::new("cp");
            assert!(cp.arg(&program).arg(&copy).status().unwrap().success());
        }
        let fetched = run(&copy, ["fetch", "x509"], &[("SPIFFE_ENDPOINT_SOCKET", &socket)])
            .await
            .unwrap();
        assert!(fetched.status.success(), "copy {number}: {}", fetched.stderr);
        assert!(fetched.stdout.contains(&expected), "{}", fetched.stdout);
    }
}

/// Every verifier must accept the leaf as a client and as a server.
#[tokio::test]
async fn an_identity_is_good_for_both_ends_of_a_connection() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let identity = agent.workload(&volume).identity().await;
    let chain: Vec<_> = identity
        .svid
        .chain()
        .iter()
        .map(|der| der.as_slice().into())
        .collect();
    use signet_runtime::clock::Clock;
    let now = signet_runtime::clock::SystemClock.now();
    for role in [Role::Client, Role::Server] {
        signet_certs::verify::verify_chain(&chain, role, &identity.roots(), now).unwrap();
    }
}
