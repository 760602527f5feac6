//! Gets a page from the holder of one identity:
//! `SPIFFE_ENDPOINT_SOCKET=unix:///run/agent.sock reqwest https://127.0.0.1:8443/ spiffe://example.org/ns/shop/sa/api`
#![allow(clippy::print_stdout, reason = "what it is for")]

use anyhow::Context;
use signet_workload::{PeerRule, SpiffeId, X509Source};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("which page?")?;
    let server = SpiffeId::parse(&arguments.next().context("whose?")?)?;
    let source = X509Source::from_env().await?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(source.client_config(PeerRule::Exactly(server), &[b"http/1.1"])?)
        .https_only(true)
        .no_proxy()
        // A handshake for each request, so that each asks the newest revocation list.
        .pool_max_idle_per_host(0)
        .build()?;
    let answer = client.get(url).send().await?.error_for_status()?;
    print!("{}", answer.text().await?);
    Ok(())
}
