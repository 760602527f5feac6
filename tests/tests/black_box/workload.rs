//! The library for workloads, as programs use it.

use std::{path::Path, time::Duration};

use serde_json::json;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    process::{Process, binary, run},
    wait::eventually,
};
use signet_workload::{Endpoint, Options, PeerRule, SourceError, TlsError, Unhealthy, X509Source};
use tokio::{io::duplex, time::timeout};

use super::support::pod_with_volume;

/// The pod that serves.
const API: &str = "spiffe://example.org/ns/shop/sa/api";
/// The pod that calls.
const FRONT: &str = "spiffe://example.org/ns/shop/sa/front";

/// An example of the library, in a pod.
struct InPod {
    socket: String,
}

impl InPod {
    async fn new(domain: &Domain, agent: &Agent, name: &str) -> Self {
        let volume = pod_with_volume(domain, agent, name).await;
        let socket = format!("unix://{}", agent.socket(&volume).display());
        Self { socket }
    }

    /// Starts an example that serves, and returns its address with it.
    async fn serve(&self, example: &str, args: &[&str]) -> (Process, String) {
        let program = binary(&format!("examples/{example}"));
        let env = [("SPIFFE_ENDPOINT_SOCKET", self.socket.as_str())];
        let process = Process::start(example, &program, args, &env).unwrap();
        let address = eventually("the example to listen", async || {
            let said = process.said();
            let (_, rest) = said.split_once("listening on ")?;
            let (address, _) = rest.split_once('\n')?;
            Some(address.to_owned())
        });
        let address = address.await;
        (process, address)
    }

    /// Runs an example that calls, and returns what it printed.
    async fn call(&self, example: &str, args: &[&str]) -> Result<String, String> {
        let program = binary(&format!("examples/{example}"));
        let env = [("SPIFFE_ENDPOINT_SOCKET", self.socket.as_str())];
        let finished = run(&program, args, &env).await.unwrap();
        if finished.status.success() {
            Ok(finished.stdout)
        } else {
            Err(finished.stderr)
        }
    }
}

#[tokio::test]
async fn every_example_of_the_library_does_what_it_says() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let api = InPod::new(&domain, &agent, "api").await;
    let front = InPod::new(&domain, &agent, "front").await;
    let any = "127.0.0.1:0";

    let (_server, address) = api.serve("server", &[any]).await;
    let said = front.call("client", &[&address, "hello"]).await;
    assert_eq!(said, Ok(format!("{FRONT}: hello\n")));

    for server in ["hyper", "axum"] {
        let (_server, address) = api.serve(server, &[any]).await;
        let page = format!("https://{address}/");
        let said = front.call("reqwest", &[&page, API]).await;
        assert_eq!(said, Ok(format!("you are {FRONT}\n")), "{server}");
        let error = front.call("reqwest", &[&page, FRONT]).await.unwrap_err();
        assert!(
            error.contains("is not accepted as a peer here"),
            "{server}: {error}"
        );
    }
    let (_server, address) = api.serve("axum", &[any]).await;
    let said = front
        .call("reqwest", &[&format!("https://{address}/healthy"), API])
        .await;
    assert_eq!(said, Ok("healthy\n".to_owned()));

    let (server, address) = api.serve("tonic", &["serve", any]).await;
    let said = front.call("tonic", &["call", &address, API]).await;
    assert_eq!(said, Ok("Serving\n".to_owned()));
    assert!(server.said().contains(&format!("called by {FRONT}")));
    let error = front.call("tonic", &["call", &address, FRONT]).await.unwrap_err();
    assert!(error.contains("is not accepted as a peer here"), "{error}");
}

/// The whole of what a program sees of an agent that is stopped for longer than its certificate lives.
#[tokio::test]
async fn a_stopped_agent_is_noticed_and_nothing_is_presented_after_its_end() {
    let plan = Plan::default()
        .server("/svid/ttl", json!("10s"))
        .server("/svid/clock_skew", json!("1s"));
    let domain = plan.start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let source = X509Source::start(Options {
        keep_alive: Duration::from_secs(1),
        ..Options::new(endpoint(&agent.socket(&volume)))
    });
    source.ready().await.unwrap();
    let connector = source.connector(PeerRule::Any).unwrap();

    agent.process().unwrap().freeze(true);
    eventually("the hung agent to be noticed", async || {
        let reason = source.is_healthy().err()?;
        let hung = matches!(&reason, Unhealthy::Agent(problem) if matches!(**problem, SourceError::Hung(_)));
        hung.then_some(())
    })
    .await;
    eventually("the identity to end", async || {
        source.svid().is_none().then_some(())
    })
    .await;
    assert!(source.context().is_none());
    let reason = source.is_healthy().unwrap_err();
    assert!(matches!(reason, Unhealthy::Expired { .. }), "{reason}");
    let error = timeout(Duration::from_secs(1), connector.connect(duplex(1024).0))
        .await
        .unwrap()
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, TlsError::NoIdentity(_)), "{error}");

    agent.process().unwrap().freeze(false);
    eventually("the next identity", async || source.is_healthy().ok()).await;
    assert_eq!(source.svid().unwrap().spiffe_id().as_str(), FRONT);
}

fn endpoint(socket: &Path) -> Endpoint {
    format!("unix://{}", socket.display()).parse().unwrap()
}
