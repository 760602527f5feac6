use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use signet_runtime::config::load;
use signet_runtime::trial::{self, Found, Weight};
use signet_testkit::{authority, leaf_key, svid};
use tempfile::TempDir;

use super::trials;
use crate::config::Config;
use crate::store::sqlite::SqliteStore;
use crate::store::{KeptRules as _, RulesToKeep};

/// A folder with all that a configuration names.
struct Tried(TempDir);

impl Tried {
    fn new() -> Self {
        let tried = Self(signet_testkit::folder());
        let web = svid(&authority("example.org"), "/web");
        tried.write("web.pem", "CERTIFICATE", &web.chain()[0]);
        tried.write("web.key", "PRIVATE KEY", web.key().pkcs8_der());
        tried.write("other.key", "PRIVATE KEY", leaf_key().pkcs8_der());
        tried
    }

    fn write(&self, name: &str, what: &str, der: &[u8]) {
        let der = STANDARD.encode(der);
        let pem = format!("-----BEGIN {what}-----\n{der}\n-----END {what}-----\n");
        fs::write(self.at(name), pem).unwrap();
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Keys and problems of what cannot be used of a configuration with `more`.
    fn faults(&self, more: (&str, Value)) -> Vec<(String, String)> {
        let faults = self.found(more).into_iter();
        let faults = faults.filter(|found| found.weight == Weight::Fault);
        faults.map(|Found { key, problem, .. }| (key, problem)).collect()
    }

    fn found(&self, more: (&str, Value)) -> Vec<Found> {
        let mut written = json!({
            "trust_domain": "example.org",
            "data_dir": self.at("data"),
            "listen": { "admin_socket": self.at("admin.sock"), "bundle": "127.0.0.1:0" },
        });
        written[more.0] = more.1;
        fs::write(self.at("server.yaml"), written.to_string()).unwrap();
        let (config, _) = load::<Config>(self.at("server.yaml").as_ref()).unwrap();
        trial::all(&trials(&config))
    }
}

#[test]
fn each_file_of_the_bundle_endpoint_is_said_once_with_its_key() {
    let tried = Tried::new();
    let (certificate, key) = ("publish.bundle_certificate_file", "publish.bundle_key_file");
    for (files, expected) in [
        (["web.pem", "web.key"], vec![]),
        (["none.pem", "web.key"], vec![(certificate, "none.pem")]),
        (["web.pem", "none.key"], vec![(key, "none.key")]),
        (["web.key", "web.key"], vec![(certificate, "web.key")]),
        (["web.pem", "web.pem"], vec![(key, "web.pem")]),
        (["web.pem", "other.key"], vec![(key, "other.key")]),
        (
            ["none.pem", "none.key"],
            vec![(certificate, "none.pem"), (key, "none.key")],
        ),
    ] {
        let [pem, secret] = files.map(|name| tried.at(name));
        let publish = json!({ "bundle_certificate_file": pem, "bundle_key_file": secret });
        let faults = tried.faults(("publish", publish));
        let keys: Vec<_> = faults.iter().map(|(key, _)| key.as_str()).collect();
        let wanted: Vec<_> = expected.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, wanted, "{files:?}: {faults:?}");
        let mut said = faults.iter().zip(&expected);
        assert!(
            said.all(|((_, problem), (_, file))| problem.contains(file)),
            "{faults:?}"
        );
    }
}

/// Whoever asks whether a file is good starts nothing by it.
#[test]
fn a_kubeconfig_is_tried_without_the_programs_it_names() {
    let tried = Tried::new();
    let faults = |user: Value| {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(tried.at("kubeconfig"), kubeconfig.to_string()).unwrap();
        let cluster = json!({ "name": "a", "kubeconfig": tried.at("kubeconfig") });
        tried.faults(("attestation", json!({ "clusters": [cluster] })))
    };
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "touch", "args": [tried.at("made")],
    });
    assert_eq!(faults(json!({ "exec": exec })), []);
    assert!(!fs::exists(tried.at("made")).unwrap(), "the program was run");

    let names_no_file =
        json!({ "client-certificate": tried.at("none.pem"), "client-key": tried.at("web.key") });
    let found = faults(names_no_file);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].0 == "attestation.clusters[0].kubeconfig" && found[0].1.contains("none.pem"),
        "{found:?}"
    );
}

/// The server of it may run or not.
#[tokio::test]
async fn a_rule_of_the_file_that_an_admin_has_set_as_well_is_told() {
    let tried = Tried::new();
    let rule = json!({ "name": "more", "match": { "namespaces": ["shop"] }, "spiffe_id": "/more" });
    let advised = |name: &str| {
        let rules = json!([{ "name": name, "match": { "namespaces": ["shop"] }, "spiffe_id": "/x" }]);
        let all = tried.found(("rules", rules)).into_iter();
        all.filter(|found| found.key == "rules")
            .map(|found| found.problem)
            .collect::<Vec<_>>()
    };
    assert_eq!(advised("more"), [""; 0]);
    let store = SqliteStore::open(tried.at("data").as_ref(), &signet_testkit::td("example.org")).unwrap();
    let set = json!({ "rules": [{ "rule": rule, "author": "uid:7", "set_at": 0 }] });
    let kept = RulesToKeep {
        accepted: None,
        of_admins: Some(set.to_string()),
    };
    store.keep_rules(kept, vec![]).await.unwrap();
    let problems = advised("more");
    assert!(
        problems.len() == 1 && problems[0].contains("rule delete more"),
        "{problems:?}"
    );
    assert_eq!(advised("other"), [""; 0]);
    drop(store);
    assert_eq!(advised("more").len(), 1);
}
