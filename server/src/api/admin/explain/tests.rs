//! What is said of a pod for each way in which it can get nothing, with the remedy.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use signet_certs::{authority::AuthorityId, crl::RevocationReason, id::TrustDomain, serial::SerialNumber};

use super::*;
use crate::{
    agents::AgentStatus,
    attest::{AttestedPod, FoundPod},
    rules::{IdentityRuleConfig, RuleScope, RuleSet},
    store::{BudgetOwner, DenialTarget, EvidenceKind, Generation, Generations, WorkloadRef},
};

const NOW: SystemTime = UNIX_EPOCH;
const MINUTE: Duration = Duration::from_secs(60);
const ID: &str = "spiffe://example.org/ns/shop/sa/front";
const AGENT: &str = "spiffe://example.org/signet/agent/box/node-1";

fn now() -> SystemTime {
    NOW + 1000 * MINUTE
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn pod() -> AttestedPod {
    AttestedPod {
        cluster: "box".to_owned(),
        cluster_uid: "c".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "front".to_owned(),
        pod_name: "front-0".to_owned(),
        pod_uid: "pod-1".to_owned(),
        node_name: "node-a".to_owned(),
        node_uid: String::new(),
        labels: Arc::new([("app".to_owned(), "api".to_owned())].into()),
        namespace_labels: None,
        jti: String::new(),
        expires: UNIX_EPOCH,
        terminating: false,
        outage: false,
    }
}

fn found(pod: AttestedPod) -> FoundPod {
    FoundPod {
        pod,
        phase: "Running",
        is_over: false,
        from_api: false,
    }
}

fn row() -> AgentRow {
    let used = Generation { epoch: 1, number: 1 };
    AgentRow {
        spiffe_id: id(AGENT),
        cluster: "box".to_owned(),
        node_name: "node-a".to_owned(),
        node_uid: "node-1".to_owned(),
        serial: SerialNumber::generate(now(), &[7; 13]),
        authority: "aa".repeat(20).parse::<AuthorityId>().unwrap(),
        attested_at: NOW,
        expires_at: now() + 60 * MINUTE,
        pod_uid: String::new(),
        reported: 1,
        generations: Generations {
            issued: used,
            used,
            revoked_up_to: Generation::default(),
        },
    }
}

fn status() -> AgentStatus {
    let mut status = AgentStatus {
        connected: true,
        key_exchange: None,
        report: crate::agents::Report::default(),
    };
    status.report.pod_uids.insert("pod-1".to_owned());
    status
}

fn account(list: serde_json::Value, builtin_rule: bool, pod: &AttestedPod) -> Account {
    let scope = RuleScope {
        trust_domain: TrustDomain::parse("example.org").unwrap(),
        clusters: vec!["box".to_owned()],
        builtin_rule,
        same_identity: false,
    };
    let rules: Vec<IdentityRuleConfig> = serde_json::from_value(list).unwrap();
    RuleSet::compile(&scope, rules)
        .unwrap()
        .account(&Facts::Pod(pod), 8)
}

/// A pod that gets its identity.
fn well() -> Seen {
    Seen {
        now: now(),
        namespace: "shop".to_owned(),
        name: "front-0".to_owned(),
        cluster: ClusterHealth {
            name: "box".to_owned(),
            uid: Some("c".to_owned()),
            synced: true,
            unreachable_since: None,
            last_seen: None,
            pods: 3,
            kept_reviews: 0,
            displaced_reviews: 0,
            problem: None,
        },
        found: Found::There(Box::new(found(pod()))),
        account: Some(account(json!([]), true, &pod())),
        rules: 1,
        rules_apart: String::new(),
        agent: Some((row(), Some(status()))),
        denials: Vec::new(),
        svids: Vec::new(),
        live: (0, 8),
        spent: None,
        refusals: Vec::new(),
        not_ready: Vec::new(),
    }
}

fn denial(target: &str) -> Denial {
    Denial {
        id: "d1-1".to_owned(),
        target: DenialTarget::Id(id(target)),
        author: "uid:0".to_owned(),
        comment: "leaked".to_owned(),
        created: NOW,
        expires: None,
        lifted: None,
    }
}

/// Its certificate counts from before it was made, as `svid.clock_skew` has it.
fn issued(minutes_ago: u32) -> LedgerRow {
    LedgerRow {
        serial: SerialNumber::generate(now() - minutes_ago * MINUTE, &[7; 13]),
        authority: row().authority,
        workload: WorkloadRef::of(id(ID)),
        evidence: EvidenceKind::PodToken,
        rule: "builtin".to_owned(),
        not_before: now() - (minutes_ago + 2) * MINUTE,
        not_after: now() - minutes_ago * MINUTE + 60 * MINUTE,
        revoked: None,
    }
}

fn refused(kind: &'static str) -> RefusedOnce {
    RefusedOnce {
        at: now() - MINUTE,
        kind,
        message: "the token is for another audience".to_owned(),
    }
}

fn ruled(list: serde_json::Value) -> Seen {
    Seen {
        account: Some(account(list, false, &pod())),
        ..well()
    }
}

/// The verdict and the remedy of what is said to stand in the way.
fn judged(seen: &Seen) -> (String, String) {
    let findings = pod::findings(seen);
    let (verdict, granted) = pod::verdict(seen, &findings);
    let fails = findings.iter().find(|one| one.state == "fails");
    assert_eq!(
        granted,
        fails.is_none() && findings.iter().all(|one| one.state != "unknown")
    );
    for one in &findings {
        assert!(!one.says.contains('\n') && !one.remedy.contains('\n'), "{one:?}");
        // All of which nothing has to be done about.
        let mut remarks = vec!["it is being deleted", "the pod is on no node", "refused "];
        // Why is said of what fails.
        remarks.extend(fails.map(|_| "the ledger has none of this pod"));
        let is_remark = one.state == "note" && remarks.iter().any(|says| one.says.starts_with(says));
        assert!(
            one.state == "ok" || is_remark || !one.remedy.is_empty(),
            "what is not as it should be has a remedy: {one:?}"
        );
    }
    (verdict, fails.map(|one| one.remedy.clone()).unwrap_or_default())
}

#[test]
fn a_pod_that_gets_its_identity_is_said_to() {
    let (verdict, remedy) = judged(&well());
    assert_eq!(
        (verdict.as_str(), remedy.as_str()),
        ("pod shop/front-0 gets spiffe://example.org/ns/shop/sa/front", "")
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
fn each_way_to_get_nothing_has_its_words_and_its_remedy() {
    let in_pod = |change: fn(&mut FoundPod)| {
        let mut there = found(pod());
        change(&mut there);
        Seen {
            found: Found::There(Box::new(there)),
            ..well()
        }
    };
    let in_agent = |change: fn(&mut AgentRow, &mut AgentStatus)| {
        let (mut row, mut status) = (row(), status());
        change(&mut row, &mut status);
        Seen {
            agent: Some((row, Some(status))),
            ..well()
        }
    };
    let cases = [
        (
            Seen {
                cluster: ClusterHealth {
                    unreachable_since: Some(NOW),
                    ..well().cluster
                },
                ..well()
            },
            "cannot be reached since 1970-01-01T00:00:00Z",
            "network",
        ),
        (
            Seen {
                found: Found::Nowhere,
                account: None,
                agent: None,
                ..well()
            },
            "there is no pod shop/front-0 in box",
            "kubectl get pods -n shop",
        ),
        (
            in_pod(|pod| pod.is_over = true),
            "it is over",
            "kubectl describe pod -n shop front-0",
        ),
        (
            in_pod(|pod| pod.pod.node_name.clear()),
            "on no node yet",
            "kubectl describe pod -n shop front-0",
        ),
        (
            ruled(
                json!([{"name": "web", "match": {"namespaces": ["shop"], "pod_labels": {"app": "web"}}, "spiffe_id": "/web"}]),
            ),
            "none of 1 rules matches it; the nearest, \"web\", wants pod_labels app=web and found app=api",
            "label the pod app=web, in its template, or let `pod_labels` of rule \"web\" take app=api",
        ),
        (
            ruled(json!([{"name": "sa", "match": {"service_accounts": ["back"]}, "spiffe_id": "/x"}])),
            "wants service_accounts back and found front",
            "run the pod as service account back",
        ),
        (
            ruled(json!([{"name": "ns", "match": {"namespaces": ["bank"]}, "spiffe_id": "/x"}])),
            "wants namespaces bank and found shop",
            "run it in namespace bank",
        ),
        (
            ruled(
                json!([{"name": "u", "match": {"evidence": ["unix"], "unix": {"uids": [1]}}, "spiffe_id": "/x"}]),
            ),
            "wants evidence unix and found pod_token",
            "write a rule for this pod",
        ),
        (
            ruled(
                json!([{"name": "t", "match": {"namespaces": ["shop"], "pod_labels": {"tier": ""}}, "spiffe_id": "/x"}]),
            ),
            "found no label tier",
            "label the pod tier=",
        ),
        (ruled(json!([])), "there are no rules", "builtin_rule: true"),
        (
            ruled(json!([{"name": "no", "match": {"namespaces": ["shop"]}, "deny": true}])),
            "rule \"no\" denies it",
            "narrow the `match` of rule \"no\"",
        ),
        (
            Seen {
                denials: vec![denial(ID)],
                ..well()
            },
            "is denied by d1-1 of uid:0 since 1970-01-01T00:00:00Z, which does not end by itself: \"leaked\"",
            "signet-server allow d1-1",
        ),
        (
            Seen {
                denials: vec![denial(AGENT)],
                ..well()
            },
            "signet/agent/box/node-1 is denied",
            "signet-server allow d1-1",
        ),
        (
            Seen {
                agent: None,
                ..well()
            },
            "no agent has attested for the node node-a",
            "spec.nodeName=node-a",
        ),
        (
            in_agent(|row, _| row.generations.revoked_up_to = row.generations.issued),
            "is revoked",
            "attests anew by itself",
        ),
        (in_agent(|row, _| row.expires_at = NOW), "ended 1970", "its log"),
        (
            in_agent(|_, status| status.connected = false),
            "is not connected",
            "signet-agent status",
        ),
        (
            in_agent(|_, status| status.report.pod_uids.clear()),
            "knows no volume of this pod",
            "docs/kubernetes.md",
        ),
        (
            Seen {
                spent: Some(Spent {
                    owner: BudgetOwner::Workload,
                    retry_after: MINUTE,
                }),
                ..well()
            },
            "too many certificates",
            "restart loop",
        ),
        (
            Seen {
                not_ready: vec![NotReady {
                    reason: crate::readiness::NO_AUTHORITY,
                    detail: "x509".to_owned(),
                }],
                ..well()
            },
            "the server cannot issue: no_authority: x509",
            "docs/operating.md",
        ),
        (
            Seen {
                refusals: vec![refused("not_attested")],
                svids: vec![issued(30)],
                ..well()
            },
            "not_attested: the token is for another audience",
            "attestation.pod_audience",
        ),
    ];
    for (seen, says, does) in cases {
        let (verdict, remedy) = judged(&seen);
        assert!(
            verdict.starts_with("pod shop/front-0 gets nothing: "),
            "{verdict}"
        );
        assert!(verdict.contains(says), "{says:?} in {verdict:?}");
        assert!(remedy.contains(does), "{does:?} in {remedy:?}");
    }
}

#[test]
fn what_is_past_or_not_in_the_way_is_a_note() {
    let labels = json!([{"name": "team", "match": {"namespace_labels": {"team": "a"}}, "spiffe_id": "/a"}]);
    let (verdict, _) = judged(&ruled(labels));
    assert!(
        verdict.contains("is not known: it hangs on labels of its namespace"),
        "{verdict}"
    );
    let mut revoked = issued(10);
    revoked.revoked = Some((now(), RevocationReason::KeyCompromise));
    let notes = [
        Seen {
            refusals: vec![refused("not_attested")],
            svids: vec![issued(0)],
            ..well()
        },
        Seen {
            refusals: vec![refused("no_match")],
            ..well()
        },
        Seen {
            svids: vec![revoked],
            ..well()
        },
        Seen {
            svids: vec![issued(90)],
            ..well()
        },
        Seen {
            rules_apart: "those of the file wait".to_owned(),
            ..well()
        },
        Seen {
            svids: Vec::new(),
            ..well()
        },
        Seen {
            cluster: ClusterHealth {
                synced: false,
                ..well().cluster
            },
            ..well()
        },
        // It renews by what it holds.
        Seen {
            svids: vec![issued(1)],
            cluster: ClusterHealth {
                unreachable_since: Some(NOW),
                ..well().cluster
            },
            ..well()
        },
    ];
    for seen in notes {
        let findings = pod::findings(&seen);
        let (verdict, granted) = pod::verdict(&seen, &findings);
        assert!(granted, "{verdict}");
        judged(&seen);
        assert!(
            findings.iter().filter(|one| one.state == "note").count() > 0,
            "{findings:?}"
        );
    }
}
