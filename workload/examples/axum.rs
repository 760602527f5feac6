//! An axum router whose handlers know the caller: `SPIFFE_ENDPOINT_SOCKET=unix:///run/agent.sock axum 127.0.0.1:8443`
#![allow(clippy::print_stderr, reason = "who tries it reads along")]
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use signet_workload::{Peer, PeerRule, TrustDomain, X509Source};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".into());
    let source = X509Source::from_env().await?;
    let probed = source.clone();
    let router = Router::new()
        .route("/", get(hello))
        .route("/healthy", get(move || healthy(probed.clone())));
    let callers = PeerRule::TrustDomain(TrustDomain::parse("example.org")?);
    let listener = TcpListener::bind(address).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let acceptor = source.acceptor_for(callers, &[b"h2", b"http/1.1"])?;
    let mut incoming = acceptor.incoming(listener);
    loop {
        let (stream, peer) = incoming.next().await;
        let service = TowerToHyperService::new(router.clone().layer(Extension(peer.clone())));
        tokio::spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            let serving = http.serve_connection(TokioIo::new(stream), service);
            match peer.while_trusted(serving).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("{error}"),
                Err(reason) => eprintln!("{reason}"),
            }
        });
    }
}

async fn hello(Extension(peer): Extension<Peer>) -> String {
    format!("you are {}\n", peer.id())
}

async fn healthy(source: X509Source) -> (StatusCode, String) {
    match source.is_healthy() {
        Ok(()) => (StatusCode::OK, "healthy\n".into()),
        Err(reason) if reason.still_serves() => (StatusCode::OK, format!("ready, but: {reason}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
