mod calls;
mod namespaces;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_runtime::clock::FakeClock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::nodes::NODE_COUNTS_FOR;
use super::outage::PROBE_AGAIN_AFTER;
use super::*;
use crate::attest::Place;
use crate::attest::testing::Key;
use crate::fixtures::{HOUR, START, trust_domain};
use crate::kubernetes::access::Access;
use crate::kubernetes::testing::{Answer, Script};
use crate::store::memory::MemoryStore;
use crate::store::{ClusterRow, Clusters as _};

const UID: &str = "uid-of-the-cluster";
const POD: &str = "web-0";
const AGENT: &str = "agent-a";

/// What the API server holds and how it is.
struct Api {
    key: Key,
    /// The UID of node-a, while it is there.
    node: Mutex<Option<&'static str>>,
    /// In place of the key set with `key`.
    other_keys: Mutex<Option<String>>,
    away: AtomicBool,
    /// Whether the agent's pod is there.
    agent_pod: AtomicBool,
    /// Claims of the token under review.
    reviewed: Mutex<Value>,
    /// Watches that are open.
    watches: Mutex<Vec<mpsc::UnboundedSender<String>>>,
    /// How late answers come.
    late: Mutex<Duration>,
    /// Reviews and reads of nodes so far: the calls that callers cause.
    calls: AtomicU64,
    /// The label of the namespace shop, if it has one; or the status it is answered with.
    namespace: Mutex<Result<Option<&'static str>, u16>>,
    silent_namespaces: AtomicBool,
    /// Reads of it so far.
    looks: AtomicU64,
}

impl Api {
    fn answer(&self, line: &str) -> Answer {
        if self.away.load(Ordering::SeqCst) {
            self.watches.lock().clear();
            return Answer::Broken;
        }
        let (_, path) = line.split_once(' ').unwrap();
        if path.contains("tokenreviews") || path.contains("nodes") {
            self.calls.fetch_add(1, Ordering::SeqCst);
        }
        let late = *self.late.lock();
        if !late.is_zero() {
            return answer_after(late, self.answer_now(path));
        }
        self.answer_now(path)
    }

    fn answer_now(&self, path: &str) -> Answer {
        let list = |items: Vec<Value>| {
            Answer::ok(json!({"metadata": {"resourceVersion": "7"}, "items": items}).to_string())
        };
        match path.split('?').next().unwrap() {
            "/version" => Answer::ok("{}"),
            "/.well-known/openid-configuration" => Answer::ok(r#"{"issuer":"https://issuer"}"#),
            "/openid/v1/jwks" => {
                Answer::ok(self.other_keys.lock().clone().unwrap_or_else(|| self.key.jwks()))
            }
            "/api/v1/namespaces/kube-system" => Answer::ok(json!({"metadata": {"uid": UID}}).to_string()),
            "/api/v1/nodes/node-a" => match *self.node.lock() {
                Some(uid) => Answer::ok(json!({"metadata": {"uid": uid}}).to_string()),
                None => Answer::Json(404, json!({"kind": "Status", "reason": "NotFound"}).to_string()),
            },
            "/apis/authentication.k8s.io/v1/tokenreviews" => Answer::ok(review_of(&self.reviewed.lock())),
            "/api/v1/namespaces/shop" => self.look_at_namespace(),
            _ if path.contains("sendInitialEvents") => Answer::Json(422, "{}".into()),
            _ if path.contains("watch=true") => self.watch(),
            "/api/v1/namespaces/shop/pods/agent-a" => Answer::ok(self.pods().pop().unwrap().to_string()),
            "/api/v1/pods" => list(self.pods()),
            "/api/v1/namespaces" => list(vec![self.namespace().unwrap()]),
            "/api/v1/serviceaccounts" => list(vec![json!({"metadata": named("shop", "runner")})]),
            other => panic!("{other}"),
        }
    }

    fn look_at_namespace(&self) -> Answer {
        self.looks.fetch_add(1, Ordering::SeqCst);
        if self.silent_namespaces.load(Ordering::SeqCst) {
            return Answer::Silence;
        }
        match self.namespace() {
            Ok(namespace) => Answer::ok(namespace.to_string()),
            Err(404) => Answer::Json(404, json!({"kind": "Status", "reason": "NotFound"}).to_string()),
            Err(code) => Answer::Json(code, "{}".into()),
        }
    }

    fn namespace(&self) -> Result<Value, u16> {
        let mut namespace = json!({"metadata": {"name": "shop"}});
        if let Some(team) = (*self.namespace.lock())? {
            namespace["metadata"]["labels"] = json!({"team": team});
        }
        Ok(namespace)
    }

    fn pods(&self) -> Vec<Value> {
        let there = [(POD, true), (AGENT, self.agent_pod.load(Ordering::SeqCst))];
        let pod = |name| {
            json!({
                "metadata": named("shop", name),
                "spec": {"nodeName": "node-a", "serviceAccountName": "runner"},
                "status": {"phase": "Running"},
            })
        };
        let there = there.into_iter().filter(|(_, is_there)| *is_there);
        there.map(|(name, _)| pod(name)).collect()
    }

    fn watch(&self) -> Answer {
        let (sender, events) = mpsc::unbounded_channel();
        self.watches.lock().push(sender);
        Answer::Stream(events)
    }
}

/// The head comes at once, all else after this time.
fn answer_after(time: Duration, answer: Answer) -> Answer {
    let Answer::Json(200, text) = answer else {
        return answer;
    };
    let (sender, body) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        sleep(time).await;
        let _ = sender.send(text);
    });
    Answer::Stream(body)
}

