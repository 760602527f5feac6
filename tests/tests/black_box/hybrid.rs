//! Which key exchange agents, server, readers of the bundle and API servers have with each other, and who says so.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::ServerConfig;
use serde_json::{Value, json};
use signet_certs::tls::{Hybrid, KeyExchange, provider};
use signet_tests::{
    domain::{Agent, Domain, Plan},
    http,
    wait::eventually,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

const HYBRID: &str = "X25519MLKEM768";
const CLASSICAL: &str = "x25519";

async fn status(agent: &Agent) -> Value {
    let answer = agent.command(&["status", "--output", "json"]).await.unwrap();
    serde_json::from_str(&answer.stdout).unwrap_or(Value::Null)
}

/// The value of a metric's series whose line begins like this.
async fn metric(telemetry: &str, series: &str) -> f64 {
    let text = http::metrics(telemetry).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series} in {text}"))
        .trim()
        .parse()
        .unwrap()
}

/// What all who say it say of the connection between this agent and its server.
async fn assert_agreed(domain: &Domain, agent: &Agent, group: &str) {
    assert_eq!(status(agent).await["key_exchange"], group);
    let series = |of: &str| format!("signet_agent_server_key_exchange{{group=\"{of}\"}}");
    for of in KeyExchange::ALL.map(KeyExchange::name) {
        let shown = metric(&agent.telemetry_url(), &series(of)).await;
        assert_eq!(shown, f64::from(u8::from(of == group)), "{of}");
    }
    let server = &domain.server;
    let listed = server.admin(&["agent", "list"]).await.unwrap();
    assert_eq!(listed["agents"][0]["key_exchange"], group, "{listed}");
    let whole = server.admin(&["status"]).await.unwrap();
    assert_eq!(whole["key_exchanges"], json!({ group: 1 }));
    let counted = format!("signet_server_key_exchanges_total{{door=\"agents\",group=\"{group}\"}}");
    assert!(metric(&server.telemetry_url(), &counted).await >= 1.0);
    let table = server.command(&["agent", "list"]).await.unwrap().stdout;
    assert!(table.contains("KEY EXCHANGE") && table.contains(group), "{table}");
    let text = server.command(&["status"]).await.unwrap().stdout;
    assert!(text.contains(&format!("key exchange   {group} of 1\n")), "{text}");
}

#[tokio::test]
async fn agent_and_server_have_the_hybrid_key_exchange_unless_one_has_it_off_and_say_which() {
    let mut domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    assert_agreed(&domain, &agent, HYBRID).await;
    agent.stop().await.unwrap();
    agent.change(&[("/tls/hybrid".to_owned(), json!("off"))]).unwrap();
    agent.start().await.unwrap();
    assert_agreed(&domain, &agent, CLASSICAL).await;
    agent.stop().await.unwrap();
    domain.server.stop().await.unwrap();
    let off = [("/tls/hybrid".to_owned(), json!("off"))];
    domain.server.change(&off).unwrap();
    domain.server.start().await.unwrap();
    agent
        .change(&[("/tls/hybrid".to_owned(), json!("prefer"))])
        .unwrap();
    agent.start().await.unwrap();
    assert_agreed(&domain, &agent, CLASSICAL).await;
}

