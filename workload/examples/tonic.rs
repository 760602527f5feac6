//! gRPC's health service between two workloads: `SPIFFE_ENDPOINT_SOCKET=unix:///run/agent.sock tonic serve 127.0.0.1:8443`
//! and `… tonic call 127.0.0.1:8443 spiffe://example.org/ns/shop/sa/api`
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "what it is for")]

use std::io;

use anyhow::{Context, bail};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use signet_workload::{Connector, Peer, PeerRule, SpiffeId, TrustDomain, X509Source};
use tokio::net::{TcpListener, TcpStream};
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{ServiceBuilder, service_fn};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let part = arguments.next().context("serve or call?")?;
    let address = arguments.next().context("which address?")?;
    let source = X509Source::from_env().await?;
    match part.as_str() {
        "serve" => serve(&source, &address).await,
        "call" => {
            let server = SpiffeId::parse(&arguments.next().context("whom?")?)?;
            call(source.connector(PeerRule::Exactly(server))?, address).await
        }
        _ => bail!("serve or call?"),
    }
}

async fn serve(source: &X509Source, address: &str) -> anyhow::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let routes = Routes::new(InterceptedService::new(health, known_caller)).prepare();
    let callers = PeerRule::TrustDomain(TrustDomain::parse("example.org")?);
    let listener = TcpListener::bind(address).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let mut incoming = source.acceptor_for(callers, &[b"h2"])?.incoming(listener);
    loop {
        let (stream, peer) = incoming.next().await;
        let caller = peer.clone();
        let service = ServiceBuilder::new()
            .map_request(move |mut request: hyper::Request<_>| {
                request.extensions_mut().insert(caller.clone());
                request
            })
            .service(routes.clone());
        tokio::spawn(async move {
            let http = Builder::new(TokioExecutor::new()).http2_only();
            let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            match peer.while_trusted(serving).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("{error}"),
                Err(reason) => eprintln!("{reason}"),
            }
        });
    }
}

/// Handlers find the caller in the request's extensions, as this does.
fn known_caller(request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request
        .extensions()
        .get::<Peer>()
        .ok_or_else(|| Status::unauthenticated("nobody called"))?;
    eprintln!("called by {}", peer.id());
    Ok(request)
}

async fn call(connector: Connector, address: String) -> anyhow::Result<()> {
    let channel: Channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect_with_connector(service_fn(move |_| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                let (stream, _) = connector.connect(stream).await.map_err(io::Error::other)?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        }))
        .await?;
    let request = HealthCheckRequest {
        service: "shop".into(),
    };
    let answer = HealthClient::new(channel).check(request).await?;
    println!("{:?}", answer.into_inner().status());
    Ok(())
}