fn named(namespace: &str, name: &str) -> Value {
    json!({"namespace": namespace, "name": name, "uid": format!("uid-of-{name}")})
}

fn review_of(claims: &Value) -> String {
    let bound = &claims["kubernetes.io"];
    let extra = |of: &str, what: &str| json!([bound[of][what]]);
    let account = &bound["serviceaccount"];
    json!({"kind": "TokenReview", "status": {
        "authenticated": true,
        "audiences": claims["aud"],
        "user": {"username": claims["sub"], "uid": account["uid"], "extra": {
            "authentication.kubernetes.io/pod-name": extra("pod", "name"),
            "authentication.kubernetes.io/pod-uid": extra("pod", "uid"),
            "authentication.kubernetes.io/node-name": extra("node", "name"),
            "authentication.kubernetes.io/node-uid": extra("node", "uid"),
        }},
    }})
    .to_string()
}

struct World {
    api: Arc<Api>,
    client: Client,
    clock: Arc<TrustedClock>,
    /// The machine's clock behind it.
    machine: FakeClock,
    store: Arc<MemoryStore>,
    /// Whether anybody asks for labels of namespaces.
    asks: watch::Sender<bool>,
    cluster: Arc<Cluster>,
    task: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        Self::with_calls((100, 100)).await
    }

    /// With so many calls to the API server per second, and so many at once.
    async fn with_calls(calls: (u32, u32)) -> Self {
        let api = Arc::new(Api {
            key: Key::new("a"),
            node: Mutex::new(Some("uid-of-node-a")),
            other_keys: Mutex::default(),
            away: AtomicBool::new(false),
            agent_pod: AtomicBool::new(true),
            reviewed: Mutex::default(),
            watches: Mutex::default(),
            late: Mutex::default(),
            calls: AtomicU64::new(0),
            namespace: Mutex::new(Ok(Some("a"))),
            silent_namespaces: AtomicBool::new(false),
            looks: AtomicU64::new(0),
        });
        let of_api = Arc::clone(&api);
        let client = Script::new(move |line| of_api.answer(line)).client;
        let machine = FakeClock::new(UNIX_EPOCH + START);
        let clock = Arc::new(TrustedClock::agreed(Arc::new(machine.clone())));
        let store = MemoryStore::new(trust_domain());
        let asks = watch::Sender::new(false);
        let cluster = cluster_asking(&client, &clock, &store, None, calls, asks.subscribe()).await;
        let world = Self {
            asks,
            api,
            client,
            clock,
            machine,
            store,
            task: begin(&cluster),
            cluster,
        };
        world.cluster.watch.first_sync().await;
        world
    }

    /// Another process over the same store.
    async fn restart(self) -> Self {
        self.task.abort();
        let cluster = cluster(&self.client, &self.clock, &self.store, None, (100, 100)).await;
        Self {
            task: begin(&cluster),
            cluster,
            ..self
        }
    }

    /// The API server breaks every connection; returns once the cluster counts as unreachable.
    async fn go_away(&self) -> SystemTime {
        self.api.away.store(true, Ordering::SeqCst);
        self.api.watches.lock().clear();
        loop {
            sleep(Duration::from_secs(1)).await;
            if let Some(since) = self.cluster.health().unreachable_since {
                return since;
            }
        }
    }

    /// Time passes, and the watches show signs of life.
    async fn pass(&self, time: Duration) {
        let bookmark = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}});
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(Duration::from_secs(20)).await;
            let watches = self.api.watches.lock();
            for watch in watches.iter() {
                let _ = watch.send(format!("{bookmark}\n"));
            }
        }
    }

    /// A token for this pod, made now. The next reviews will be of this one.
    fn token(&self, pod: &str, audience: &str, life: Duration) -> String {
        let claims = self.claims(pod, "node-a", audience, life);
        let token = self.api.key.sign(&claims.to_string());
        *self.api.reviewed.lock() = claims;
        token
    }

    fn claims(&self, pod: &str, node: &str, audience: &str, life: Duration) -> Value {
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        json!({
            "iss": "https://issuer", "sub": "system:serviceaccount:shop:runner", "aud": [audience],
            "iat": now, "nbf": now, "exp": now + life.as_secs(), "jti": format!("{pod} at {now}"),
            "kubernetes.io": {
                "namespace": "shop",
                "serviceaccount": {"name": "runner", "uid": "uid-of-runner"},
                "pod": {"name": pod, "uid": format!("uid-of-{pod}")},
                "node": {"name": node, "uid": format!("uid-of-{node}")},
            },
        })
    }

    async fn pod(&self, token: &str) -> Result<AttestedPod, AttestError> {
        self.cluster.attest_pod(&agent_of("node-a"), token).await
    }

    async fn node(&self, token: &str) -> Result<AttestedNode, AttestError> {
        let stranger = Bearer::Stranger(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        self.cluster.attest_node(stranger, token).await
    }

    fn calls(&self) -> u64 {
        self.api.calls.load(Ordering::SeqCst)
    }

    async fn kept(&self) -> ClusterRow {
        self.store.clusters().await.unwrap().pop().unwrap()
    }
}

