use serde_json::{Value, json};

use std::path::Path;
use std::time::Duration;

use signet_certs::id::TrustDomain;
use signet_runtime::config::Findings;

use super::*;

fn parse(value: Value) -> Result<raw::Attestation, serde_json::Error> {
    serde_json::from_value(value)
}

fn check(value: Value) -> Result<AttestationConfig, String> {
    let mut findings = Findings::new(Path::new("server.yaml"));
    let domain = TrustDomain::parse("example.org").unwrap();
    let checked = parse(value).unwrap().check("attestation", &domain, &mut findings);
    let found = format!("{findings:?}");
    match checked {
        Ok(config) if found.contains("errors: []") => Ok(config),
        _ => Err(found),
    }
}

#[test]
fn everything_has_a_default() {
    let config = check(json!({"clusters": [{"name": "prod"}]})).unwrap();
    assert_eq!(config.node_audience, "signet:example.org:node");
    assert_eq!(config.pod_audience, "signet:example.org:pod");
    assert_eq!(
        config.clusters[0].agents[0].to_string(),
        "signet-system:signet-agent"
    );
    assert_eq!(config.clusters[0].name, "prod");
    assert_eq!(config.grace, Duration::from_secs(24 * 3600));
    assert_eq!(check(json!({"grace": "0s"})).unwrap().grace, Duration::ZERO);
}

#[test]
fn faults_are_found_with_their_place() {
    let cluster = |more: Value| {
        let mut cluster = json!({"name": "prod"});
        cluster
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "clusters": [cluster] })
    };
    let cases = [
        (
            json!({"pod_audience": "x", "node_audience": "x"}),
            "attestation.pod_audience",
        ),
        (json!({"pod_audience": ""}), "attestation.pod_audience"),
        (json!({"calls_per_second": 0}), "attestation.calls_per_second"),
        (
            json!({"max_token_lifetime": "5m"}),
            "attestation.max_token_lifetime",
        ),
        (json!({"grace": "8d"}), "attestation.grace"),
        (
            json!({"clusters": [{"name": "a", "uid": "u"}, {"name": "b"}]}),
            "attestation.clusters[1].uid",
        ),
        (
            json!({"clusters": [{"name": "a"}, {"name": "a"}]}),
            "attestation.clusters[1].name",
        ),
        (cluster(json!({"name": "Prod"})), "attestation.clusters[0].name"),
        (cluster(json!({"name": ""})), "attestation.clusters[0].name"),
        (cluster(json!({"name": ".."})), "attestation.clusters[0].name"),
        (cluster(json!({"name": "join"})), "attestation.clusters[0].name"),
        (
            cluster(json!({"agent_service_accounts": ["agent"]})),
            "clusters[0].agent_service_accounts",
        ),
        (
            cluster(json!({"kubeconfig": "/a", "api_server": {"url": "https://a"}})),
            "attestation.clusters[0]",
        ),
        (
            cluster(json!({"context": "a"})),
            "attestation.clusters[0].context",
        ),
        (
            cluster(json!({"api_server": {"url": "http://10.0.0.1"}})),
            "clusters[0].api_server.url",
        ),
        (
            cluster(json!({"api_server": {"url": "kube"}})),
            "clusters[0].api_server.url",
        ),
    ];
    for (config, place) in cases {
        let found = check(config.clone()).unwrap_err();
        assert!(found.contains(place), "{config}: {found}");
    }
    assert!(parse(json!({"cluster": []})).is_err());
    assert!(parse(json!({"clusters": [{"name": "a", "insecure": true}]})).is_err());
}

#[tokio::test]
async fn clients_are_made_only_where_tokens_stay_secret() {
    let dir = signet_testkit::folder();
    let kubeconfig = |server: &str, insecure: bool| {
        let path = dir.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": insecure}}],
            "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
        });
        std::fs::write(&path, text.to_string()).unwrap();
        check(json!({"clusters": [{"name": "a", "kubeconfig": path}]}))
            .unwrap()
            .clusters
            .remove(0)
            .access
    };
    assert!(kubeconfig("https://10.0.0.1", false).client().await.is_ok());
    assert!(kubeconfig("http://127.0.0.1:8080", false).client().await.is_ok());
    assert!(kubeconfig("http://[::1]:8080", false).client().await.is_ok());
    let error = kubeconfig("https://10.0.0.1", true).client().await.err().unwrap();
    assert!(error.contains("insecure-skip-tls-verify"), "{error}");
    let error = kubeconfig("http://10.0.0.1", false).client().await.err().unwrap();
    assert!(error.contains("use https"), "{error}");
}