/// Starts an agent that gets no connection, and waits until it says why in these words.
async fn assert_kept_out(agent: &mut Agent, words: &str) {
    agent.spawn().unwrap();
    let problem = eventually("the agent to say why", async || {
        let status = status(agent).await;
        let problem = status["server_problem"].as_str()?.to_owned();
        (!problem.is_empty()).then_some((problem, status))
    });
    let (problem, status) = problem.await;
    assert!(problem.contains(words), "{problem}");
    assert_eq!(
        (&status["server_connected"], &status["key_exchange"]),
        (&json!(false), &Value::Null)
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn who_requires_it_refuses_who_lacks_it_and_both_say_so() {
    let mut domain = Plan::default()
        .server("/tls/hybrid", json!("require"))
        .start()
        .await
        .unwrap();
    let mut agent = domain.prepare_agent("node-a").unwrap();
    let hybrid = |value: &str| [("/tls/hybrid".to_owned(), json!(value))];
    agent.change(&hybrid("off")).unwrap();
    assert_kept_out(&mut agent, "tls.hybrid: off").await;
    let refused = "signet_server_refused_total{door=\"agents\",reason=\"key_exchange\"}";
    assert!(metric(&domain.server.telemetry_url(), refused).await >= 1.0);
    let said = domain.server.said();
    assert!(
        said.lines()
            .any(|line| line.contains("callers are refused") && line.contains("key_exchange")),
        "{said}"
    );
    agent.change(&hybrid("require")).unwrap();
    agent.start().await.unwrap();
    assert_agreed(&domain, &agent, HYBRID).await;

    agent.stop().await.unwrap();
    domain.server.stop().await.unwrap();
    domain.server.change(&hybrid("off")).unwrap();
    domain.server.start().await.unwrap();
    assert_kept_out(&mut agent, "tls.hybrid: require").await;
}

/// An API server behind HTTPS: notes which key exchange each connection to it has.
struct Front {
    address: SocketAddr,
    certificate: String,
    seen: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Front {
    async fn start(behind: SocketAddr) -> Self {
        let made = rcgen::generate_simple_self_signed([behind.ip().to_string()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder_with_provider(provider(Hybrid::Prefer))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((behind.ip(), 0)).await.unwrap();
        let front = Self {
            address: listener.local_addr().unwrap(),
            certificate: STANDARD.encode(made.cert.pem()),
            seen: Arc::default(),
        };
        let seen = front.seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let group = KeyExchange::of(stream.get_ref().1).unwrap();
                    seen.lock().unwrap().insert(group.name());
                    let mut behind = TcpStream::connect(behind).await.unwrap();
                    // Ends as either end does.
                    let _ = copy_bidirectional(&mut stream, &mut behind).await;
                });
            }
        });
        front
    }

    /// The kubeconfig of the plain API server, for this one.
    fn kubeconfig(&self, plain: &Path, path: &Path) {
        let text = std::fs::read_to_string(plain).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["clusters"][0]["cluster"] = json!({
            "server": format!("https://{}", self.address),
            "certificate-authority-data": self.certificate,
        });
        std::fs::write(path, config.to_string()).unwrap();
    }
}

/// kube's client knows no setting for it, and what is required of agents is not required of an API server.
#[tokio::test]
async fn api_servers_are_called_with_it_too_unless_it_is_off() {
    let mut domain = Domain::start().await.unwrap();
    let behind = domain.kube.url();
    let behind = behind.trim_start_matches("http://").parse().unwrap();
    let front = Front::start(behind).await;
    let kubeconfig = domain.path().join("kubeconfig-https");
    front.kubeconfig(&domain.path().join("kubeconfig"), &kubeconfig);
    let cluster = "/attestation/clusters/0/kubeconfig".to_owned();
    domain.server.change(&[(cluster, json!(kubeconfig))]).unwrap();
    for (value, group) in [("prefer", HYBRID), ("require", HYBRID), ("off", CLASSICAL)] {
        domain.server.stop().await.unwrap();
        front.seen.lock().unwrap().clear();
        let hybrid = [("/tls/hybrid".to_owned(), json!(value))];
        domain.server.change(&hybrid).unwrap();
        domain.server.start().await.unwrap();
        let status = eventually("the cluster to be read", async || {
            let status = domain.server.admin(&["status"]).await.ok()?;
            (status["clusters"][0]["pods_synced"] == true).then_some(status)
        });
        status.await;
        let seen = front.seen.lock().unwrap().clone();
        assert_eq!(Vec::from_iter(seen), [group], "{value}");
    }
}