fn agent_of(node: &str) -> AgentIdentity {
    let domain = TrustDomain::parse("example.org").unwrap();
    let node_uid = format!("uid-of-{node}");
    AgentIdentity {
        spiffe_id: SpiffeId::agent(&domain, "prod", &node_uid).unwrap(),
        cluster: "prod".into(),
        node_name: node.to_owned(),
        node_uid,
    }
}

async fn cluster(
    client: &Client,
    clock: &Arc<TrustedClock>,
    store: &Arc<MemoryStore>,
    uid: Option<&str>,
    calls: (u32, u32),
) -> Arc<Cluster> {
    let nobody_asks = watch::Sender::new(false).subscribe();
    cluster_asking(client, clock, store, uid, calls, nobody_asks).await
}

async fn cluster_asking(
    client: &Client,
    clock: &Arc<TrustedClock>,
    store: &Arc<MemoryStore>,
    uid: Option<&str>,
    calls: (u32, u32),
    asks: watch::Receiver<bool>,
) -> Arc<Cluster> {
    let account = ServiceAccountName {
        namespace: "shop".into(),
        name: "runner".into(),
    };
    let of_cluster = ClusterConfig {
        name: "prod".into(),
        uid: uid.map(str::to_owned),
        access: Access::InCluster,
        agents: vec![account],
        more_issuers: Vec::new(),
    };
    let config = AttestationConfig {
        clusters: Vec::new(),
        node_audience: "node".into(),
        pod_audience: "pod".into(),
        max_token_lifetime: 48 * HOUR,
        grace: 24 * HOUR,
        calls,
    };
    let settings = Settings::new(&config, &of_cluster, Duration::from_secs(120), 1000);
    let remembered = Remembered::load(Arc::clone(store) as _, "prod").await.unwrap();
    let cluster = Cluster::new(
        settings,
        client.clone(),
        Arc::clone(clock),
        Arc::new(remembered),
        Arc::new(Vouched::load(store.as_ref(), clock).await.unwrap()),
        Told {
            pods: Arc::new(|_| {}),
            namespaces: asks,
            outages: watch::Sender::default(),
            refusals: Refusals::untold("attestation"),
        },
    );
    Arc::new(cluster)
}

fn begin(cluster: &Arc<Cluster>) -> JoinHandle<()> {
    let cluster = Arc::clone(cluster);
    tokio::spawn(async move { cluster.run().await })
}

fn is_refused<T>(result: &Result<T, AttestError>) -> bool {
    matches!(result, Err(AttestError::Refused(_)))
}

fn is_unavailable<T>(result: &Result<T, AttestError>) -> bool {
    matches!(result, Err(AttestError::Unavailable { .. }))
}

