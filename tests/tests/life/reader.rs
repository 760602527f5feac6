//! What somebody who knows the time asks after every step: of the server by its admins' door, of each pod by what it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use signet_agent::testing::X509Context;
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::crl::{Crl, CrlNumber};
use signet_certs::serial::SerialNumber;
use signet_certs::time::from_unix_millis;
use signet_certs::verify::{LeafInfo, inspect_leaf};
use signet_proto::admin::{
    AgentRecord, Authority, ListAgentsRequest, ListSvidsRequest, ShowAuthoritiesRequest, ShowClockRequest,
    ShowCrlsRequest, StatusRequest, SvidRecord,
};
use signet_runtime::clock::Clock as _;
use signet_testkit::check_der;
use signet_tests::workload::split_der;
use tokio::time::timeout;

use crate::node::{NAMESPACE, Node};
use crate::world::{MINUTE, Server, World};

/// How long everything must have been right before a pod that comes must be served (INV-16), a look at the clocks included.
pub(crate) const SERVED_WITHIN: Duration = Duration::from_secs(90);
/// The longest wait of an agent between two attempts, and what comes after.
const ATTEMPT: Duration = Duration::from_secs(60);
/// An admin's question is answered within this time, or the server is starting.
const ANSWER: Duration = Duration::from_secs(5);

/// What the server says of itself at one moment.
pub(crate) struct Said {
    sequence: u64,
    authorities: Vec<Authority>,
    agents: Vec<AgentRecord>,
    /// Unrevoked, and unexpired as far as the server knows.
    live: Vec<SvidRecord>,
    crls: Vec<Bytes>,
    /// Ids of the authorities that were taken out of every bundle.
    departed: BTreeSet<String>,
}

impl Said {
    /// Whether this is the authority of its kind that signs.
    pub(crate) fn signs(&self, authority: &AuthorityId) -> bool {
        let id = authority.to_string();
        let mut all = self.authorities.iter();
        all.any(|one| one.authority_id == id && one.state == "active")
    }

    /// Whether the agent of a node can be heard.
    pub(crate) fn is_connected(&self, node: &str) -> bool {
        let mut agents = self.agents.iter();
        agents.any(|agent| agent.node_name == node && agent.connected)
    }
}

/// Asks the server; `None` while it is starting.
pub(crate) async fn ask(server: &Server) -> Option<Said> {
    let mut admin = server.admin.clone();
    let asking = async {
        let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
        let shown = admin.show_authorities(ShowAuthoritiesRequest {}).await.unwrap();
        let shown = shown.into_inner();
        let departed = shown.departed.into_iter().map(|one| one.authority_id);
        let crls = admin
            .show_crls(ShowCrlsRequest {})
            .await
            .unwrap()
            .into_inner()
            .crls;
        let agents = admin
            .list_agents(ListAgentsRequest {})
            .await
            .unwrap()
            .into_inner()
            .agents;
        let wanted = ListSvidsRequest {
            live: true,
            limit: 10_000,
            ..ListSvidsRequest::default()
        };
        let svids = admin.list_svids(wanted).await.unwrap().into_inner();
        assert!(!svids.truncated);
        Said {
            sequence: status.sequence_number,
            authorities: shown.authorities,
            agents,
            live: svids.svids,
            crls: crls.into_iter().map(|crl| crl.der).collect(),
            departed: departed.collect(),
        }
    };
    timeout(ANSWER, asking).await.ok()
}

