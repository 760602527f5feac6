//! Who makes TLS providers.

use std::collections::BTreeSet;

use signet_tests::repository::rust_files;

use crate::{paths::named, tokens::shipped};

/// The only file that makes a TLS provider, and one beside it that takes a group of ring's: whoever makes another offers other key exchanges.
const PROVIDER: &str = "certs/src/tls/provider.rs";
const CLASSICAL_HALF: &str = "certs/src/tls/hybrid.rs";

/// What shipped code of a text says of rustls' providers: takes one of a library, or goes by whichever the process has.
fn names_a_provider(text: &str) -> Vec<String> {
    let words = shipped(text);
    let paths = named(&words);
    let of_library = paths.iter().filter(|path| {
        let parts: Vec<_> = path.parts.iter().map(String::as_str).collect();
        let tls = ["rustls", "tokio_rustls"].contains(&parts[0]);
        let whole = path.alias.as_deref() == Some("*") && parts.last() == Some(&"crypto");
        tls && (whole
            || parts
                .windows(2)
                .any(|pair| pair == ["crypto", "ring"] || pair == ["crypto", "aws_lc_rs"]))
    });
    let of_process = paths.iter().filter(|path| {
        let parts: Vec<_> = path.parts.iter().rev().take(2).map(String::as_str).collect();
        matches!(
            parts[..],
            [
                "builder" | "builder_with_protocol_versions",
                "ClientConfig" | "ServerConfig"
            ] | [
                "get_default" | "install_default" | "get_default_or_install_from_crate_features",
                "CryptoProvider"
            ]
        )
    });
    let found = of_library.chain(of_process).map(|path| path.parts.join("::"));
    let methods = ["default_provider", "install_default"];
    let called = words
        .iter()
        .map(|word| word.text)
        .filter(|word| methods.contains(word));
    found.chain(called.map(str::to_owned)).collect()
}

#[test]
fn only_one_file_makes_a_tls_provider() {
    let makers: BTreeSet<String> = rust_files()
        .unwrap()
        .into_iter()
        .filter(|file| {
            let crates = [
                "agent/",
                "certs/",
                "proto/",
                "runtime/",
                "server/",
                "workload/",
                "deploy/",
            ];
            let tests = ["/tests.rs", "/testing.rs", "/fake.rs"];
            crates.iter().any(|crates| file.path.starts_with(crates))
                && !tests.iter().any(|tests| file.path.ends_with(tests))
                && !["/tests/", "/fuzz/"]
                    .iter()
                    .any(|folder| file.path.contains(folder))
        })
        .filter(|file| !names_a_provider(&file.text).is_empty())
        .map(|file| file.path)
        .collect();
    assert_eq!(
        Vec::from_iter(makers),
        [CLASSICAL_HALF, PROVIDER],
        "take `signet_certs::tls::provider`: it offers the key exchanges that the configuration says"
    );
}

#[test]
fn the_search_for_providers_reads_every_form() {
    for text in [
        "use rustls::crypto::ring as provider;",
        "use rustls::crypto::{CryptoProvider, ring::default_provider};",
        "use tokio_rustls::rustls::crypto::ring;",
        "use rustls::crypto::*;",
        "rustls::crypto::ring::default_provider()",
        "ring::default_provider()",
        "provider.install_default()",
        "use rustls::ClientConfig; fn f() { ClientConfig::builder() }",
        "rustls::ServerConfig::builder_with_protocol_versions(&[])",
        "CryptoProvider::get_default()",
    ] {
        assert!(!names_a_provider(text).is_empty(), "{text}");
    }
    for text in [
        "use signet_certs::tls::{Hybrid, provider};",
        "ServerConfig::builder_with_provider(provider(hybrid))",
        "use ring::rand::SystemRandom;",
        "use rustls::crypto::{CryptoProvider, verify_tls13_signature};",
        "// rustls::crypto::ring",
        "#[cfg(test)]\nmod tests {\n    use rustls::crypto::ring;\n}",
    ] {
        assert_eq!(names_a_provider(text), Vec::<String>::new(), "{text}");
    }
}