/// The tokens of an outage are those that were there when it began, for kubelet gets no others.
///
/// Covers BT-11.
#[tokio::test(start_paused = true)]
async fn in_an_outage_what_was_attested_before_goes_on_for_a_day_and_nothing_else() {
    let world = World::new().await;
    let (pod, other) = (world.token(POD, "pod", HOUR), world.token(POD, "pod", 47 * HOUR));
    let (node, short) = (
        world.token(AGENT, "node", HOUR),
        world.token(AGENT, "node", Duration::from_secs(9)),
    );
    let unsigned = Key::new("a").sign(&world.api.reviewed.lock().to_string());
    world.token(POD, "pod", HOUR);
    assert!(!world.pod(&pod).await.unwrap().outage);
    assert_eq!(world.cluster.node_in_outage(&node), None, "the cluster is there");
    sleep(Duration::from_secs(10)).await;
    let since = world.go_away().await;
    assert_eq!(world.kept().await.unreachable_since, Some(since));
    sleep(2 * HOUR).await;
    let proven = world.pod(&pod).await.unwrap();
    assert!(
        proven.outage && proven.pod_name == POD,
        "reviewed before, and good then"
    );
    assert!(is_unavailable(&world.pod(&other).await), "never reviewed");
    assert!(is_unavailable(&world.node(&node).await));
    let named = world.cluster.node_in_outage(&node).unwrap();
    assert_eq!(
        (named.node_uid.as_str(), named.cluster_uid.as_str()),
        ("uid-of-node-a", UID)
    );
    assert_eq!(
        world.cluster.node_in_outage(&short),
        None,
        "expired before the outage"
    );
    assert_eq!(
        world.cluster.node_in_outage(&unsigned),
        None,
        "not signed by the cluster"
    );
    assert_eq!(world.cluster.node_in_outage(&pod), None, "a pod's token");
    sleep(22 * HOUR).await;
    assert!(
        is_unavailable(&world.pod(&pod).await),
        "the grace is over, which is no verdict"
    );
    assert_eq!(world.cluster.node_in_outage(&node), None);
    world.task.abort();
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_ends_an_outage() {
    let world = World::new().await;
    let node = world.token(AGENT, "node", 47 * HOUR);
    world.go_away().await;
    assert!(world.cluster.node_in_outage(&node).is_some());
    world.api.away.store(false, Ordering::SeqCst);
    sleep(PROBE_AGAIN_AFTER).await;
    assert_eq!(world.cluster.node_in_outage(&node), None);
    assert_eq!(world.kept().await.unreachable_since, None);
    world.task.abort();
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_its_start_over_a_restart_of_the_server() {
    let world = World::new().await;
    let node = world.token(AGENT, "node", HOUR);
    let since = world.go_away().await;
    sleep(23 * HOUR).await;
    let world = world.restart().await;
    assert_eq!(world.cluster.health().unreachable_since, Some(since));
    let named = world.cluster.node_in_outage(&node).unwrap();
    assert_eq!(named.cluster_uid, UID, "known from before");
    sleep(HOUR).await;
    assert_eq!(world.cluster.node_in_outage(&node), None, "a day after the start");
    world.task.abort();
}

/// Covers BT-09.
#[tokio::test(start_paused = true)]
async fn an_agent_whose_pod_was_gone_before_the_outage_has_nothing_to_renew_by() {
    let world = World::new().await;
    let node = world.token(AGENT, "node", 47 * HOUR);
    world.api.agent_pod.store(false, Ordering::SeqCst);
    // Watches end, and the next list shows what is there.
    for watch in world.api.watches.lock().drain(..) {
        let expired = json!({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}});
        watch.send(format!("{expired}\n")).unwrap();
    }
    while world.cluster.watch.pod("uid-of-agent-a").is_some() {
        sleep(Duration::from_secs(1)).await;
    }
    world.go_away().await;
    assert_eq!(world.cluster.node_in_outage(&node), None);
    world.task.abort();
}

/// Another cluster would inherit identities, denials and agents.
#[tokio::test(start_paused = true)]
async fn a_name_means_one_cluster_until_the_configuration_says_otherwise() {
    let world = World::new().await;
    world.task.abort();
    let known = ClusterRow {
        uid: Some("uid-of-another".to_owned()),
        ..world.kept().await
    };
    world.store.save_cluster(known).await.unwrap();
    let unnamed = cluster(&world.client, &world.clock, &world.store, None, (100, 100)).await;
    let Err(PinError::OtherCluster(problem)) = unnamed.pin().await else {
        panic!("another cluster is taken for the one that was known")
    };
    for said in ["uid-of-another", &format!("write `uid: {UID}`")] {
        assert!(problem.contains(said), "{problem}");
    }
    assert_eq!(unnamed.health().problem, Some(problem));
    let named = cluster(&world.client, &world.clock, &world.store, Some(UID), (100, 100)).await;
    assert_eq!(named.pin().await.unwrap(), UID);
    assert_eq!(world.kept().await.uid.as_deref(), Some(UID));
}

/// What the API server said of a token rests on the key that signed it.
///
/// Covers BT-07.
#[tokio::test(start_paused = true)]
async fn a_kept_review_ends_with_the_key_that_signed_its_token() {
    for successor in ["b", "a"] {
        let world = World::new().await;
        let old = world.token(POD, "pod", HOUR);
        assert!(world.pod(&old).await.is_ok());
        // The cluster has another key, be it under the name of the old one; an unknown name has the keys read anew.
        *world.api.other_keys.lock() = Some(Key::new(successor).jwks());
        let unknown = Key::new("c").sign(&world.api.reviewed.lock().to_string());
        for token in [&unknown, &old] {
            let refused = world.pod(token).await;
            assert!(
                matches!(refused, Err(AttestError::Refused(RefusedReason::Token(_)))),
                "{successor}: {refused:?}"
            );
        }
        world.task.abort();
    }
}

/// The API server goes on vouching for tokens of pods on a deleted node until somebody removes the pods.
///
/// Covers BT-09.
#[tokio::test(start_paused = true)]
async fn pods_go_with_the_node_that_their_tokens_name() {
    let node = || "node-a".to_owned();
    let cases = [
        (None, RefusedReason::NodeGone { node: node() }),
        (
            Some("uid-of-another"),
            RefusedReason::NodeReplaced { node: node() },
        ),
    ];
    for (now, reason) in cases {
        let world = World::new().await;
        let kept = world.token(POD, "pod", HOUR);
        assert!(world.pod(&kept).await.is_ok());
        *world.api.node.lock() = now;
        world.pass(NODE_COUNTS_FOR).await;
        assert!(world.cluster.watch.is_synced());
        assert_eq!(world.pod(&kept).await, Err(reason.clone().into()));
        let other = world.token(POD, "pod", 2 * HOUR);
        assert_eq!(
            world.pod(&other).await,
            Err(reason.into()),
            "a token never seen before"
        );
        world.task.abort();
    }
}

/// A watch that goes on where it was broken off shows what went meanwhile one by one: what it still shows is there only once it
/// says that it has come to the present.
///
/// Covers BT-09.
#[tokio::test(start_paused = true)]
async fn after_an_outage_nobody_is_there_before_the_watch_has_caught_up() {
    let world = World::new().await;
    let (pod, agent) = (place("uid-of-web-0"), place("uid-of-agent-a"));
    assert_eq!(world.cluster.is_there(pod).await, Some(true));
    world.go_away().await;
    assert_eq!(world.cluster.is_there(pod).await, None);
    world.api.away.store(false, Ordering::SeqCst);
    while world.cluster.health().unreachable_since.is_some() || world.api.watches.lock().len() < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    let say = async |event: Value| {
        for watch in world.api.watches.lock().iter() {
            watch.send(format!("{event}\n")).unwrap();
        }
        sleep(Duration::from_secs(1)).await;
    };
    let gone = json!({"metadata": {"namespace": "shop", "name": AGENT, "uid": "uid-of-agent-a", "resourceVersion": "8"}});
    say(json!({"type": "DELETED", "object": gone})).await;
    assert_eq!(world.cluster.is_there(pod).await, None, "more may follow");
    say(json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}})).await;
    assert_eq!(world.cluster.is_there(pod).await, Some(true));
    assert_eq!(world.cluster.is_there(agent).await, Some(false));
    world.task.abort();
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_a_pod_is_there_with_its_node() {
    let world = World::new().await;
    let pod = world.token(POD, "pod", HOUR);
    assert!(world.pod(&pod).await.is_ok(), "the node is known from before");
    world.go_away().await;
    *world.api.node.lock() = None;
    world.api.away.store(false, Ordering::SeqCst);
    while world.cluster.is_there(place("uid-of-web-0")).await.is_none() {
        world.pass(Duration::from_secs(20)).await;
    }
    assert_eq!(world.cluster.is_there(place("uid-of-web-0")).await, Some(false));
    world.task.abort();
}

/// A pod of node-a.
fn place(pod_uid: &str) -> Place<'_> {
    Place {
        cluster_uid: UID,
        pod_uid,
        node_name: "node-a",
        node_uid: "uid-of-node-a",
    }
}
