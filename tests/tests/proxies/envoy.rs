//! Two Envoys, one for each of its validators, in README's configuration.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    envoy::{Asks, Envoy, Place, Traffic, Validator, app, program, version},
    fake_kube::PodSpec,
    process::free_port,
    wait::{eventually, within},
};
use tokio::time::Instant;

use crate::stranger::{Stranger, ask};

/// Certificates live so long: they are renewed at about half of it.
const TTL: &str = "10s";
/// Rotations that each proxy sees.
const ROTATIONS: usize = 20;
/// How long a connection to a proxy may be open here.
const CONNECTION: Duration = Duration::from_secs(5);

/// A server, an agent, two pods with proxies, and a third one.
struct Shop {
    domain: Domain,
    agent: Agent,
    proxies: Vec<Envoy>,
    program: PathBuf,
}

fn envoy() -> PathBuf {
    program().expect("there is no envoy on the PATH or in $ENVOY: `.ci/step proxies` installs one")
}

impl Shop {
    async fn open(asks: Asks) -> Self {
        let program = envoy();
        println!("Envoy {}", version(&program).await.unwrap());
        let plan = Plan::default().server("/svid/ttl", json!(TTL));
        let domain = plan.start().await.unwrap();
        let agent = domain.agent("node-a").await.unwrap();
        let app_port = app().await.unwrap();
        let ports: Vec<u16> = (0..4).map(|_| free_port().unwrap()).collect();
        let mut shop = Self {
            domain,
            agent,
            proxies: Vec::new(),
            program,
        };
        for (number, (name, validator)) in [("spiffe", Validator::Spiffe), ("plain", Validator::Plain)]
            .into_iter()
            .enumerate()
        {
            let socket = shop.socket_of(name).await;
            let place = Place {
                folder: shop.domain.folder().join(name),
                // One by the name that Istio's proxies look for.
                socket: match validator {
                    Validator::Spiffe => socket,
                    Validator::Plain => socket.with_file_name("socket"),
                },
                inbound: ports[number],
                outbound: ports[2 + number],
                app: app_port,
                peer: ports[1 - number],
                validator,
                asks,
                connection: CONNECTION,
            };
            shop.proxies
                .push(Envoy::start(&shop.program, place).await.unwrap());
        }
        shop
    }

    async fn socket_of(&self, pod: &str) -> PathBuf {
        let spec = PodSpec::new("shop", pod).service_account(pod).node("node-a");
        self.domain.kube.add_pod(&spec).unwrap();
        let volume = self.agent.publish("shop", pod).await.unwrap();
        self.agent.socket(&volume)
    }

    /// Another pod, with its identity in files.
    async fn stranger(&self, pod: &str) -> Stranger {
        let files = self.domain.folder().join(pod);
        let socket = self.socket_of(pod).await;
        fetch(&self.agent, &socket, &files).await;
        Stranger(files)
    }

    fn outbound(&self) -> Vec<String> {
        let ports = self.proxies.iter().map(|proxy| proxy.place().outbound);
        ports.map(|port| format!("http://127.0.0.1:{port}/")).collect()
    }
}

async fn fetch(agent: &Agent, socket: &Path, files: &Path) {
    let (socket, files) = (
        format!("unix://{}", socket.display()),
        files.display().to_string(),
    );
    let args = ["fetch", "x509", "--socket", &socket, "--write", &files];
    let fetched = agent.command(&args).await.unwrap();
    assert!(fetched.status.success(), "{fetched:?}");
}

/// Waits until each proxy has shown so many certificates since `seen` was empty.
async fn rotated(shop: &Shop, seen: &mut [BTreeSet<String>], count: usize, limit: Duration) {
    let all = within(limit, async || {
        for (proxy, seen) in shop.proxies.iter().zip(&mut *seen) {
            seen.extend(proxy.serials().await.ok()?);
        }
        seen.iter().all(|seen| seen.len() >= count).then_some(())
    });
    let outcome = all.await;
    let said = || shop.proxies.iter().map(Envoy::said).collect::<Vec<_>>();
    assert!(outcome.is_some(), "{count} rotations: {seen:?} {:?}", said());
}

#[tokio::test]
#[ignore = "needs Envoy: `.ci/step proxies` runs it"]
async fn rotations_and_restarts_fail_no_request_and_the_revoked_are_refused() {
    let mut shop = Shop::open(Asks::Everything).await;
    let traffic = Traffic::to(&shop.outbound());
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    let third = Duration::from_secs(60);
    rotated(&shop, &mut seen, ROTATIONS / 3, third).await;
    shop.domain.server.admin(&["ca", "rotate"]).await.unwrap();
    rotated(&shop, &mut seen, 2 * ROTATIONS / 3, third).await;
    // Killed, the way nobody plans it, and started again.
    shop.agent.kill().await;
    shop.agent.start().await.unwrap();
    rotated(&shop, &mut seen, ROTATIONS + 1, third).await;
    let done = traffic.seen();
    assert!(done.failed.is_empty(), "{done:#?}");
    println!(
        "{} requests over {ROTATIONS} rotations, a new CA and a killed agent: none failed",
        done.answered
    );

    the_revoked_are_refused(&shop).await;
    let after = traffic.seen();
    assert!(
        after.failed.is_empty() && after.answered > done.answered,
        "{after:#?}"
    );
}