/// What has been seen so far.
#[derive(Default)]
pub(crate) struct Reader {
    sequence: u64,
    authorities: BTreeMap<AuthorityId, AuthorityCertificate>,
    /// Of each list, as served.
    numbers: BTreeMap<AuthorityId, CrlNumber>,
    /// Of each list, as the pods of a node have it.
    held: BTreeMap<(&'static str, AuthorityId), CrlNumber>,
    /// Revoked certificates that were on a served list, and those that were on a list of a node's pods.
    pub(crate) listed: BTreeMap<SerialNumber, LeafInfo>,
    known_revoked: BTreeSet<(&'static str, SerialNumber)>,
    /// SPIFFE IDs that are denied, and of agents what they had brought when they were.
    pub(crate) denied: BTreeMap<String, BTreeSet<String>>,
    probes: usize,
    /// PKCS#8 of the keys that pods have had.
    pub(crate) keys: BTreeSet<Vec<u8>>,
}

impl Reader {
    pub(crate) async fn check(&mut self, world: &mut World) {
        let now = world.truth.now();
        self.listed.retain(|_, leaf| leaf.not_after >= now);
        let right = world.is_right_for(SERVED_WITHIN);
        let said = match &world.server {
            Some(server) => ask(server).await,
            None => None,
        };
        assert!(said.is_some() || !right, "the admins' door is closed");
        if let Some(said) = &said {
            self.check_lists(said, right.then_some(now));
            self.check_ledger(said, now);
        }
        for node in &world.nodes {
            for pod in &node.pods {
                if let Some(context) = node.context(pod).await {
                    self.check_context(node, &pod.name, &context, said.as_ref(), now);
                }
            }
        }
        if right {
            self.probe(world).await;
        }
    }

    /// INV-2, INV-3, INV-15; with the time also that lists are current.
    fn check_lists(&mut self, said: &Said, now: Option<SystemTime>) {
        assert!(said.sequence >= self.sequence, "the bundle's sequence went back");
        self.sequence = said.sequence;
        for authority in &said.authorities {
            let certificate = AuthorityCertificate::from_der(&authority.certificate).unwrap();
            self.authorities.insert(certificate.id(), certificate);
        }
        let crls: Vec<Crl> = said.crls.iter().map(|der| self.list(der)).collect();
        let issuers: BTreeSet<_> = crls.iter().map(Crl::authority_id).collect();
        assert_eq!(issuers.len(), crls.len(), "an authority has two lists");
        for authority in said.authorities.iter().filter(|one| one.state != "prepared") {
            let id = AuthorityCertificate::from_der(&authority.certificate)
                .unwrap()
                .id();
            assert!(issuers.contains(&id) || now.is_none(), "{id} has no list");
        }
        for crl in &crls {
            let before = self.numbers.insert(crl.authority_id(), crl.number());
            assert!(
                before.is_none_or(|before| before <= crl.number()),
                "a list's number went back"
            );
            if let Some(now) = now {
                assert!(crl.is_current(now), "a list has ended");
                crl.check_not_ahead(now).unwrap();
            }
        }
        // With an authority that is taken out of every bundle goes its list, and what was on it.
        let stands = |leaf: &LeafInfo| !said.departed.contains(&leaf.authority_id.to_string());
        self.listed.retain(|_, leaf| stands(leaf));
        for leaf in self.listed.values() {
            let list = crls.iter().find(|crl| crl.authority_id() == leaf.authority_id);
            assert!(
                list.is_some_and(|list| list.is_revoked(&leaf.serial)),
                "{} has left its list, or the list has gone",
                leaf.serial
            );
        }
    }

    fn list(&self, der: &[u8]) -> Crl {
        let mut issuers = self.authorities.values();
        let verified = issuers.find_map(|issuer| Some((issuer, Crl::verify(der, issuer).ok()?)));
        let (issuer, list) = verified.expect("a list of no known authority");
        check_der(der, issuer.der(), None).unwrap();
        list
    }

    /// INV-10, INV-11, INV-12, INV-14 by the rows of the ledger. A server whose time is behind also shows what has ended.
    fn check_ledger(&self, said: &Said, now: SystemTime) {
        let kinds: BTreeMap<_, _> = said
            .authorities
            .iter()
            .map(|authority| (&authority.authority_id, authority))
            .collect();
        let nodes: BTreeMap<_, _> = said
            .agents
            .iter()
            .map(|agent| (&agent.spiffe_id, &agent.node_name))
            .collect();
        let live = said.live.iter();
        for row in live.filter(|row| from_unix_millis(row.not_after_unix_ms) > now) {
            assert!(
                !self.denied.contains_key(&row.spiffe_id),
                "issued to a denied target: {row:?}"
            );
            if let Some(brought) = self.denied.get(&row.agent_id) {
                assert!(brought.contains(&row.serial), "issued to a denied agent: {row:?}");
            }
            if row.pod_namespace == NAMESPACE {
                assert!(
                    row.pod_name.ends_with(&row.node_name),
                    "a pod of another node: {row:?}"
                );
                assert_eq!(nodes.get(&row.agent_id), Some(&&row.node_name), "{row:?}");
            }
            if let Some(authority) = kinds.get(&row.authority_id) {
                assert!(
                    row.not_after_unix_ms <= authority.not_after_unix_ms,
                    "{row:?} outlives its authority"
                );
                let is_control = row.spiffe_id.contains("/signet/");
                assert_eq!(
                    is_control,
                    authority.kind == "control",
                    "{row:?} by {authority:?}"
                );
            }
        }
    }

    /// INV-2, INV-3, INV-4, INV-8, INV-10, INV-12 and INV-15 by what a pod has.
    fn check_context(
        &mut self,
        node: &Node,
        pod: &str,
        context: &X509Context,
        said: Option<&Said>,
        now: SystemTime,
    ) {
        assert_eq!(context.svids.len(), 1);
        let expected = format!("spiffe://example.org/ns/{NAMESPACE}/sa/{pod}");
        assert_eq!(context.svids[0].spiffe_id, expected);
        let leaf = inspect_leaf(&split_der(&context.svids[0].chain).unwrap()[0]).unwrap();
        assert_eq!(leaf.spiffe_id.as_str(), expected);
        self.keys.insert(context.svids[0].key.bytes().to_vec());
        let bundle = split_der(&context.bundle).unwrap();
        let bundle: Vec<_> = bundle
            .iter()
            .map(|der| AuthorityCertificate::from_der(der).unwrap())
            .collect();
        let issuer = bundle
            .iter()
            .find(|authority| authority.id() == leaf.authority_id);
        let issuer = issuer.expect("a certificate that its own bundle does not verify");
        assert!(
            leaf.not_after <= issuer.not_after(),
            "{leaf:?} outlives its authority"
        );
        assert_eq!(
            bundle.len(),
            context.crls.ders().len(),
            "an authority without a list"
        );
        for authority in &bundle {
            let mut lists = context
                .crls
                .ders()
                .iter()
                .filter_map(|der| Crl::verify(der, authority).ok());
            let list = lists.next().expect("an authority without a list");
            assert!(lists.next().is_none(), "an authority with two lists");
            self.check_held(node.name, &list);
        }
        let Some(said) = said else {
            return;
        };
        let recorded = said.live.iter().any(|row| row.serial == leaf.serial.to_string());
        let counts = !self.listed.contains_key(&leaf.serial) && leaf.not_after > now + MINUTE;
        // While the server's time is ahead its rows have ended; what an admin has denied has no live row.
        let asked_in_truth = said
            .live
            .iter()
            .all(|row| from_unix_millis(row.not_before_unix_ms) <= now + MINUTE);
        let has_live_row = recorded || !counts || self.denied.contains_key(&expected);
        assert!(
            has_live_row || !asked_in_truth || said.live.is_empty(),
            "{leaf:?} is in no row"
        );
        self.check_spread(node, &bundle, said);
    }

    fn check_held(&mut self, node: &'static str, list: &Crl) {
        let before = self.held.insert((node, list.authority_id()), list.number());
        assert!(
            before.is_none_or(|before| before <= list.number()),
            "a list's number went back on {node}"
        );
        for leaf in self
            .listed
            .values()
            .filter(|leaf| leaf.authority_id == list.authority_id())
        {
            let known = (node, leaf.serial);
            if list.is_revoked(&leaf.serial) {
                self.known_revoked.insert(known);
            } else {
                assert!(
                    !self.known_revoked.contains(&known),
                    "{node} has forgotten {}",
                    leaf.serial
                );
            }
        }
    }

    /// INV-8: what begins to sign is in the bundle of every agent that is connected and believes what it is sent.
    fn check_spread(&self, node: &Node, bundle: &[AuthorityCertificate], said: &Said) {
        let agent = said.agents.iter().find(|agent| agent.node_name == node.name);
        if !agent.is_some_and(|agent| agent.connected && agent.problem.is_empty()) {
            return;
        }
        for authority in &said.authorities {
            if authority.kind == "x509" && authority.state == "active" {
                let known = bundle
                    .iter()
                    .any(|held| held.id().to_string() == authority.authority_id);
                assert!(
                    known,
                    "{} lacks the authority that signs: {authority:?}",
                    node.name
                );
            }
        }
    }

    /// INV-16: a pod that comes is served, and is believed by who knows the time.
    async fn probe(&mut self, world: &mut World) {
        world.kubelet().await;
        for at in 0..world.nodes.len() {
            if !world.nodes[at].is_right_for(SERVED_WITHIN) {
                continue;
            }
            self.probes += 1;
            let name = format!("probe-{}-{}", self.probes, world.nodes[at].name);
            world.nodes[at].add_pod(&world.api, &name).await;
            let node = &world.nodes[at];
            let served = node.context_within(node.pods.last().unwrap(), ATTEMPT).await;
            let Ok(context) = served else {
                panic!(
                    "a pod of {} is not served: {served:?}\n{}",
                    node.name,
                    shown(world).await
                );
            };
            let leaf = inspect_leaf(&split_der(&context.svids[0].chain).unwrap()[0]).unwrap();
            let now = world.truth.now();
            assert!(
                leaf.not_before <= now && now < leaf.not_after,
                "{leaf:?} at {now:?}"
            );
            world.nodes[at].remove_pod(&world.api, &name).await;
        }
    }
}

/// For the message of a failure.
async fn shown(world: &World) -> String {
    let Some(server) = &world.server else {
        return "no server".to_owned();
    };
    let mut admin = server.admin.clone();
    let clock = admin.show_clock(ShowClockRequest {}).await;
    let status = admin.status(StatusRequest {}).await;
    let agents = admin.list_agents(ListAgentsRequest {}).await;
    format!(
        "{clock:?}\n{:?}\n{agents:?}",
        status.map(|status| status.into_inner().not_ready)
    )
}

/// The certificates that pods have at this moment, by node and pod.
pub(crate) async fn holdings(world: &World) -> Vec<(usize, usize, Arc<X509Context>)> {
    let mut found = Vec::new();
    for (at, node) in world.nodes.iter().enumerate() {
        for (number, pod) in node.pods.iter().enumerate() {
            if let Some(context) = node.context(pod).await {
                found.push((at, number, context));
            }
        }
    }
    found
}
