//! Words that may stand in some files only, or in none.

use std::collections::BTreeSet;

use signet_tests::repository::{SourceFile, rust_files, text_files};

use crate::{
    paths::named,
    tokens::{shipped, tokens},
};

/// Who speaks which protocol: a path, and the modules of `signet_proto` it may name. Tests may name any.
const SPEAKERS: [(&str, &[&str]); 12] = [
    ("server/src/api/", &["agent", "admin"]),
    ("server/src/cli/admin", &["admin"]),
    ("agent/src/admin.rs", &["local"]),
    ("agent/src/cli/", &["local"]),
    ("agent/src/cli/explain", &["explain"]),
    ("agent/src/explain", &["explain"]),
    ("agent/src/csi.rs", &["csi"]),
    ("agent/src/csi/", &["csi", "registration"]),
    ("agent/src/sds/", &["envoy", "google"]),
    ("agent/src/server_client/", &["agent"]),
    ("agent/src/workload_api", &["workload"]),
    ("workload/src/", &["workload"]),
];

/// The modules of `signet_proto` that a text names; `*` for all of them at once.
fn wire_modules(text: &str) -> BTreeSet<String> {
    named(&tokens(text))
        .into_iter()
        .filter(|path| path.parts[0] == "signet_proto")
        .map(|path| path.parts.get(1).cloned().unwrap_or_else(|| "*".to_owned()))
        .filter(|module| !module.starts_with(|c: char| c.is_ascii_uppercase()))
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
        let leaked: Vec<_> = modules
            .iter()
            .filter(|module| !speaks.contains(module.as_str()))
            .collect();
        assert!(
            leaked.is_empty(),
            "{path} names wire types of {leaked:?}; convert them where they are spoken"
        );
        assert!(
            !text.contains("pub use signet_proto"),
            "{path} hands wire types on"
        );
        found.extend(modules);
    }
    assert_eq!(
        Vec::from_iter(found),
        [
            "admin",
            "agent",
            "csi",
            "envoy",
            "explain",
            "google",
            "local",
            "registration",
            "workload"
        ]
    );
}

#[test]
fn the_search_for_wire_types_reads_every_form() {
    let text =
        "use signet_proto::agent as wire;\n// signet_proto::no\nuse signet_proto::{admin::x, \n local};
        fn f(x: signet_proto::csi::Y) { signet_proto::DESCRIPTORS }";
    assert_eq!(
        Vec::from_iter(wire_modules(text)),
        ["admin", "agent", "csi", "local"]
    );
    for text in ["use signet_proto as p;", "use signet_proto::*;"] {
        assert_eq!(Vec::from_iter(wire_modules(text)), ["*"], "{text}");
    }
}

/// The only file of the server and the agent that may sign a leaf: it uses up a durable row of the ledger.
const SIGNER_OF_LEAVES: &str = "server/src/issuer/recorded.rs";

/// Whether shipped code of a text names `svid::sign`, or makes it nameable by another name.
fn names_svid_sign(text: &str) -> bool {
    named(&shipped(text)).iter().any(|path| {
        let named = path.parts.windows(2).any(|pair| pair == ["svid", "sign"]);
        let used_as = path.alias.as_deref().filter(|alias| *alias != "svid");
        let renamed = used_as.is_some() && path.parts.last().is_some_and(|part| part == "svid");
        named || renamed
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

/// The room that knows the crate `kube`; everybody else goes through it.
const ROOM_OF_KUBERNETES: &str = "server/src/kubernetes/";

fn names_kube(text: &str) -> bool {
    named(&shipped(text)).iter().any(|path| path.parts[0] == "kube")
}

#[test]
fn only_one_room_knows_the_client_of_kubernetes() {
    let mut knows = BTreeSet::new();
    for SourceFile { path, text } in rust_files().unwrap() {
        let shipped = ["server/", "agent/", "runtime/", "workload/", "certs/"]
            .iter()
            .any(|prefix| path.starts_with(prefix))
            && path.contains("/src/")
            && !path.ends_with("/tests.rs")
            && !path.ends_with("/testing.rs");
        if shipped && names_kube(&text) {
            assert!(
                path.starts_with(ROOM_OF_KUBERNETES),
                "{path} names the crate kube; what it wants belongs in {ROOM_OF_KUBERNETES}"
            );
            knows.insert(path);
        }
    }
    assert!(knows.contains("server/src/kubernetes/access.rs"), "{knows:?}");
    assert!(names_kube("use kube::client::Body;") && names_kube("fn f(c: &kube::Client) {}"));
    assert!(!names_kube(
        "use crate::kubernetes::api::KubeApi;\n// kube::Client"
    ));
}

#[test]
fn the_pure_crate_says_nothing_of_kubernetes() {
    for SourceFile { path, text } in rust_files().unwrap() {
        let line = text.lines().position(|line| line.to_lowercase().contains("kube"));
        assert!(
            !path.starts_with("certs/src/") || line.is_none(),
            "{path} speaks of Kubernetes in line {:?}; the server reads its tokens in {ROOM_OF_KUBERNETES}",
            line.map(|line| line + 1)
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

/// What a program's library shows: its modules that anybody may use.
fn shown(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("pub mod "))
        .filter_map(|rest| rest.split([' ', ';']).next())
        .collect()
}

#[test]
fn programs_show_their_command_line_so_that_the_compiler_finds_what_nobody_uses() {
    for path in ["server/src/lib.rs", "agent/src/lib.rs"] {
        let files = rust_files().unwrap();
        let library = files.iter().find(|file| file.path == path).unwrap();
        assert_eq!(Vec::from_iter(shown(&library.text)), ["cli", "testing"], "{path}");
    }
    assert_eq!(
        Vec::from_iter(shown("pub mod a;\nmod b;\npub mod c {\n")),
        ["a", "c"]
    );
}
