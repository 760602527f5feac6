//! What ended, and whoever cannot be asked why: `explain` once the certificate is over, by a real agent and by one that knows only the
//! Workload API and says again what a real one has said.

use std::{convert::Infallible, path::PathBuf};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use signet_proto::workload::{X509svidRequest, X509svidResponse};
use signet_runtime::clock::{Clock as _, SystemClock};
use signet_tests::workload::with_header;
use tokio::{net::UnixListener, task::JoinHandle};

use super::*;

/// Speaks gRPC, knows one call of the Workload API, and nothing of health or of explanations.
struct OldAgent {
    socket: PathBuf,
    serving: JoinHandle<()>,
}

impl Drop for OldAgent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl OldAgent {
    fn start(folder: &Path, says: &X509svidResponse) -> Self {
        let socket = folder.join("old.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(says.encoded_len()).unwrap());
        says.encode(&mut framed).unwrap();
        let framed = framed.freeze();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let framed = framed.clone();
                let answers = service_fn(move |request| {
                    let answer = answer(&request, framed.clone());
                    async { Ok::<_, Infallible>(answer) }
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answers));
            }
        });
        Self { socket, serving }
    }
}

fn answer(request: &Request<Incoming>, message: Bytes) -> Response<BoxBody<Bytes, Infallible>> {
    let response = Response::builder().header("content-type", "application/grpc");
    if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
        let unimplemented = response.header("grpc-status", "12");
        return unimplemented.body(Full::default().boxed()).unwrap();
    }
    let frames = stream::iter([Ok(Frame::data(message))]).chain(stream::pending());
    response.body(BodyExt::boxed(StreamBody::new(frames))).unwrap()
}

fn step<'t>(told: &'t Value, name: &str) -> &'t Value {
    let mut steps = told["steps"].as_array().unwrap().iter();
    steps
        .find(|step| step["step"] == name)
        .unwrap_or_else(|| panic!("{name}: {told}"))
}

/// A pod whose certificates live for seconds, and what it was given.
async fn short_lived() -> (Domain, Agent, Volume, X509svidResponse) {
    let plan = Plan::default().server("/svid/ttl", json!("15s"));
    let domain = plan.start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let client = agent.workload(&volume);
    client.identity().await;
    let request = with_header(X509svidRequest {});
    let mut answers = client.stub().fetch_x509svid(request).await.unwrap().into_inner();
    let given = answers.message().await.unwrap().unwrap();
    (domain, agent, volume, given)
}

async fn until_it_has_ended(given: &X509svidResponse) {
    let chain = signet_certs::split_certificates(&given.svids[0].x509_svid).unwrap();
    let leaf = signet_certs::verify::inspect_leaf(chain[0]).unwrap();
    eventually("the certificate to end", async || {
        (SystemClock.now() > leaf.not_after).then_some(())
    })
    .await;
}

/// An agent sends nothing that has ended: what is told is why there is no other.
#[tokio::test]
async fn once_the_certificate_has_ended_without_another_the_reason_is_told() {
    let (mut domain, agent, volume, given) = short_lived().await;
    domain.server.stop().await.unwrap();
    until_it_has_ended(&given).await;
    let socket = agent.socket(&volume);
    let (name, says, remedy) = eventually("the agent to have nothing", async || {
        let asked = asked(&socket, &["--timeout", "1s", "-o", "json"]).await;
        (!asked.status.success()).then_some(())?;
        Some(why(&socket).await)
    })
    .await;
    assert_eq!(name, "server", "{says}");
    assert!(says.contains("not connected to its server since 20"), "{says}");
    assert!(
        remedy.contains("what the agent holds is served until it ends"),
        "{remedy}"
    );
}

#[tokio::test]
async fn an_older_agent_that_cannot_be_asked_is_told_by_what_the_workload_api_shows() {
    let (domain, _agent, _volume, given) = short_lived().await;
    let old = OldAgent::start(domain.path(), &given);
    let told = json_of(&asked(&old.socket, &["-o", "json"]).await, false);
    let (agent, grpc) = (step(&told, "agent"), step(&told, "grpc"));
    assert_eq!(agent["state"], "note", "{told}");
    assert!(
        agent["says"]
            .as_str()
            .unwrap()
            .contains("it is older than this command"),
        "{told}"
    );
    assert!(
        grpc["says"].as_str().unwrap().contains("no health service"),
        "{told}"
    );
    assert_eq!(step(&told, "verification")["state"], "ok", "{told}");
    assert_eq!(told["spiffe_ids"], json!([id_of("front")]));

    // It goes on with what it has.
    until_it_has_ended(&given).await;
    let (name, says, remedy) = why(&old.socket).await;
    assert_eq!(name, "verification", "{says}");
    assert!(says.contains("expired"), "{says}");
    assert!(
        remedy.contains("this machine says that it is 20") && remedy.contains("could not renew"),
        "{remedy}"
    );
    let printed = asked(&old.socket, &[]).await;
    assert_eq!(printed.status.code(), Some(1));
    assert!(
        printed.stdout.contains("older than this command"),
        "{}",
        printed.stdout
    );
}
