//! Rules that must not compile, and what is said about them.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
fn faulty_rules_are_named_with_the_remedy() {
    let one = scope();
    let cases = [
        (json!({"name": "", "spiffe_id": "/x"}), "rule `#1`", "give it one"),
        (json!({"name": "a b", "spiffe_id": "/x"}), "`a b`", "a name has"),
        (
            json!({"name": "builtin", "spiffe_id": "/x"}),
            "`builtin`",
            "builtin_rule: false",
        ),
        (json!({"name": "r"}), "`r`", "deny: true"),
        (
            json!({"name": "r", "deny": true}),
            "`r`",
            "at least one criterion",
        ),
        (
            json!({"name": "r", "deny": true, "match": {"namespaces": ["a"]}, "hint": "h"}),
            "`hint`",
            "remove one of the two",
        ),
        (json!({"name": "r", "spiffe_id": "x"}), "`x`", "begin with `/`"),
        (
            json!({"name": "r", "spiffe_id": "spiffe://example.org/x"}),
            "spiffe://",
            "path only",
        ),
        (json!({"name": "r", "spiffe_id": "/"}), "`/`", "empty segment"),
        (
            json!({"name": "r", "spiffe_id": "/a//b"}),
            "/a//b",
            "empty segment",
        ),
        (json!({"name": "r", "spiffe_id": "/a/"}), "/a/", "empty segment"),
        (
            json!({"name": "r", "spiffe_id": "/a/../b"}),
            "/a/../b",
            "segment `.` or `..`",
        ),
        (json!({"name": "r", "spiffe_id": "/é"}), "/é", "allowed are"),
        (
            json!({"name": "r", "spiffe_id": "/{namespace"}),
            "{namespace",
            "partner",
        ),
        (
            json!({"name": "r", "spiffe_id": "/namespace}"}),
            "namespace}",
            "partner",
        ),
        (
            json!({"name": "r", "spiffe_id": "/{ns}"}),
            "{ns}",
            "there are {cluster}",
        ),
        (
            json!({"name": "r", "spiffe_id": "/{label:}"}),
            "{label:}",
            "unknown",
        ),
        (
            json!({"name": "r", "spiffe_id": "/{namespace}-{pod_name}"}),
            "placeholder",
            "segments of their own",
        ),
        (
            json!({"name": "r", "spiffe_id": "/signet/x"}),
            "/signet",
            "choose another",
        ),
        (
            json!({"name": "r", "spiffe_id": "/signet"}),
            "/signet",
            "choose another",
        ),
        (
            json!({"name": "r", "spiffe_id": "/{uid}"}),
            "{uid}",
            "no value for the evidence",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "ttl": "10s"}),
            "`ttl`",
            "at least 1m",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "ttl": "31d"}),
            "`ttl`",
            "at most 30d",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "hint": "h".repeat(1025)}),
            "1024",
            "shorten",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "hint": "a\nb"}),
            "control",
            "shorten",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "dns_names": ["*.x"]}),
            "`*.x`",
            "DNS name",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "dns_names": ["{namespace}.X"]}),
            "DNS name",
            "a-z",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "dns_names": [""]}),
            "DNS name",
            "``",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"pod_labels": {"a": "b"}}}),
            "pod labels",
            "`namespaces`",
        ),
        (
            json!({"name": "r", "spiffe_id": "/{label:a}"}),
            "pod labels",
            "`namespaces`",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"clusters": ["x"]}}),
            "`x`",
            "known: prod",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"namespaces": ["*"]}}),
            "`*`",
            "exact name",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"namespaces": [""]}}),
            "namespace",
            "exact name",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"service_accounts": ["a:b"]}}),
            "`a:b`",
            "without the namespace",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"unix": {"uids": [0]}}}),
            "unix",
            "to `evidence`",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"evidence": ["unix"]}}),
            "any process",
            "uids",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"evidence": ["unix"], "unix": {}}}),
            "any process",
            "uids",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x",
                   "match": {"evidence": ["unix"], "unix": {"uids": [0]}, "namespaces": ["a"]}}),
            "never be met",
            "remove them",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"evidence": ["unix"], "unix": {"paths": ["app"]}}}),
            "`app`",
            "from the root",
        ),
        (
            json!({"name": "r", "spiffe_id": "/x", "match": {"evidence": ["unix"], "unix": {"sha256": ["00"]}}}),
            "`00`",
            "64 hexadecimal",
        ),
    ];
    for (rule, what, remedy) in cases {
        let text = error(&one, rule.clone());
        assert!(
            text.starts_with("rule `") && text.contains(what) && text.contains(remedy),
            "{rule}: {text}"
        );
        assert!(!text.contains('\n'), "{text}");
    }
    let twice = rules(json!([{"name": "r", "spiffe_id": "/x"}, {"name": "r", "spiffe_id": "/y"}]));
    let text = RuleSet::compile(&one, twice).unwrap_err().to_string();
    assert!(text.contains("`r`") && text.contains("choose another"), "{text}");
}
