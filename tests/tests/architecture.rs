//! The arrows of `ARCHITECTURE.md`, and rules of style that no lint knows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;
use signet_tests::repository::{SourceFile, root, rust_files, text_files};

/// What the tests of any crate may use beside [`ARROWS`]; nothing that is shipped does.
const TESTKIT: &str = "signet-testkit";

/// What each crate may use of the others. `server` and `agent` never know each other.
const ARROWS: [(&str, &[&str]); 9] = [
    ("signet-certs", &[]),
    ("signet-proto", &[]),
    ("signet-runtime", &[]),
    (TESTKIT, &["signet-certs"]),
    (
        "signet-workload",
        &["signet-certs", "signet-proto", "signet-runtime"],
    ),
    (
        "signet-server",
        &["signet-certs", "signet-proto", "signet-runtime"],
    ),
    (
        "signet-agent",
        &["signet-certs", "signet-proto", "signet-runtime"],
    ),
    (
        "signet-tests",
        &[
            "signet-agent",
            "signet-certs",
            "signet-proto",
            "signet-runtime",
            "signet-server",
            "signet-workload",
        ],
    ),
    (
        "signet-dev",
        &[
            "signet-agent",
            "signet-certs",
            "signet-proto",
            "signet-runtime",
            "signet-server",
            "signet-tests",
            "signet-workload",
        ],
    ),
];

/// What the pure crate is made of: X.509, its encodings, and nothing that waits or speaks.
const PURE: [&str; 15] = [
    "arc-swap",
    "base64",
    "bytes",
    "hex",
    "rcgen",
    "ring",
    "rustls",
    "rustls-pki-types",
    "rustls-webpki",
    "serde",
    "serde_json",
    "thiserror",
    "time",
    "x509-parser",
    "zeroize",
];

/// Who speaks which protocol: a path, and the modules of `signet_proto` it may name. Tests may name any.
const SPEAKERS: [(&str, &[&str]); 10] = [
    ("server/src/api/", &["agent", "admin"]),
    ("server/src/client.rs", &["admin"]),
    ("server/src/client/", &["admin"]),
    ("agent/src/admin.rs", &["local"]),
    ("agent/src/cli/", &["local", "workload"]),
    ("agent/src/csi.rs", &["csi"]),
    ("agent/src/csi/", &["csi", "registration"]),
    ("agent/src/server_client/", &["agent"]),
    ("agent/src/workload_api", &["workload"]),
    ("workload/src/", &["workload"]),
];

/// Lines of a source file at which it wants to be two. Tests in a file of their own are lists of cases, and may be longer.
const MAX_LINES: usize = 500;

fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The names a package depends on; those of its tests too, unless `shipped`.
fn dependencies(package: &Value, shipped: bool) -> BTreeSet<String> {
    package["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|dependency| !shipped || dependency["kind"] != "dev")
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn crates_use_each_other_only_along_the_arrows() {
    let arrows: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let packages = packages();
    assert_eq!(
        packages.len(),
        arrows.len(),
        "a new crate needs its arrows here and in ARCHITECTURE.md"
    );
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let allowed = arrows[name];
        let shipped = dependencies(&package, true);
        for dependency in dependencies(&package, false) {
            let ours = dependency.starts_with("signet-");
            let for_tests = dependency == TESTKIT && !shipped.contains(TESTKIT);
            assert!(
                !ours || for_tests || allowed.contains(&dependency.as_str()),
                "{name} may not use {dependency}"
            );
        }
    }
}

#[test]
fn the_pure_crate_depends_on_nothing_that_waits_or_speaks() {
    let packages = packages();
    let certs = packages
        .iter()
        .find(|package| package["name"] == "signet-certs")
        .unwrap();
    for dependency in dependencies(certs, true) {
        assert!(
            PURE.contains(&dependency.as_str()),
            "certs may not use {dependency}; or say why, here"
        );
    }
}

#[test]
fn the_runtime_knows_nothing_of_certificates() {
    let packages = packages();
    let runtime = packages
        .iter()
        .find(|package| package["name"] == "signet-runtime")
        .unwrap();
    let known = dependencies(runtime, false);
    for foreign in [
        "rustls",
        "rcgen",
        "ring",
        "rustls-webpki",
        "x509-parser",
        "tonic",
        "prost",
        "kube",
    ] {
        assert!(!known.contains(foreign), "runtime may not use {foreign}");
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace_and_no_dependency_is_patched() {
    for package in packages() {
        let manifest = fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} has lints of its own",
            package["name"]
        );
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
    assert!(
        !workspace.contains("[patch"),
        "a patched dependency must be carried for ever"
    );
}

/// The modules of `signet_proto` that a text names.
fn wire_modules(text: &str) -> BTreeSet<&str> {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines()
        .filter(code)
        .flat_map(|line| line.split("signet_proto::").skip(1))
        .flat_map(|path| match path.strip_prefix('{') {
            Some(group) => group.trim_end_matches([';', '}']).split(", ").collect(),
            None => vec![path],
        })
        .filter_map(|path| {
            path.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
        })
        .filter(|module| module.starts_with(|c: char| c.is_ascii_lowercase()) && *module != "self")
        .collect()
}

/// Covers INV-7.
#[test]
fn wire_types_appear_only_where_a_protocol_is_spoken() {
    let mut found = BTreeSet::new();
    for SourceFile { path, text } in rust_files().unwrap() {
        let free = ["tests/", "proto/", "deploy/"]
            .iter()
            .any(|prefix| path.starts_with(prefix))
            || path.contains("/tests/")
            || path.contains("/fuzz/");
        let modules = wire_modules(&text);
        if free || modules.is_empty() {
            continue;
        }
        let speaks: BTreeSet<&str> = SPEAKERS
            .iter()
            .filter(|(prefix, _)| path.starts_with(prefix))
            .flat_map(|(_, modules)| modules.iter().copied())
            .collect();
        let leaked: Vec<_> = modules.difference(&speaks).collect();
        assert!(
            leaked.is_empty(),
            "{path} names wire types of {leaked:?}; convert them where they are spoken"
        );
        assert!(
            !text.contains("pub use signet_proto"),
            "{path} hands wire types on"
        );
        found.extend(modules.iter().map(ToString::to_string));
    }
    assert_eq!(
        Vec::from_iter(found),
        ["admin", "agent", "csi", "local", "registration", "workload"]
    );
}

#[test]
fn the_search_for_wire_types_reads_both_forms() {
    let text = "use signet_proto::agent as wire;\n// signet_proto::no\nuse signet_proto::{admin::x, local};\nsignet_proto::DESCRIPTORS";
    assert_eq!(Vec::from_iter(wire_modules(text)), ["admin", "agent", "local"]);
}

/// The only file of the server and the agent that may sign a leaf: it uses up a durable row of the ledger.
const SIGNER_OF_LEAVES: &str = "server/src/issuer/recorded.rs";

/// Whether shipped code of a text names `svid::sign`, or makes it nameable by another name.
fn names_svid_sign(text: &str) -> bool {
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let words: String = shipped.lines().filter(code).collect::<Vec<_>>().join(" ");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    words.match_indices("svid").any(|(at, word)| {
        let before = words[..at].chars().next_back();
        let after = words[at + word.len()..].trim_start();
        if before.is_some_and(is_part) {
            return false;
        }
        if after.starts_with("as ") {
            return true;
        }
        let Some(path) = after.strip_prefix("::") else {
            return false;
        };
        let named = match path.trim_start().strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap(),
            None => path.split(|c| !is_part(c) && c != '*').next().unwrap(),
        };
        named.split(',').any(|name| {
            matches!(name.split_whitespace().next(), Some("sign" | "*")) || name.contains("self as")
        })
    })
}

/// Covers INV-4.
#[test]
fn only_one_file_signs_leaves() {
    let signers: Vec<String> = rust_files()
        .unwrap()
        .into_iter()
        .filter(|file| {
            ["server/src/", "agent/src/"]
                .iter()
                .any(|crates| file.path.starts_with(crates))
        })
        .filter(|file| {
            !["/tests.rs", "/testing.rs"]
                .iter()
                .any(|tests| file.path.ends_with(tests))
        })
        .filter(|file| names_svid_sign(&file.text))
        .map(|file| file.path)
        .collect();
    assert_eq!(
        signers,
        [SIGNER_OF_LEAVES],
        "sign leaves through `issuer::recorded`: a signature needs a row of the ledger (INV-4)"
    );
}

#[test]
fn the_search_for_signers_reads_every_form() {
    for text in [
        "signet_certs::svid::sign(&template)",
        "use signet_certs::svid::sign;",
        "use signet_certs::svid::{\n    Purpose, SvidProfile,\n    sign, template,\n};",
        "use signet_certs::{id::SpiffeId, svid::{sign as make}};",
        "use signet_certs::svid as s;",
        "use signet_certs::svid::{self as s};",
        "use signet_certs::svid::*;",
    ] {
        assert!(names_svid_sign(text), "{text}");
    }
    for text in [
        "use signet_certs::svid::{self, SvidError, signing};",
        "own_svid::sign(x)",
        "// svid::sign",
        "#[cfg(test)]\nmod tests {\n    svid::sign(x)\n}",
    ] {
        assert!(!names_svid_sign(text), "{text}");
    }
}

#[test]
fn no_source_file_outgrows_a_reader() {
    for file in rust_files().unwrap() {
        let lines = file.text.lines().count();
        let free = !file.path.contains("src/") || file.path.ends_with("/tests.rs");
        assert!(
            free || lines <= MAX_LINES,
            "{} has {lines} lines, of {MAX_LINES}: split it along what it says",
            file.path
        );
    }
}

#[test]
fn nothing_unfinished_and_no_path_of_one_machine_is_committed() {
    // Put together here, so that this file does not find itself.
    let unfinished = [
        "TO\u{200b}DO",
        "FIX\u{200b}ME",
        "to\u{200b}do!(",
        "un\u{200b}implemented!(",
    ];
    let machines = [
        "/wo\u{200b}rk/",
        "/fa\u{200b}rm/",
        "/ho\u{200b}me/",
        "/Us\u{200b}ers/",
    ];
    for file in text_files().unwrap() {
        for word in unfinished.iter().chain(&machines) {
            let word = word.replace('\u{200b}', "");
            let line = file.text.lines().position(|line| line.contains(&word));
            assert_eq!(
                line.map(|line| line + 1),
                None,
                "{} says {word:?} in that line",
                file.path
            );
        }
    }
}