/// A pod's new connections are refused by each proxy within two seconds of the command's end, and its old ones end by themselves.
async fn the_revoked_are_refused(shop: &Shop) {
    let stranger = shop.stranger("thief").await;
    let mut open = Vec::new();
    for proxy in &shop.proxies {
        let port = proxy.place().inbound;
        stranger.asks(port).await.unwrap();
        let mut connection = stranger.connect(port).await.unwrap();
        ask(&mut connection).await.unwrap();
        open.push((connection, Instant::now()));
    }
    let revoke = [
        "revoke",
        "--spiffe-id",
        "/ns/shop/sa/thief",
        "--reason",
        "keyCompromise",
    ];
    shop.domain.server.admin(&revoke).await.unwrap();
    let revoked = Instant::now();
    for proxy in &shop.proxies {
        let port = proxy.place().inbound;
        eventually("a refusal", async || stranger.asks(port).await.err()).await;
        let took = revoked.elapsed();
        println!(
            "{:?} refused {took:?} after the command's end",
            proxy.place().validator
        );
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(stranger.asks(port).await.is_err());
    }
    for (mut connection, since) in open {
        eventually("the end of an old connection", async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            ask(&mut connection).await.err()
        })
        .await;
        let lived = since.elapsed();
        println!("an old connection ended after {lived:?}");
        assert!(lived < CONNECTION + Duration::from_secs(6), "{lived:?}");
    }
}

/// By the incremental way to ask, and over the loss of a proxy: what it starts with is what is true then.
#[tokio::test]
#[ignore = "needs Envoy: `.ci/step proxies` runs it"]
async fn a_proxy_that_asks_for_changes_and_one_that_was_killed_have_what_is_true_now() {
    let mut shop = Shop::open(Asks::Changes).await;
    let traffic = Traffic::to(&shop.outbound()[..1]);
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    rotated(&shop, &mut seen, 3, Duration::from_secs(40)).await;
    let done = traffic.seen();
    assert!(done.failed.is_empty() && done.answered > 0, "{done:#?}");
    drop(traffic);

    let place = shop.proxies[1].place().clone();
    shop.proxies[1].kill().await;
    let (rotated_ca, again) = tokio::join!(
        shop.domain.server.admin(&["ca", "rotate"]),
        Envoy::start(&shop.program, place)
    );
    rotated_ca.unwrap();
    shop.proxies[1] = again.unwrap();
    rotated(&shop, &mut seen, 5, Duration::from_secs(40)).await;
    let traffic = Traffic::to(&shop.outbound());
    the_revoked_are_refused(&shop).await;
    let done = traffic.seen();
    assert!(done.failed.is_empty() && done.answered > 0, "{done:#?}");
}

/// What Envoy does not take is in the agent's log in its own words, once, and is not sent again and again.
#[tokio::test]
#[ignore = "needs Envoy: `.ci/step proxies` runs it"]
async fn what_envoy_refuses_is_told_in_its_words_and_not_sent_again() {
    let shop = Shop::open(Asks::Everything).await;
    let mut place = shop.proxies[0].place().clone();
    place.folder = shop.domain.folder().join("mistaken");
    (place.inbound, place.outbound) = (free_port().unwrap(), free_port().unwrap());
    // A certificate in the place of a validation context.
    let mistaken =
        |text: String| text.replace("{name: ROOTCA,", "{name: spiffe://example.org/ns/shop/sa/spiffe,");
    let _proxy = Envoy::spawn(&shop.program, place, mistaken).unwrap();
    let counted = async || {
        let metrics = signet_tests::http::metrics(&shop.agent.telemetry_url())
            .await
            .ok()?;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("signet_agent_sds_answers_refused_total"))?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    };
    eventually("a refusal", async || counted().await.filter(|count| *count > 0)).await;
    let said = shop.agent.said();
    let line = said
        .lines()
        .find(|line| line.contains("a proxy refused what it was sent"));
    println!("{line:?}");
    assert!(line.is_some(), "{said}");
    // Each of its two lists of secrets refuses each certificate once: that of now, and those that come.
    let (before, since) = (counted().await.unwrap(), Instant::now());
    tokio::time::sleep(Duration::from_secs(8)).await;
    let more = counted().await.unwrap() - before;
    assert!(more <= 2 * since.elapsed().as_secs().div_ceil(4), "{more} more");
}
