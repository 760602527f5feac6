//! Sends a line and prints the answer: `SPIFFE_ENDPOINT_SOCKET=unix:///run/agent.sock client 127.0.0.1:8443 hello`
#![allow(clippy::print_stdout, reason = "what it is for")]

use signet_workload::{PeerRule, SpiffeId, X509Source};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8443".into());
    let line = arguments.next().unwrap_or_else(|| "hello".into());
    let source = X509Source::from_env().await?;
    // Whoever answers at that address: only the holder of this identity is spoken to.
    let server = SpiffeId::parse("spiffe://example.org/ns/shop/sa/api")?;
    let connector = source.connector(PeerRule::Exactly(server))?;
    let (stream, peer) = connector.connect(TcpStream::connect(address).await?).await?;
    let mut stream = BufReader::new(stream);
    let talk = async {
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        anyhow::Ok(answer)
    };
    print!("{}", peer.while_trusted(talk).await??);
    Ok(())
}
