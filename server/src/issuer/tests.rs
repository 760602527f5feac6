use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use ring::rand::SystemRandom;
use rustls_pki_types::CertificateDer;
use signet_certs::{
    authority::{AuthorityKind, X509Authority},
    csr::create_csr,
    id::SpiffeId,
    serial::SerialNumber,
    signer::LeafKey,
    svid::SvidProfile,
    time::rfc3339,
    verify::{Role, VerifiedSvid, inspect_leaf, verify_chain},
};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{
    CallRefused, CallingAgent, Evidence, IssueItem, Issued, Issuer, IssuerParts, NodeRequest, NotIssued,
    Outcome, RefusalReason,
};
use crate::{
    agents::Agents,
    attest::{AgentIdentity, AttestedNode, AttestedPod, fake::FakeAttestor},
    audit::{AuditAction, AuditBacklog, AuditLog},
    authority::Held,
    clock::{Past, TrustedClock},
    fixtures::{HOUR, Running, SKEW, authority, deny, trust_domain},
    metrics::Metrics,
    rules::{IdentityRuleConfig, RuleScope, RuleSet},
    store::{AttestedAgents as _, PresentedCertificate, Revocations as _, Standing, memory::MemoryStore},
};

mod backlog;
mod bounds;
mod elsewhere;
mod live_rules;
mod namespaces;
mod outages;
mod requester;
mod witness;

struct World {
    running: Running,
    attestor: Arc<FakeAttestor>,
    audit: AuditLog,
    issuer: Issuer,
    agents: Arc<Agents>,
    scope: RuleScope,
    rules: watch::Sender<Arc<RuleSet>>,
    /// The certificate of the agent of node-a.
    certificate: Vec<u8>,
}

impl World {
    async fn new() -> Self {
        Self::with_rules(Vec::new()).await
    }

    async fn with_rules(rules: Vec<IdentityRuleConfig>) -> Self {
        Self::over(Running::new().await, rules).await
    }

    async fn over(running: Running, rules: Vec<IdentityRuleConfig>) -> Self {
        let attestor = Arc::new(FakeAttestor::new());
        let scope = RuleScope {
            trust_domain: trust_domain(),
            clusters: vec!["dev".to_owned()],
            builtin_rule: true,
            same_identity: false,
        };
        let audit = AuditLog::start(running.store.clone());
        let profile = |ttl| SvidProfile {
            ttl,
            clock_skew: SKEW,
            crl_base_url: None,
        };
        let agents = Arc::new(Agents::new(running.store.clone(), audit.clone()));
        let rules = watch::Sender::new(Arc::new(RuleSet::compile(&scope, rules).unwrap()));
        let issuer = Issuer::new(IssuerParts {
            trust_domain: trust_domain(),
            store: running.store.clone(),
            audit: audit.clone(),
            attestor: attestor.clone(),
            rules: rules.subscribe(),
            authorities: running.manager.current(),
            clock: running.trusted.clone(),
            rng: SystemRandom::new(),
            profile: profile(HOUR),
            longest_ttl: HOUR,
            control_profile: profile(HOUR),
            max_live: 8,
            backlog: AuditBacklog::none(),
            agents: agents.clone(),
            metrics: Arc::new(Metrics::default()),
        });
        attestor.add_pod("pod-token", pod("node-a"));
        let first = AttestedNode {
            jti: "first".to_owned(),
            ..node(running.now())
        };
        attestor.add_node("first", first);
        let attested = issuer.issue_to_node(node_request("first"), None).await;
        Self {
            running,
            attestor,
            audit,
            issuer,
            agents,
            scope,
            rules,
            certificate: attested.unwrap().chain.remove(0),
        }
    }

    fn serial(&self) -> SerialNumber {
        inspect_leaf(&self.certificate).unwrap().serial
    }

    /// The agent of this node, by the certificate of that of node-a.
    fn calling(&self, node: &str) -> CallingAgent {
        CallingAgent::new(agent(node), self.serial())
    }

