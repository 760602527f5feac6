//! Which crate uses which, and what each may depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;
use signet_tests::repository::root;

/// What the tests of any crate may use beside [`ARROWS`]; nothing that is shipped does.
const TESTKIT: &str = "signet-testkit";

/// What each crate may use of the others. `server` and `agent` never know each other.
const ARROWS: [(&str, &[&str]); 10] = [
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
        &[
            "signet-certs",
            "signet-proto",
            "signet-runtime",
            "signet-workload",
        ],
    ),
    (
        "signet-tests",
        &[
            "signet-agent",
            "signet-certs",
            "signet-proto",
            "signet-runtime",
            "signet-server",
            TESTKIT,
            "signet-workload",
        ],
    ),
    ("signet-image", &[]),
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
const PURE: [&str; 16] = [
    "arc-swap",
    "base64",
    "bytes",
    "hex",
    "ml-kem",
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

/// What cargo prints of this workspace.
fn cargo(args: &str) -> Vec<u8> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(args.split(' '))
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args}: {said}");
    output.stdout
}

fn packages() -> Vec<Value> {
    let metadata = cargo("metadata --offline --no-deps --format-version 1");
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
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
        "prost",
        "kube",
    ] {
        assert!(!known.contains(foreign), "runtime may not use {foreign}");
    }
    // The one thing that it has of gRPC is a feature of its own, which nobody else's features bring in.
    let features = runtime["features"].as_object().unwrap();
    let with_tonic = |(_, what): &(&String, &Value)| what.as_array().unwrap().contains(&"dep:tonic".into());
    let of_grpc: Vec<&String> = features.iter().filter(with_tonic).map(|(name, _)| name).collect();
    assert_eq!(of_grpc, ["grpc"]);
    let asks = |(_, what): &(&String, &Value)| what.as_array().unwrap().contains(&"grpc".into());
    assert_eq!(features.iter().filter(asks).count(), 0);
}

/// Most lines of its tree that the library for workloads may have: it ends up in other people's programs.
const WORKLOAD_LINES: usize = 103;
/// How many more its default feature `hybrid` may bring: ML-KEM and the 13 crates that it stands on, some named twice.
const HYBRID_LINES: usize = 19;

/// As `cargo tree -p signet-workload -e normal --prefix none | sort -u | wc -l` counts.
#[test]
fn the_library_for_workloads_is_built_from_little() {
    let tree = |features: &str| {
        let tree = cargo(&format!(
            "tree --offline --locked -p signet-workload -e normal --prefix none{features}"
        ));
        let tree = String::from_utf8(tree).unwrap();
        assert!(tree.lines().count() > 50, "no tree:\n{tree}");
        BTreeSet::from_iter(tree.lines().map(str::to_owned))
    };
    let (least, whole) = (tree(" --no-default-features"), tree(""));
    for (lines, most) in [(&least, WORKLOAD_LINES), (&whole, WORKLOAD_LINES + HYBRID_LINES)] {
        let listed = Vec::from_iter(lines.iter().map(String::as_str)).join("\n");
        assert!(lines.len() <= most, "{} lines:\n{listed}", lines.len());
    }
    let has_ml_kem = |lines: &BTreeSet<String>| lines.iter().any(|line| line.starts_with("ml-kem "));
    assert!(has_ml_kem(&whole) && !has_ml_kem(&least));
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
    assert!(workspace.contains("\ntoo_many_lines = \"warn\"\n"));
    let bounds = fs::read_to_string(root().join("clippy.toml")).unwrap();
    assert!(bounds.contains("too-many-lines-threshold = 60\n"));
    assert!(
        !workspace.contains("[patch"),
        "a patched dependency must be carried for ever"
    );
}
