use std::path::Path;

use serde_json::json;
use signet_runtime::config::load;
use signet_testkit::sample::Sample;

use super::*;

fn read(text: &str) -> Result<Config, String> {
    let directory = signet_testkit::folder();
    let path = directory.path().join("agent.yaml");
    std::fs::write(&path, text).unwrap();
    let (config, _) = load::<Config>(&path).map_err(|report| {
        let errors = report.errors();
        assert_eq!(errors.len(), 1, "{report}");
        errors[0].to_string()
    })?;
    Ok(config)
}

const CSI: &str = "trust_domain: example.org\ncsi: {enabled: true}\nshared_socket: {}\n";

#[test]
fn a_trust_domain_is_enough() {
    let config = read("trust_domain: example.org\n").unwrap();
    assert_eq!(config.cluster, "default");
    assert_eq!(config.trust_domain.as_str(), "example.org");
    assert!(config.shared_socket.is_none());
    assert!(config.csi.is_none());
    assert_eq!(config.admin_socket, Path::new(DEFAULT_ADMIN_SOCKET));
    let csi = read(CSI).unwrap().csi.unwrap();
    assert_eq!(csi.audience, "signet:example.org:pod");
    assert_eq!(
        csi.socket_path,
        Path::new("/var/lib/kubelet/plugins/csi.signet.dev/csi.sock")
    );
}

#[test]
fn the_documented_file_is_the_default_one() {
    let source = include_str!("../config.rs");
    let yaml: String = source
        .lines()
        .skip_while(|line| !line.contains("```yaml"))
        .skip(1)
        .take_while(|line| !line.contains("```"))
        .map(|line| {
            format!(
                "{}\n",
                line.trim_start_matches("//!").strip_prefix(' ').unwrap_or("")
            )
        })
        .collect();
    assert!(read(&yaml).unwrap().csi.is_none());
    // What is off by default has its defaults all the same.
    let documented = read(&yaml.replace("enabled: false", "enabled: true")).unwrap();
    assert_eq!(format!("{documented:?}"), format!("{:?}", read(CSI).unwrap()));
}

#[test]
fn key_exchanges_are_hybrid_unless_the_file_says_otherwise() {
    use signet_certs::tls::Hybrid::{self, Off, Prefer, Require};
    let with = |tls: &str| read(&format!("trust_domain: example.org\n{tls}"));
    assert_eq!(with("").unwrap().hybrid, Hybrid::default());
    for (value, hybrid) in [
        ("prefer", Prefer),
        ("require", Require),
        ("off", Off),
        ("'off'", Off),
    ] {
        assert_eq!(
            with(&format!("tls: {{hybrid: {value}}}\n")).unwrap().hybrid,
            hybrid
        );
    }
    for value in ["false", "on", "Prefer", "''"] {
        let refused = with(&format!("tls: {{hybrid: {value}}}\n")).unwrap_err();
        assert!(refused.to_string().contains("tls.hybrid"), "{value}: {refused}");
    }
}

#[test]
fn every_mistake_is_named_at_once() {
    let text = "clustre: b\nserver: {address: localhost}\ndata_dir: here\ncsi: {enabled: true, driver_name: 'a b', kubelet_dir: x}\n\
                shared_socket: {path: /run/signet-agent/admin.sock, mode: '9'}\n";
    let directory = signet_testkit::folder();
    let path = directory.path().join("agent.yaml");
    std::fs::write(&path, text).unwrap();
    let report = load::<Config>(&path).unwrap_err().to_json();
    let found: Vec<_> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["key"].as_str().unwrap(), error["line"].as_u64()))
        .collect();
    assert_eq!(
        found,
        [
            ("clustre", Some(1)),
            ("shared_socket.mode", Some(5)),
            ("trust_domain", None),
            ("server.address", Some(2)),
            ("data_dir", Some(3)),
            ("csi.driver_name", Some(4)),
            ("csi.kubelet_dir", Some(4)),
            ("shared_socket.path", Some(5)),
        ]
    );
}

#[test]
fn mistakes_are_named_with_place_and_remedy() {
    let wrong = |text: &str, place: &str| {
        let error = read(text).unwrap_err();
        assert!(
            error.contains(place),
            "{text:?} gave {error:?}, which does not name {place:?}"
        );
        assert!(!error.contains('\n'), "one line: {error:?}");
    };
    wrong("", "trust_domain");
    wrong("trust_domain: 'exa mple'", "trust_domain");
    wrong("trust_domain: a\nclustre: b", "cluster");
    wrong("trust_domain: a\ncluster: a/b", "cluster");
    wrong("trust_domain: a\nserver: {address: localhost}", "server.address");
    wrong(
        "trust_domain: a\nserver: {address: 'http://x:1'}",
        "server.address",
    );
    wrong("trust_domain: a\nserver: {address: 'x:99999'}", "server.address");
    wrong("trust_domain: a\ndata_dir: here", "data_dir");
    wrong(
        "trust_domain: a\nshared_socket: {path: x.sock}",
        "shared_socket.path",
    );
    wrong(
        "trust_domain: a\nshared_socket: {path: /run/signet-agent/admin.sock}",
        "shared_socket.path",
    );
    wrong(
        "trust_domain: a\nshared_socket: {path: /x.sock, mode: '9'}",
        "octal",
    );
    wrong(
        "trust_domain: a\ncsi: {enabled: true, driver_name: 'a b'}",
        "csi.driver_name",
    );
    wrong(
        &format!("trust_domain: a\nadmin_socket: /{}", "x".repeat(107)),
        "admin_socket",
    );
    wrong("trust_domain: a\ntelemetry: {listen: nowhere}", "agent.yaml:2");
}

/// The sample says of itself that it has every key with its default.
#[test]
fn the_full_sample_has_every_key_with_its_default() {
    let judge = |text: &str| {
        let directory = signet_testkit::folder();
        let path = directory.path().join("agent.yaml");
        std::fs::write(&path, text).unwrap();
        match load::<Config>(&path) {
            Ok((config, _)) => Ok(format!("{config:?}")),
            Err(report) => Err(report.to_string()),
        }
    };
    let sample = Sample {
        text: include_str!("../../../deploy/config/agent.full.yaml"),
        judge: &judge,
        least: json!({ "trust_domain": "example.org" }),
        base: json!({ "trust_domain": "example.org", "csi": { "enabled": true }, "shared_socket": {} }),
        examples: &["/server/address", "/csi/enabled"],
    };
    assert_eq!(sample.problems(), [""; 0]);
}
