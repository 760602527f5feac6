//! Mistakes of configuration and command line: one line with the place and the remedy, and nothing is started.

use std::{net::TcpListener, path::Path};

use serde_json::json;
use signet_tests::{
    domain::{Domain, Plan},
    process::{Finished, binary, run},
};

/// sysexits' EX_CONFIG.
const EX_CONFIG: i32 = 78;

async fn start(program: &str, folder: &Path, yaml: &str) -> Finished {
    let path = folder.join("config.yaml");
    std::fs::write(&path, yaml).unwrap();
    let args = ["run", "--config", path.to_str().unwrap()];
    run(&binary(program), args, &[]).await.unwrap()
}

/// What a mistake must look like: one line, these texts in it, this exit code, and nothing made on disk.
fn assert_one_line(what: &str, finished: &Finished, code: i32, texts: &[&str]) {
    let said = finished.stderr.trim_end();
    assert_eq!(finished.status.code(), Some(code), "{what}: {said}");
    assert_eq!(said.lines().count(), 1, "{what}: more than one line:\n{said}");
    for text in texts {
        assert!(said.contains(text), "{what}: {text:?} is missing in: {said}");
    }
}

fn assert_untouched(what: &str, folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["config.yaml"], "{what}: something was started");
}

fn server_yaml(folder: &Path, more: &str) -> String {
    format!(
        "trust_domain: example.org\ndata_dir: {0}/data\nlisten:\n  agents: 127.0.0.1:0\n  publish: 127.0.0.1:0\n  bundle: 127.0.0.1:0\n  telemetry: 127.0.0.1:0\n  admin_socket: {0}/admin.sock\n{more}",
        folder.display()
    )
}

#[tokio::test]
async fn mistakes_in_the_servers_file_are_named_with_their_place() {
    let cases: [(&str, &str, &[&str]); 7] = [
        (
            "unknown key",
            "svdi:\n  ttl: 1h\n",
            &["config.yaml:9:", "svdi", "svid"],
        ),
        (
            "unknown nested key",
            "svid:\n  tll: 1h\n",
            &["config.yaml:10:", "tll", "ttl"],
        ),
        (
            "duration without unit",
            "svid:\n  ttl: 3600\n",
            &["config.yaml:10:", "3600"],
        ),
        (
            "bad duration",
            "svid:\n  ttl: soon\n",
            &["config.yaml:10:", "soon"],
        ),
        ("not YAML", "svid: [\n", &["config.yaml:"]),
        (
            "lives that do not fit",
            "svid:\n  ttl: 24h\nauthority:\n  ttl: 48h\n",
            &["config.yaml", "authority.ttl"],
        ),
        (
            "a rule without a name",
            "rules:\n  - spiffe_id: /x\n",
            &["config.yaml:", "name"],
        ),
    ];
    for (what, more, texts) in cases {
        let folder = signet_testkit::folder();
        let finished = start("signet-server", folder.path(), &server_yaml(folder.path(), more)).await;
        assert_one_line(what, &finished, EX_CONFIG, texts);
        assert_untouched(what, folder.path());
    }
}

/// Covers BI-01, BI-16.
#[tokio::test]
async fn bad_trust_domains_and_ids_are_refused_in_both_files() {
    for name in [
        "\"\"",
        "\"a b\"",
        "\"td:443\"",
        "\"u@td\"",
        "\"td/p\"",
        "\"\\u212Aube\"",
        "\"é.org\"",
    ] {
        for program in ["signet-server", "signet-agent"] {
            let folder = signet_testkit::folder();
            let yaml = format!("trust_domain: {name}\n");
            let finished = start(program, folder.path(), &yaml).await;
            assert_one_line(
                &format!("{program} {name}"),
                &finished,
                EX_CONFIG,
                &["trust_domain"],
            );
            assert_untouched(name, folder.path());
        }
    }
    for (what, id) in [
        ("the trust domain itself", "\"\""),
        ("a reserved path", "/signet/server"),
        ("an empty segment", "/a//b"),
        ("a dot segment", "/a/../b"),
        ("another trust domain", "spiffe://other.org/x"),
        ("percent encoding", "/a%2Fb"),
    ] {
        let folder = signet_testkit::folder();
        let rules =
            format!("rules:\n  - name: r\n    match: {{ namespaces: [shop] }}\n    spiffe_id: {id}\n");
        let finished = start(
            "signet-server",
            folder.path(),
            &server_yaml(folder.path(), &rules),
        )
        .await;
        assert_one_line(what, &finished, EX_CONFIG, &["rules"]);
        assert_untouched(what, folder.path());
    }
}

