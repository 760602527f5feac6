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
    let dir = tempfile::tempdir().unwrap();
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
