//! Compared with files that people have read: server/tests/golden.

use signet_testkit::golden;

use super::*;

/// 2026-11-21T08:00:00Z, and so many minutes.
fn at(minutes: i64) -> i64 {
    1_795_248_000_000 + minutes * 60_000
}

fn is_as_read(name: &str, answer: &Answer) {
    let root = env!("CARGO_MANIFEST_DIR");
    golden(root, name, &answer.text);
    golden(root, &format!("{name}_json"), &format!("{:#}\n", answer.json));
}

fn finding(about: &str, state: &str, says: &str, remedy: &str) -> wire::Finding {
    wire::Finding {
        about: about.to_owned(),
        state: state.to_owned(),
        says: says.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn labels() -> wire::Mismatch {
    wire::Mismatch {
        criterion: "pod_labels".to_owned(),
        wanted: "app=web".to_owned(),
        found: "app=api".to_owned(),
    }
}

fn last() -> wire::SvidRecord {
    wire::SvidRecord {
        serial: "0101a203dda02c".to_owned(),
        spiffe_id: "spiffe://example.org/shop/front".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: "front-0".to_owned(),
        not_before_unix_ms: at(-30),
        not_after_unix_ms: at(30),
        ..wire::SvidRecord::default()
    }
}

#[test]
fn a_pod_is_explained_as_people_have_read_it() {
    let rule = |name: &str, place, outcome: &str| wire::ExplainedRule {
        name: name.to_owned(),
        place,
        outcome: outcome.to_owned(),
        ..wire::ExplainedRule::default()
    };
    let explained = wire::ExplainPodResponse {
        verdict: "pod shop/front-0 gets nothing: rule \"no-front\" denies it, whatever others give"
            .to_owned(),
        granted: false,
        cluster: "prod".to_owned(),
        now_unix_ms: at(0),
        findings: vec![
            finding(
                "cluster",
                "ok",
                "the watch of prod is up to date and shows 12 pods",
                "",
            ),
            finding(
                "rules",
                "fails",
                "rule \"no-front\" denies it, whatever others give",
                "narrow the rule",
            ),
            finding("agent", "note", "odd\u{1b}[31m", "look"),
        ],
        pod: Some(wire::ExplainedPod {
            namespace: "shop".to_owned(),
            name: "front-0".to_owned(),
            labels: [("app".to_owned(), "api".to_owned())].into(),
            seen_by: "watch".to_owned(),
            ..wire::ExplainedPod::default()
        }),
        rules: vec![
            rule("no-front", 2, "denies"),
            wire::ExplainedRule {
                spiffe_id: "spiffe://example.org/shop/front".to_owned(),
                ttl_seconds: 600,
                ..rule("shop", 1, "grants")
            },
            wire::ExplainedRule {
                mismatches: vec![labels()],
                ..rule("web", 3, "differs")
            },
        ],
        rules_left_out: 4,
        svids: vec![last()],
        refusals: vec![wire::RefusedBefore {
            at_unix_ms: at(-1),
            kind: "denied".to_owned(),
            reason: "denied by rule \"no-front\"".to_owned(),
        }],
        ..wire::ExplainPodResponse::default()
    };
    let answer = explained_pod(&explained);
    assert!(answer.problem.is_some());
    is_as_read("explain_pod", &answer);
}

#[test]
fn an_identity_is_explained_as_people_have_read_it() {
    let could = |rule: &str, place, never| wire::CouldGive {
        rule: rule.to_owned(),
        place,
        pinned: vec![wire::Pinned {
            placeholder: "{namespace}".to_owned(),
            value: "shop".to_owned(),
        }],
        never,
    };
    let explained = wire::ExplainIdResponse {
        spiffe_id: "spiffe://example.org/shop/front".to_owned(),
        verdict: "spiffe://example.org/shop/front: one pod gets it".to_owned(),
        now_unix_ms: at(0),
        findings: vec![finding("rules", "ok", "rule \"shop\" gives it", "")],
        rules: vec![could("shop", 1, None), could("web", 3, Some(labels()))],
        pods: vec![wire::Holder {
            cluster: "prod".to_owned(),
            namespace: "shop".to_owned(),
            name: "front-0".to_owned(),
            uid: "11".to_owned(),
            node_name: "node-a".to_owned(),
            rule: "shop".to_owned(),
            is_default: true,
        }],
        pods_truncated: true,
        svids: vec![last()],
        ..wire::ExplainIdResponse::default()
    };
    let answer = explained_id(&explained);
    assert_eq!(answer.problem, None);
    is_as_read("explain_id", &answer);
}
