//! SPIFFE IDs, good and bad.

use proptest::prelude::*;

use super::*;

fn refused(texts: &[&str]) {
    for text in texts {
        assert!(SpiffeId::parse(text).is_err(), "accepted {text:?}");
    }
}

fn accepted(texts: &[&str]) {
    for text in texts {
        assert_eq!(SpiffeId::parse(text).as_ref().map(SpiffeId::as_str), Ok(*text));
    }
}

/// Covers ID-01, ID-02, BI-01, BI-02, BI-03.
#[test]
fn only_the_spiffe_scheme_with_a_trust_domain_is_taken() {
    refused(&[
        "",
        "spiffe",
        "spiffe:",
        "spiffe:/",
        "spiffe://",
        "spiffe:///p",
        "spiffe:/td/p",
        "spiffe:td/p",
    ]);
    refused(&[
        "http://td/p",
        "xspiffe://td/p",
        "spiffes://td/p",
        "//td/p",
        "td/p",
    ]);
}

/// Covers BI-04.
#[test]
fn nothing_is_trimmed() {
    refused(&[
        " spiffe://td/p",
        "spiffe://td/p\n",
        "spiffe://td/p\0",
        "\u{feff}spiffe://td/p",
        "spiffe://td/p ",
    ]);
}

/// Covers ID-05, ID-17, BI-05.
#[test]
fn upper_case_is_refused_in_scheme_and_trust_domain_and_folded_only_for_operators() {
    refused(&["SPIFFE://td/p", "spiffe://TD/p", "Spiffe://td/p"]);
    assert!(TrustDomain::parse("Example.org").is_err());
    assert_eq!(
        TrustDomain::parse_lenient("Example.ORG").unwrap().as_str(),
        "example.org"
    );
    assert_eq!(TrustDomain::parse_lenient("SPIFFE://TD").unwrap().as_str(), "td");
    assert!(TrustDomain::parse_lenient("https://td").is_err());
    assert!(TrustDomain::parse_lenient("é").is_err());
}

/// Covers BI-06, RS-11.
#[test]
fn letters_that_become_ascii_when_lowered_are_refused() {
    refused(&["spiffe://\u{212a}ube/p", "spiffe://\u{130}d/p"]);
    assert!(TrustDomain::parse_lenient("\u{212a}ube").is_err());
    assert!(TrustDomain::parse_lenient("spiffe://\u{212a}ube").is_err());
}

/// Covers ID-10, ID-11, BI-07, BI-08.
#[test]
fn empty_and_dot_segments_are_refused() {
    refused(&[
        "spiffe://td/",
        "spiffe://td/p/",
        "spiffe://td//p",
        "spiffe://td/p//q",
    ]);
    refused(&[
        "spiffe://td/.",
        "spiffe://td/..",
        "spiffe://td/a/./b",
        "spiffe://td/a/../b",
        "spiffe://td/a/..",
    ]);
}

/// Covers ID-07, ID-10, ID-25, BI-09.
#[test]
fn odd_but_legal_names_are_accepted() {
    accepted(&[
        "spiffe://td/...",
        "spiffe://td/.a",
        "spiffe://td/a..",
        "spiffe://td/..a",
        "spiffe://1.2.3.4/p",
    ]);
    accepted(&[
        "spiffe://a_b/p",
        "spiffe://-/_",
        "spiffe://a..b/p",
        "spiffe://.a/p",
        "spiffe://1/p",
        "spiffe://a-",
    ]);
}

/// Covers ID-06, ID-09, BI-10.
#[test]
fn percent_encoding_is_refused() {
    refused(&[
        "spiffe://td/%61",
        "spiffe://td/a%2Fb",
        "spiffe://td/%2e%2e/x",
        "spiffe://%74d/p",
        "spiffe://td/%zz",
    ]);
}

/// Covers ID-03, ID-04, ID-08, BI-11, BI-12, BI-13.
#[test]
fn userinfo_port_query_fragment_and_literals_are_refused() {
    refused(&[
        "spiffe://td:443/p",
        "spiffe://td:/p",
        "spiffe://u@td/p",
        "spiffe://u:p@td/p",
        "spiffe://@td/p",
    ]);
    refused(&[
        "spiffe://td/p?x=1",
        "spiffe://td/p?",
        "spiffe://td/p#f",
        "spiffe://td/p#",
        "spiffe://td?x",
    ]);
    refused(&["spiffe://td#x", "spiffe://[::1]/p", "spiffe://[2001:db8::1]/p"]);
}

/// Covers ID-12, BI-14, BI-15.
#[test]
fn characters_outside_the_set_are_refused() {
    for c in " \t\\~:@;=+*(,!$&'\"<|)%".chars() {
        refused(&[&format!("spiffe://td/a{c}b"), &format!("spiffe://t{c}d/a")]);
    }
    for c in ['é', 'а', '／', '\u{202e}', '🦀', '\u{80}', '\u{7f}', '\u{1}'] {
        refused(&[&format!("spiffe://td/a{c}b"), &format!("spiffe://t{c}d/a")]);
    }
    let error = SpiffeId::parse("spiffe://td/a\u{1}b").unwrap_err().to_string();
    assert!(error.contains("byte 0x01"), "{error}");
}