#[tokio::test]
async fn mistakes_in_the_agents_file_are_named_with_their_place() {
    let cases: [(&str, &str, &[&str]); 4] = [
        (
            "unknown key",
            "csi:\n  enbled: true\n",
            &["config.yaml:3:", "enbled", "enabled"],
        ),
        (
            "a mode in letters",
            "shared_socket:\n  path: /tmp/x\n  mode: rwx\n",
            &["config.yaml:4:", "mode"],
        ),
        (
            "no address",
            "server:\n  address: nowhere\n",
            &["config.yaml", "server.address"],
        ),
        (
            "unknown mounter",
            "csi:\n  mounter: glue\n",
            &["config.yaml:3:", "glue"],
        ),
    ];
    for (what, more, texts) in cases {
        let folder = signet_testkit::folder();
        let yaml = format!("trust_domain: example.org\n{more}");
        let finished = start("signet-agent", folder.path(), &yaml).await;
        assert_one_line(what, &finished, EX_CONFIG, texts);
        assert_untouched(what, folder.path());
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for door in ["agents", "publish", "bundle", "telemetry"] {
        let folder = signet_testkit::folder();
        // Where it belongs, or there would be a warning too.
        let kek = format!("keys:\n  kek_file: {}/kek\n", folder.path().display());
        let yaml = server_yaml(folder.path(), &kek).replacen(
            &format!("{door}: 127.0.0.1:0"),
            &format!("{door}: {address}"),
            1,
        );
        let finished = start("signet-server", folder.path(), &yaml).await;
        assert_one_line(door, &finished, 1, &[&format!("listen.{door}"), &address]);
        assert!(
            !folder.path().join("data").exists(),
            "{door}: the store was opened"
        );
    }
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Covers INV-5.
#[tokio::test]
async fn a_missing_or_wrong_key_encryption_key_is_fatal() {
    let mut domain = Domain::start().await.unwrap();
    domain.server.stop().await.unwrap();
    let config = domain.server.config_path();
    let args = ["run", "--config", config.to_str().unwrap()];
    let kek = domain.server.folder().join("kek");
    let good = std::fs::read(&kek).unwrap();
    let cases: [(&str, Option<Vec<u8>>); 3] = [
        ("missing", None),
        ("another", Some(vec![7; good.len()])),
        ("too short", Some(vec![7; 3])),
    ];
    for (what, bytes) in cases {
        match bytes {
            Some(bytes) => {
                std::fs::write(&kek, bytes).unwrap();
                private(&kek);
            }
            None => std::fs::remove_file(&kek).unwrap(),
        }
        let finished = run(&binary("signet-server"), args, &[]).await.unwrap();
        assert!(!finished.status.success(), "{what}: started with the wrong key");
        let last = finished
            .stderr
            .trim_end()
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned();
        assert!(
            last.contains(kek.to_str().unwrap()),
            "{what}: the file is not named: {last}"
        );
        assert!(what == "missing" || kek.exists());
        assert!(
            what != "missing" || !kek.exists(),
            "a new key was made though sealed keys exist"
        );
    }
    std::fs::write(&kek, good).unwrap();
    private(&kek);
    domain.server.start().await.unwrap();
}

#[tokio::test]
async fn a_store_of_another_trust_domain_is_refused() {
    let mut domain = Domain::start().await.unwrap();
    domain.server.stop().await.unwrap();
    let text = std::fs::read_to_string(domain.server.config_path()).unwrap();
    let other = text.replace("\"example.org\"", "\"other.org\"");
    let folder = signet_testkit::folder();
    let finished = start("signet-server", folder.path(), &other).await;
    assert!(!finished.status.success());
    assert!(
        finished.stderr.contains("example.org") && finished.stderr.contains("other.org"),
        "{}",
        finished.stderr
    );
}

/// An unreachable or a wrong cluster must not let a server start that would then judge tokens by it.
#[tokio::test]
async fn a_cluster_with_another_uid_is_refused() {
    let other = json!("11111111-2222-4333-8444-555555555555");
    // A pin that is misspelt must not be passed over.
    let misspelt = Plan::default().server("/attestation/clusters/0/pinned", other.clone());
    let error = misspelt.start().await.err().expect("an unknown key was accepted");
    assert!(format!("{error:#}").contains("pinned"), "{error:#}");

    let mut domain = Domain::start().await.unwrap();
    domain.server.stop().await.unwrap();
    let pin = ("/attestation/clusters/0/uid".to_owned(), other);
    domain.server.change(&[pin]).unwrap();
    let Err(error) = domain.server.start().await else {
        panic!("another cluster was accepted");
    };
    assert!(
        format!("{error:#}").contains(domain.kube.cluster_uid()),
        "{error:#}"
    );
}

/// Nobody finds out at an audit that there is no log.
#[tokio::test]
async fn a_server_whose_audit_log_cannot_be_opened_does_not_start() {
    let plan = Plan::default().server("/audit/file", json!("/nowhere/audit.log"));
    let error = plan.start().await.err().expect("started without an audit log");
    let error = format!("{error:#}");
    assert!(
        error.contains("audit.file") && error.contains("/nowhere/audit.log"),
        "{error}"
    );
}

#[tokio::test]
async fn command_lines_are_explained() {
    for program in ["signet-server", "signet-agent"] {
        let help = run(&binary(program), ["--help"], &[]).await.unwrap();
        assert!(
            help.status.success() && help.stdout.contains("run"),
            "{}",
            help.stdout
        );
        let version = run(&binary(program), ["--version"], &[]).await.unwrap();
        assert!(version.stdout.starts_with(program), "{}", version.stdout);
        let unknown = run(&binary(program), ["rnu"], &[]).await.unwrap();
        assert_eq!(unknown.status.code(), Some(2), "{}", unknown.stderr);
        let nothing = run(&binary(program), ["run", "--config", "/nowhere.yaml"], &[])
            .await
            .unwrap();
        assert_one_line("no such file", &nothing, EX_CONFIG, &["/nowhere.yaml"]);
        let asked = match program {
            "signet-server" => vec!["status", "--admin-socket", "/nowhere.sock"],
            _ => vec!["status", "--admin-socket", "/nowhere.sock"],
        };
        let unreachable = run(&binary(program), asked, &[]).await.unwrap();
        assert_one_line("nobody there", &unreachable, 1, &["/nowhere.sock"]);
    }
}

/// Covers BI-05, BI-17, BI-18, BI-19.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
async fn admin_commands_refuse_what_cannot_be_meant() {
    let domain = Domain::start().await.unwrap();
    let server = &domain.server;
    for (what, args) in [
        ("no target", vec!["revoke"]),
        (
            "two targets",
            vec![
                "revoke",
                "--serial",
                "01",
                "--spiffe-id",
                "spiffe://example.org/x",
            ],
        ),
        ("no SPIFFE ID", vec!["revoke", "--spiffe-id", "ns/shop"]),
        (
            "another trust domain",
            vec!["revoke", "--spiffe-id", "spiffe://other.org/x"],
        ),
        (
            "the trust domain itself",
            vec!["revoke", "--spiffe-id", "spiffe://example.org"],
        ),
        (
            "a trailing slash",
            vec!["revoke", "--spiffe-id", "spiffe://example.org/x/"],
        ),
        ("no serial", vec!["revoke", "--serial", "xyz"]),
        ("an unknown serial", vec!["revoke", "--serial", "0102030405"]),
        (
            "an unknown reason",
            vec![
                "revoke",
                "--spiffe-id",
                "spiffe://example.org/x",
                "--reason",
                "spite",
            ],
        ),
        ("an unknown denial", vec!["allow", "no-such-denial"]),
        (
            "a reserved target",
            vec!["revoke", "--spiffe-id", "spiffe://example.org/signet/server"],
        ),
    ] {
        let finished = server.command(&args).await.unwrap();
        assert!(
            !finished.status.success(),
            "{what} was accepted: {}",
            finished.stdout
        );
        assert!(!finished.stderr.trim().is_empty(), "{what}: nothing is said");
        assert!(
            !finished.stderr.contains("panicked"),
            "{what}: {}",
            finished.stderr
        );
    }
    let denials = server.admin(&["denials", "--all"]).await.unwrap();
    assert_eq!(
        denials["denials"],
        json!([]),
        "a refused command left a denial behind"
    );
    let probe = server.command(&["healthcheck", "--serving"]).await.unwrap();
    assert!(probe.status.success(), "{}", probe.stderr);
}
