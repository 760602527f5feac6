use std::{path::Path, time::Duration};

use serde_json::json;
use signet_certs::authority::AuthorityKind;
use signet_runtime::config::{Report, load};
use signet_testkit::sample::Sample;

use super::*;

fn read(text: &str) -> Result<Config, Report> {
    let directory = signet_testkit::folder();
    let path = directory.path().join("server.yaml");
    std::fs::write(&path, text).unwrap();
    load(&path).map(|(config, _)| config)
}

#[test]
fn a_trust_domain_is_enough() {
    let config = read("trust_domain: spiffe://Example.org\n").unwrap();
    assert_eq!(config.trust_domain.as_str(), "example.org");
    assert_eq!(config.kek_file, Path::new("/var/lib/signet-server/kek"));
    assert_eq!(
        config.control_anchors_file,
        Path::new("/var/lib/signet-server/control-anchors.pem")
    );
    assert_eq!(config.workload_profile.ttl, Duration::from_secs(3600));
    assert_eq!(config.control_profile.ttl, Duration::from_secs(4 * 3600));
    assert_eq!(
        config.lives[&AuthorityKind::X509].leaf_ttl(),
        Duration::from_secs(3600)
    );
    assert_eq!(
        (config.bundle.path.as_str(), config.refresh_hint.as_secs()),
        ("/", 300)
    );
    assert_eq!(Vec::from_iter(config.rules.names()), ["builtin"]);
    assert_eq!(config.attestation.node_audience, "signet:example.org:node");
}

/// Place of each fault, as programs get it.
fn places(text: &str) -> Vec<(String, Option<u64>)> {
    read(text).unwrap_err().to_json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            let all_said = ["key", "message", "remedy"]
                .iter()
                .all(|part| error[part].is_string());
            assert!(all_said, "{error}");
            (error["key"].as_str().unwrap().to_owned(), error["line"].as_u64())
        })
        .collect()
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
    let text = "\
trust_domain: a b
svid: {ttl: 5s, clock_skew: 1h, max_live: 1, tttl: 2}
authority:
  ttl: 2d
  control_ttl: 20s
publish:
  url: ftp://x
  bundle_key_file: /x
  bundle_path: x
crl: {max_bytes: 7}
attestation:
  clusters:
    - {name: A}
    - {kubeconfig: /x}
    - {name: c, context: d}
rules:
  - {name: r, spiffe_id: x}
  - spiffe_id: /x
  - {name: r, deny: true}
";
    let found = places(text);
    let found: Vec<_> = found
        .iter()
        .map(|(key, line)| (key.as_str(), line.unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("svid.tttl", 2),
            ("attestation.clusters[1]", 14),
            ("rules[1]", 18),
            ("trust_domain", 1),
            ("attestation.clusters[0].uid", 13),
            ("attestation.clusters[2].uid", 15),
            ("attestation.clusters[0].name", 13),
            ("attestation.clusters[2].context", 15),
            ("rules[0]", 17),
            // Its name is taken, and it would deny everyone.
            ("rules[2]", 19),
            ("rules[2]", 19),
            // The built-in rule, with several clusters.
            ("rules", 16),
            ("svid.ttl", 2),
            ("svid.clock_skew", 2),
            ("svid.max_live", 2),
            ("crl.max_bytes", 10),
            ("publish.url", 7),
            ("publish.bundle_key_file", 8),
            ("publish.bundle_path", 9),
        ]
    );
}

#[test]
fn lists_have_a_least_and_a_most_size() {
    let with = |bytes: usize| format!("trust_domain: a\ncrl: {{max_bytes: {bytes}}}\n");
    for bytes in [65_535, 3 * 1024 * 1024 + 1, 100_000_000] {
        assert_eq!(places(&with(bytes)), [("crl.max_bytes".to_owned(), Some(2))]);
    }
    for bytes in [65_536, 3 * 1024 * 1024] {
        assert_eq!(read(&with(bytes)).unwrap().crl_max_bytes, bytes);
    }
}

#[test]
fn lives_are_compared_only_where_all_of_them_could_be_read() {
    assert_eq!(
        places("trust_domain: a\nauthority: {ttl: 5h, control_ttl: 1h}\n"),
        [
            ("authority.ttl".to_owned(), Some(2)),
            ("authority.control_ttl".to_owned(), Some(2))
        ]
    );
    let ttl_unread = "trust_domain: a\nauthority: {ttl: 5h, spread_max: 1h}\nsvid: {ttl: soon}\n";
    assert_eq!(places(ttl_unread), [("svid.ttl".to_owned(), Some(3))]);
    let of_a_rule = "trust_domain: a\nrules: [{name: r, spiffe_id: /x, ttl: 2d}]\n";
    assert_eq!(places(of_a_rule), [("authority.ttl".to_owned(), None)]);
}

#[test]
fn whoever_checks_the_file_is_told_what_rules_for_processes_believe() {
    let text = "\
trust_domain: a
rules:
  - {name: pods, spiffe_id: '/sa/{service_account}'}
  - {name: vm, match: {evidence: [unix], unix: {uids: [7], paths: [/bin/a]}}, spiffe_id: /vm}
";
    let directory = signet_testkit::folder();
    let path = directory.path().join("server.yaml");
    std::fs::write(&path, text).unwrap();
    let (_, report) = load::<Config>(&path).unwrap();
    let json = report.to_json();
    let keys = |of: &str| {
        let found = json[of].as_array().unwrap().iter();
        found
            .map(|one| one["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (keys("warnings"), keys("notes")),
        (vec!["rules[0]".to_owned()], vec!["rules[1]".to_owned()])
    );
    assert!(
        json["notes"][0]["message"].as_str().unwrap().contains("uid 7"),
        "{json}"
    );
}

/// The sample says of itself that it has every key with its default.
#[test]
fn the_full_sample_has_every_key_with_its_default() {
    let judge = |text: &str| match read(text) {
        Ok(mut config) => {
            // What is written differs in any case.
            config.text.clear();
            Ok(format!("{config:?}"))
        }
        Err(report) => Err(report.to_string()),
    };
    let sample = Sample {
        text: include_str!("../../../deploy/config/server.full.yaml"),
        judge: &judge,
        least: json!({ "trust_domain": "example.org" }),
        base: json!({ "trust_domain": "example.org" }),
        examples: &["/publish/url", "/attestation/clusters", "/rules", "/audit/file"],
    };
    assert_eq!(sample.problems(), [""; 0]);
}