    async fn issue(&self, items: Vec<IssueItem>) -> Vec<Outcome> {
        let answered = self.issuer.issue(&self.calling("node-a"), items).await;
        answered.unwrap().outcomes
    }

    async fn issue_one(&self, item: IssueItem) -> Outcome {
        self.issue(vec![item]).await.pop().unwrap()
    }

    async fn audited_refusals(&self) -> Vec<String> {
        self.audit.flush().await;
        let reason = |action: &AuditAction| match action {
            AuditAction::Refused { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        let events = self.running.store.audit_events();
        events.iter().filter_map(|event| reason(event.action())).collect()
    }

    /// Denies the identity of `pod-token`; returns the denial's id.
    async fn deny(&self) -> String {
        let id = SpiffeId::parse("spiffe://example.org/ns/shop/sa/frontend").unwrap();
        deny(self.running.store.as_ref(), &id, self.running.now()).await
    }
}

fn agent(node: &str) -> AgentIdentity {
    AgentIdentity {
        spiffe_id: SpiffeId::agent(&trust_domain(), "dev", &format!("uid-of-{node}")).unwrap(),
        cluster: "dev".to_owned(),
        node_name: node.to_owned(),
        node_uid: format!("uid-of-{node}"),
    }
}

fn pod(node: &str) -> AttestedPod {
    AttestedPod {
        cluster: "dev".to_owned(),
        cluster_uid: "cluster-uid".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "frontend".to_owned(),
        pod_name: "frontend-0".to_owned(),
        pod_uid: "pod-uid".to_owned(),
        node_name: node.to_owned(),
        node_uid: format!("uid-of-{node}"),
        labels: Arc::new(BTreeMap::new()),
        namespace_labels: None,
        jti: "jti-1".to_owned(),
        expires: SystemTime::UNIX_EPOCH,
        terminating: false,
        outage: false,
    }
}

fn csr() -> Bytes {
    create_csr(&LeafKey::generate(&SystemRandom::new()).unwrap())
        .unwrap()
        .into()
}

fn item(csr: Bytes, token: &str) -> IssueItem {
    IssueItem {
        csr,
        spiffe_id: None,
        evidence: Evidence::PodToken {
            token: Zeroizing::new(token.to_owned()),
            of_pod: None,
        },
    }
}

fn issued(outcome: Outcome) -> Issued {
    outcome.unwrap_or_else(|not| panic!("not issued: {not:?}"))
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, NotIssued>) -> (RefusalReason, String) {
    match outcome {
        Err(NotIssued::Refused(refusal)) => (refusal.reason, refusal.message),
        other => panic!("not refused: {other:?}"),
    }
}

fn is_unavailable<T>(outcome: &Result<T, NotIssued>) -> bool {
    matches!(outcome, Err(NotIssued::Unavailable { .. }))
}

/// Covers INV-4.
#[tokio::test(start_paused = true)]
async fn what_is_signed_was_recorded_with_the_same_serial_key_and_identity() {
    let world = World::new().await;
    let before = world.running.store.issued().len();
    let issued = issued(world.issue_one(item(csr(), "pod-token")).await);
    let leaf = inspect_leaf(&issued.chain[0]).unwrap();
    let row = &world.running.store.issued()[before];
    assert_eq!(leaf.serial, row.serial);
    assert_eq!(leaf.spki_sha256, row.spki_sha256);
    assert_eq!(leaf.spiffe_id, row.workload.spiffe_id);
    assert_eq!(leaf.not_after, row.not_after);
    assert_eq!(row.workload.pod_uid, "pod-uid");
    assert_eq!(row.token_jti.as_deref(), Some("jti-1"));
    assert_eq!(
        leaf.spiffe_id.as_str(),
        "spiffe://example.org/ns/shop/sa/frontend"
    );
}

/// A token that somebody put into another pod's volume, past kubelet and past the agent.
#[tokio::test(start_paused = true)]
async fn a_token_is_good_for_the_pod_of_its_volume_alone() {
    let world = World::new().await;
    let of = |uid: &str| IssueItem {
        evidence: Evidence::PodToken {
            token: Zeroizing::new("pod-token".to_owned()),
            of_pod: Some(uid.to_owned()),
        },
        ..item(csr(), "")
    };
    let (reason, message) = refused(world.issue_one(of("thief")).await);
    assert_eq!(reason, RefusalReason::NotAttested);
    assert!(message.contains("its volume of the pod thief"), "{message}");
    assert_eq!(
        world.audited_refusals().await,
        [format!("not_attested: {message}")]
    );
    issued(world.issue_one(of("pod-uid")).await);
}

/// Covers INV-4.
#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_record_means_no_certificate_and_no_verdict() {
    let world = World::new().await;
    world.running.store.issue_failures.store(1, Ordering::SeqCst);
    let outcomes = world
        .issue(vec![item(csr(), "pod-token"), item(csr(), "pod-token")])
        .await;
    assert!(outcomes.iter().all(is_unavailable), "{outcomes:?}");
    assert!(
        world.audited_refusals().await.is_empty(),
        "an outage is no refusal"
    );
}

/// Covers INV-11.
#[tokio::test(start_paused = true)]
async fn a_denied_identity_is_refused_and_audited_with_the_denial() {
    let world = World::new().await;
    let denial = world.deny().await;
    let (reason, message) = refused(world.issue_one(item(csr(), "pod-token")).await);
    assert_eq!(reason, RefusalReason::Denied);
    assert!(message.contains(&denial), "{message}");
    assert!(world.audited_refusals().await[0].starts_with("denied: "));
}

/// A crash loop of an agent costs nobody anything: all its pods and itself are served at once.
#[tokio::test(start_paused = true)]
async fn fifty_restarts_of_an_agent_in_a_minute_lock_nobody_out() {
    let world = World::new().await;
    world.attestor.add_node("node-token", node(world.running.now()));
    let key = csr();
    for _ in 0..50 {
        let request = NodeRequest {
            csr: key.clone(),
            ..node_request("node-token")
        };
        world.issuer.issue_to_node(request, None).await.unwrap();
        issued(world.issue_one(item(csr(), "pod-token")).await);
        world.running.pass(Duration::from_secs(1)).await;
    }
    let refusal = loop {
        match world.issue_one(item(csr(), "pod-token")).await {
            Ok(_) => {}
            Err(NotIssued::Refused(refusal)) => break refusal,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal.reason, RefusalReason::Budget);
    let wait = refusal.retry_after.unwrap();
    assert!(wait <= Duration::from_secs(60), "{}", refusal.message);
    world.running.pass(wait).await;
    issued(world.issue_one(item(csr(), "pod-token")).await);
}

/// Covers INV-12, BT-10.
#[tokio::test(start_paused = true)]
async fn another_nodes_agent_gets_nothing_for_the_pods_token() {
    let world = World::new().await;
    let outcome = world
        .issuer
        .issue(&world.calling("node-b"), vec![item(csr(), "pod-token")])
        .await
        .unwrap()
        .outcomes
        .pop()
        .unwrap();
    let (reason, message) = refused(outcome);
    assert_eq!(reason, RefusalReason::NotAttested);
    assert!(
        message.contains("node-a") && message.contains("node-b"),
        "{message}"
    );
    assert_eq!(world.audited_refusals().await.len(), 1);
}

/// Covers BC-16.
#[tokio::test(start_paused = true)]
async fn a_bad_item_spoils_no_other_and_answers_keep_their_order() {
    let world = World::new().await;
    let items = vec![
        item(csr(), "pod-token"),
        item(Bytes::from_static(b"junk"), "pod-token"),
        item(csr(), "another token"),
        item(csr(), "pod-token"),
    ];
    let mut outcomes = world.issue(items).await.into_iter();
    issued(outcomes.next().unwrap());
    assert_eq!(refused(outcomes.next().unwrap()).0, RefusalReason::InvalidRequest);
    assert_eq!(refused(outcomes.next().unwrap()).0, RefusalReason::NotAttested);
    issued(outcomes.next().unwrap());
}

/// Covers BI-18, BI-19, BC-09.
#[tokio::test(start_paused = true)]
async fn an_identity_that_no_rule_gives_cannot_be_asked_for() {
    let world = World::new().await;
    for wanted in [
        "spiffe://example.org/ns/shop/sa/backend",
        "spiffe://example.org/signet/server",
        "spiffe://example.org",
        "spiffe://other.example/ns/shop/sa/frontend",
        "SPIFFE://example.org/ns/shop/sa/frontend",
        "spiffe://example.org/ns/shop/sa/frontend ",
    ] {
        let item = IssueItem {
            spiffe_id: Some(wanted.to_owned()),
            ..item(csr(), "pod-token")
        };
        assert_eq!(
            refused(world.issue_one(item).await).0,
            RefusalReason::NoMatch,
            "{wanted}"
        );
    }
    let own = Some("spiffe://example.org/ns/shop/sa/frontend".to_owned());
    issued(
        world
            .issue_one(IssueItem {
                spiffe_id: own,
                ..item(csr(), "pod-token")
            })
            .await,
    );
}

fn process(program: usize) -> IssueItem {
    IssueItem {
        csr: csr(),
        spiffe_id: None,
        evidence: Evidence::Unix {
            uid: 1000,
            gid: 1000,
            path: Some(format!("/usr/bin/program-{program}")),
            sha256: None,
        },
    }
}

async fn world_of_shells() -> World {
    let rule = serde_json::from_value(serde_json::json!({
        "name": "shell",
        "match": { "evidence": ["unix"], "unix": { "uids": [1000] } },
        "spiffe_id": "/dev/uid/{uid}",
    }));
    World::with_rules(vec![rule.unwrap()]).await
}

/// What an agent says of a process gives an identity only where a rule names that kind of evidence.
#[tokio::test(start_paused = true)]
async fn unix_facts_count_only_for_rules_that_accept_them() {
    let world = World::new().await;
    assert_eq!(
        refused(world.issue_one(process(1)).await).0,
        RefusalReason::NoMatch
    );
    let world = world_of_shells().await;
    let leaf = inspect_leaf(&issued(world.issue_one(process(1)).await).chain[0]).unwrap();
    assert_eq!(leaf.spiffe_id.path(), "/dev/uid/1000");
    let row = world.running.store.issued().pop().unwrap();
    assert_eq!(row.workload.process, "uid=1000 gid=1000 path=/usr/bin/program-1");
}

/// Every program of a user has what is free, and all that an agent vouches for has a bound, which its pods do not share.
#[tokio::test(start_paused = true)]
async fn programs_of_one_user_do_not_share_a_budget_and_an_agent_invents_only_so_many() {
    let world = world_of_shells().await;
    for program in 0..20 {
        for _ in 0..8 {
            issued(world.issue_one(process(program)).await);
        }
    }
    let displaced = world.issuer.parts.metrics.displaced_total();
    assert_eq!(displaced, 0, "each has eight of its own");
    let invented = world.issue((20..256).map(process).collect()).await;
    let given = invented.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(160 + given, 256);
    let (reason, message) = refused(invented.into_iter().next_back().unwrap());
    assert_eq!(reason, RefusalReason::Budget);
    assert!(message.contains("the agent of this node"), "{message}");
    issued(world.issue_one(item(csr(), "pod-token")).await);
}

/// Covers BT-11.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_never_a_refusal() {
    let world = World::new().await;
    world.attestor.set_failure(Some("the API server does not answer"));
    let outcome = world.issue_one(item(csr(), "pod-token")).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    assert!(world.audited_refusals().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_signed_before_the_time_is_known_and_a_jump_stops_nothing() {
    let mut world = World::new().await;
    let waiting = Past {
        mark: None,
        jumped: false,
        second_clock: true,
        removal_delay: HOUR,
    };
    let trusted = std::mem::replace(
        &mut world.issuer.parts.clock,
        Arc::new(TrustedClock::new(Arc::new(world.running.clock.clone()), waiting)),
    );
    assert!(is_unavailable(&world.issue_one(item(csr(), "pod-token")).await));
    world.issuer.parts.clock = trusted;
    for seconds in [2 * 3600, 8 * 86_400, -2 * 3600] {
        world.running.clock.set_offset(seconds);
        issued(world.issue_one(item(csr(), "pod-token")).await);
    }
}

/// What the server lacks is its own trouble: the agent asks again, and nothing is written about its workload.
#[tokio::test(start_paused = true)]
async fn an_authority_outside_its_life_is_trouble_of_the_servers_and_no_verdict() {
    let mut world = World::new().await;
    world.attestor.add_node("node-token", node(world.running.now()));
    let now = world.running.now();
    for (born, expired) in [(now - 24 * HOUR, true), (now + HOUR, false)] {
        let mut view = (**world.running.manager.current().borrow()).clone();
        view.kind_mut(AuthorityKind::X509).authorities[0].held =
            Held::X509(authority(AuthorityKind::X509, born));
        view.kind_mut(AuthorityKind::Control).authorities[0].held =
            Held::X509(authority(AuthorityKind::Control, born));
        let (_keep, authorities) = watch::channel(Arc::new(view));
        world.issuer.parts.authorities = authorities;
        let pod = world.issue_one(item(csr(), "pod-token")).await.map(drop);
        let node = world.issuer.issue_to_node(node_request("node-token"), None).await;
        for outcome in [pod, node.map(drop)] {
            let Err(NotIssued::Unavailable { message, .. }) = outcome else {
                panic!("not trouble: {outcome:?}");
            };
            assert_eq!(message.contains("has expired: "), expired, "{message}");
            assert_eq!(message.contains("is not valid yet: "), !expired, "{message}");
            assert!(message.contains(&rfc3339(now)), "{message}");
        }
    }
    assert!(world.audited_refusals().await.is_empty());
}

fn node_request(token: &str) -> NodeRequest {
    NodeRequest {
        csr: csr(),
        cluster: "dev".to_owned(),
        token: Zeroizing::new(token.to_owned()),
        source: std::net::Ipv4Addr::LOCALHOST.into(),
    }
}

fn node(now: SystemTime) -> AttestedNode {
    AttestedNode {
        cluster: "dev".to_owned(),
        cluster_uid: "cluster-uid".to_owned(),
        node_name: "node-a".to_owned(),
        node_uid: "uid-of-node-a".to_owned(),
        namespace: "signet-system".to_owned(),
        service_account: "signet-agent".to_owned(),
        pod_name: "agent-1".to_owned(),
        pod_uid: "agent-pod-uid".to_owned(),
        jti: "node-jti".to_owned(),
        expires: now + HOUR,
    }
}

/// Covers INV-14.
#[tokio::test(start_paused = true)]
async fn agents_are_signed_by_the_control_authority_only() {
    let world = World::new().await;
    world.attestor.add_node("node-token", node(world.running.now()));
    let certificate = world
        .issuer
        .issue_to_node(node_request("node-token"), None)
        .await
        .unwrap();
    let leaf = inspect_leaf(&certificate.chain[0]).unwrap();
    assert_eq!(leaf.authority_id, world.running.active(AuthorityKind::Control));
    assert_eq!(leaf.spiffe_id, agent("node-a").spiffe_id);
    let workload = issued(world.issue_one(item(csr(), "pod-token")).await);
    assert_eq!(
        inspect_leaf(&workload.chain[0]).unwrap().authority_id,
        world.running.active(AuthorityKind::X509)
    );
}

/// A pod's token is no node's, whoever brings it.
#[tokio::test(start_paused = true)]
async fn a_pods_token_makes_nobody_an_agent() {
    let world = World::new().await;
    let outcome = world.issuer.issue_to_node(node_request("pod-token"), None).await;
    assert_eq!(refused(outcome).0, RefusalReason::NotAttested);
    assert_eq!(world.audited_refusals().await.len(), 1);
}