#[tokio::test]
async fn files_that_are_not_there_are_named() {
    let with = |server: Value| check(json!({"clusters": [{"name": "a", "api_server": server}]})).unwrap();
    let cases = [
        json!({"url": "https://a", "ca_file": "/no/ca.pem"}),
        json!({"url": "https://a", "token_file": "/no/token"}),
    ];
    for (server, file) in cases.into_iter().zip(["/no/ca.pem", "/no/token"]) {
        let error = with(server).clusters[0].access.client().await.err().unwrap();
        assert!(error.contains(file), "{error}");
    }
}

/// Addresses may carry a user's password, and what is said of them goes into logs.
#[tokio::test]
async fn what_is_wrong_with_an_address_is_said_without_its_password() {
    let dir = signet_testkit::folder();
    let path = dir.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": "https://10.0.0.1", "proxy-url": "http://alice:open-sesame@10.0.0.2:3128"
        }}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}]
    });
    std::fs::write(&path, text.to_string()).unwrap();
    let config = check(json!({"clusters": [{"name": "a", "kubeconfig": path}]})).unwrap();
    let error = config.clusters[0].access.client().await.err().unwrap();
    assert!(
        error.contains("`proxy-url`") && error.contains(path.to_str().unwrap()),
        "{error}"
    );
    assert!(!error.contains("alice") && !error.contains("sesame"), "{error}");

    for (url, expected) in [
        ("http://alice:open-sesame@10.0.0.1", "use https"),
        ("ftp://alice:open-sesame@10.0.0.1", "neither https nor http"),
        ("https://alice:open-sesame@10.0.0.1 ", "is no URL"),
    ] {
        let found = check(json!({"clusters": [{"name": "a", "api_server": {"url": url}}]})).unwrap_err();
        assert!(found.contains(expected) && found.contains("10.0.0.1"), "{found}");
        assert!(!found.contains("alice") && !found.contains("sesame"), "{found}");
    }
}

/// What a program says that makes credentials may be half of them, and how it is called the other half.
#[tokio::test]
async fn of_a_program_that_makes_no_credentials_only_its_status_is_said() {
    let dir = signet_testkit::folder();
    let path = dir.path().join("kubeconfig");
    for (script, expected) in [
        ("echo open-sesame; exit 3", "exit status: 3"),
        ("echo '\"open-sesame\"'", "cannot be read"),
    ] {
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
            "command": "/bin/sh", "args": ["-c", script], "env": [{"name": "SECRET", "value": "open-sesame"}]
        });
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1"}}],
            "users": [{"name": "u", "user": {"exec": exec}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
        });
        std::fs::write(&path, text.to_string()).unwrap();
        let config = check(json!({"clusters": [{"name": "a", "kubeconfig": path}]})).unwrap();
        let error = config.clusters[0].access.client().await.err().unwrap();
        assert!(error.contains(expected) && !error.contains("sesame"), "{error}");
    }
}

/// The lines around a mistake may be credentials.
#[tokio::test]
async fn a_mistake_in_a_kubeconfig_is_said_by_its_place_alone() {
    let dir = signet_testkit::folder();
    let path = dir.path().join("kubeconfig");
    let text = "apiVersion: v1\nusers:\n- name: u\n  user:\n    token: open-sesame\n    exec: open-sesame\n";
    std::fs::write(&path, text).unwrap();
    let config = check(json!({"clusters": [{"name": "a", "kubeconfig": path}]})).unwrap();
    let error = config.clusters[0].access.client().await.err().unwrap();
    assert!(error.contains("line 6") && !error.contains("sesame"), "{error}");
}
