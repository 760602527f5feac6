//! Repeats each line with the caller's name: `SPIFFE_ENDPOINT_SOCKET=unix:///run/agent.sock server 127.0.0.1:8443`
use signet_workload::{Acceptor, PeerRule, TrustDomain, X509Source};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".into());
    let source = X509Source::from_env().await?;
    let callers = PeerRule::TrustDomain(TrustDomain::parse("example.org")?);
    let acceptor = source.acceptor(callers)?;
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(acceptor, stream).await {
                eprintln!("{error:#}");
            }
        });
    }
}

async fn serve(acceptor: Acceptor, stream: TcpStream) -> anyhow::Result<()> {
    let (stream, peer) = acceptor.accept(stream).await?;
    let mut stream = BufReader::new(stream);
    // Cut when the caller is revoked, whatever it is doing.
    let talk = async {
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            stream
                .write_all(format!("{}: {line}", peer.id()).as_bytes())
                .await?;
            line.clear();
        }
        anyhow::Ok(())
    };
    peer.while_trusted(talk).await?
}