/// Covers ID-14, ID-15, ID-16, BI-16.
#[test]
fn lengths_are_bounded_exactly() {
    assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
    assert_eq!(
        TrustDomain::parse(&"a".repeat(256)),
        Err(IdError::TrustDomainTooLong(256))
    );
    let longest = format!("spiffe://td/{}", "a".repeat(2048 - 12));
    assert_eq!(SpiffeId::parse(&longest).unwrap().as_str().len(), 2048);
    assert_eq!(
        SpiffeId::parse(&format!("{longest}a")),
        Err(IdError::TooLong(2049))
    );
    assert!(SpiffeId::parse(&format!("spiffe://td/{}", "a".repeat(1 << 20))).is_err());
    let domain = TrustDomain::parse("td").unwrap();
    assert!(SpiffeId::from_segments(&domain, &[&"a".repeat(2048 - 12)]).is_ok());
    assert!(SpiffeId::from_segments(&domain, &[&"a".repeat(2049 - 12)]).is_err());
}

/// Covers ID-13, BI-17.
#[test]
fn an_id_without_path_names_the_trust_domain() {
    let id = SpiffeId::parse("spiffe://example.org").unwrap();
    assert!(id.is_trust_domain());
    assert_eq!((id.path(), id.trust_domain_name()), ("", "example.org"));
    assert_eq!(id.trust_domain().id(), id);
}

/// Covers ID-17, BI-20.
#[test]
fn paths_that_differ_in_case_are_two_identities() {
    assert_ne!(
        SpiffeId::parse("spiffe://td/A").unwrap(),
        SpiffeId::parse("spiffe://td/a").unwrap()
    );
}

/// Covers BI-19.
#[test]
fn the_product_s_own_paths_are_known() {
    let domain = TrustDomain::parse("td").unwrap();
    let agent = SpiffeId::agent(&domain, "main", "0b1f").unwrap();
    assert_eq!(agent.as_str(), "spiffe://td/signet/agent/main/0b1f");
    for (id, reserved, is_agent) in [
        (SpiffeId::server(&domain), true, false),
        (SpiffeId::bundle_endpoint(&domain), true, false),
        (agent, true, true),
        (SpiffeId::parse("spiffe://td/signet").unwrap(), true, false),
        (SpiffeId::parse("spiffe://td/signet-x").unwrap(), false, false),
        (
            SpiffeId::parse("spiffe://td/ns/signet/agent/x").unwrap(),
            false,
            false,
        ),
        (SpiffeId::parse("spiffe://td").unwrap(), false, false),
    ] {
        assert_eq!((id.is_reserved(), id.is_agent()), (reserved, is_agent), "{id}");
    }
}

#[test]
fn a_segment_cannot_smuggle_in_a_slash() {
    let domain = TrustDomain::parse("td").unwrap();
    for segment in ["a/b", "/", "", ".", "..", "a b", "ü", "%2f"] {
        assert!(
            SpiffeId::from_segments(&domain, &["ns", segment]).is_err(),
            "{segment}"
        );
    }
    assert!(SpiffeId::agent(&domain, "x/../..", "y").is_err());
}

#[test]
fn a_prefix_counts_whole_segments_of_its_own_domain() {
    let within = |id: &str, prefix: &str| {
        SpiffeId::parse(id)
            .unwrap()
            .is_within(&SpiffeId::parse(prefix).unwrap())
    };
    assert!(within("spiffe://td/ns/shop", "spiffe://td/ns/shop"));
    assert!(within("spiffe://td/ns/shop/sa/x", "spiffe://td/ns/shop"));
    assert!(within("spiffe://td/ns/shop", "spiffe://td"));
    assert!(!within("spiffe://td/ns/shop-admin", "spiffe://td/ns/shop"));
    assert!(!within("spiffe://td/ns", "spiffe://td/ns/shop"));
    assert!(!within("spiffe://td2/ns/shop", "spiffe://td/ns/shop"));
}

/// Covers ID-24.
#[test]
fn trust_domains_are_read_with_and_without_scheme_and_written_bare() {
    assert_eq!(
        TrustDomain::parse_lenient("spiffe://td").unwrap().to_string(),
        "td"
    );
    assert!(TrustDomain::parse_lenient("spiffe://td/").is_err());
    assert!(TrustDomain::parse("spiffe://td").is_err());
}

#[test]
fn serde_applies_the_same_rules() {
    let id: SpiffeId = serde_json::from_str("\"spiffe://td/a\"").unwrap();
    assert_eq!(serde_json::to_string(&id).unwrap(), "\"spiffe://td/a\"");
    assert!(serde_json::from_str::<SpiffeId>("\"spiffe://TD/a\"").is_err());
    assert!(serde_json::from_str::<TrustDomain>("\"a/b\"").is_err());
}

proptest! {
    /// Covers ID-23.
    #[test]
    fn any_text_ends_in_an_answer_and_accepted_text_is_kept(text in "\\PC{0,80}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
        }
        let _ = TrustDomain::parse_lenient(&text);
    }

    /// Covers ID-23.
    #[test]
    fn canonical_ids_survive_taking_apart_and_building(
        domain in "[a-z0-9._-]{1,40}",
        segments in prop::collection::vec("[A-Za-z0-9_-][A-Za-z0-9._-]{0,10}", 0..6),
    ) {
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let built = SpiffeId::from_segments(&TrustDomain::parse(&domain).unwrap(), &parts).unwrap();
        let parsed = SpiffeId::parse(built.as_str()).unwrap();
        prop_assert_eq!(&parsed, &built);
        prop_assert_eq!(parsed.trust_domain_name(), domain);
        prop_assert_eq!(parsed.path().split('/').skip(1).collect::<Vec<_>>(), parts);
        prop_assert!(built.is_within(&built.trust_domain().id()));
    }
}
