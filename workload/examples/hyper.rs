//! An HTTP server that tells callers who they are: `SPIFFE_ENDPOINT_SOCKET=unix:///run/agent.sock hyper 127.0.0.1:8443`
#![allow(clippy::print_stderr, reason = "who tries it reads along")]
use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use signet_workload::{PeerRule, TrustDomain, X509Source};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".into());
    let source = X509Source::from_env().await?;
    let callers = PeerRule::TrustDomain(TrustDomain::parse("example.org")?);
    let listener = TcpListener::bind(address).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let acceptor = source.acceptor_for(callers, &[b"h2", b"http/1.1"])?;
    let mut incoming = acceptor.incoming(listener);
    loop {
        let (stream, peer) = incoming.next().await;
        tokio::spawn(async move {
            let answer = |_: Request<Incoming>| {
                let text = format!("you are {}\n", peer.id());
                async { Ok::<_, Infallible>(Response::new(text)) }
            };
            let http = Builder::new(TokioExecutor::new());
            let serving = http.serve_connection(TokioIo::new(stream), service_fn(answer));
            match peer.while_trusted(serving).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("{error}"),
                Err(reason) => eprintln!("{reason}"),
            }
        });
    }
}
