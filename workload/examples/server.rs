//! Repeats each line with the caller's name: `SPIFFE_ENDPOINT_SOCKET=unix:///run/agent.sock server 127.0.0.1:8443`
#![allow(clippy::print_stderr, reason = "who tries it reads along")]
use signet_workload::tokio_rustls::server::TlsStream;
use signet_workload::{Peer, PeerRule, TrustDomain, X509Source};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".into());
    let source = X509Source::from_env().await?;
    let callers = PeerRule::TrustDomain(TrustDomain::parse("example.org")?);
    let listener = TcpListener::bind(address).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let mut incoming = source.acceptor(callers)?.incoming(listener);
    loop {
        let (stream, peer) = incoming.next().await;
        tokio::spawn(async move {
            // Cut when the caller is revoked, whatever it is doing.
            match peer.while_trusted(talk(stream, &peer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("{error}"),
                Err(reason) => eprintln!("{reason}"),
            }
        });
    }
}

async fn talk(stream: TlsStream<TcpStream>, peer: &Peer) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        stream
            .write_all(format!("{}: {line}", peer.id()).as_bytes())
            .await?;
        line.clear();
    }
    Ok(())
}
