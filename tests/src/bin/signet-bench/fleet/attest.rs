//! Every node attests once, and its agent opens its trust stream: each from an address of its own, as nodes do.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use signet_certs::csr::create_csr;
use signet_proto::agent::AttestNodeResponse;
use signet_tests::{
    agent_client::{ClientCertificate, RawAgent, new_key},
    domain::{CLUSTER, Domain},
};
use tonic::Code;

use super::agent::{Fleet, open};

/// Nodes that attest over one connection, and such connections at once.
const GROUP: usize = 50;
const AT_ONCE: usize = 4;
/// Attempts of one node, and the pause before the next.
const ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn all(domain: &Domain, fleet: &Arc<Fleet>, agents: usize) -> Result<()> {
    let server = domain.server.agents();
    let groups = (0..agents).step_by(GROUP).map(|first| {
        let nodes = first..(first + GROUP).min(agents);
        let tokens: Result<Vec<_>> = nodes
            .map(|node| Ok((address(node), domain.node_token(&format!("node-{node}"))?)))
            .collect();
        let fleet = fleet.clone();
        async move { tokio::spawn(group(tokens?, fleet, server)).await? }
    });
    stream::iter(groups).buffer_unordered(AT_ONCE).try_collect().await
}

async fn group(nodes: Vec<(IpAddr, String)>, fleet: Arc<Fleet>, server: SocketAddr) -> Result<()> {
    let first = nodes.first().map(|(address, _)| *address);
    let mut stranger = RawAgent::connect_from(first, server, None).await?;
    stranger.hello().await?;
    for (own, token) in nodes {
        let key = new_key()?;
        let attested = attested(&mut stranger, &create_csr(&key)?, &token).await?;
        let chain = attested.certificate_chain.iter().map(|der| der.to_vec());
        let certificate = ClientCertificate {
            chain: chain.collect(),
            key,
        };
        open(fleet.clone(), own, server, &certificate).await?;
    }
    Ok(())
}

async fn attested(stranger: &mut RawAgent, csr: &[u8], token: &str) -> Result<AttestNodeResponse> {
    for _ in 0..ATTEMPTS {
        match stranger.attest(csr.to_vec(), CLUSTER, token).await {
            Err(status) if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) => {
                tokio::time::sleep(PAUSE).await;
            }
            answered => return answered.context("attest a node"),
        }
    }
    anyhow::bail!("a node was told to come back {ATTEMPTS} times")
}

/// 127.1.1.1 and on: all of 127/8 is this machine's own.
fn address(node: usize) -> IpAddr {
    let byte = |of: usize| u8::try_from(of % 250 + 1).unwrap_or(1);
    Ipv4Addr::new(127, byte(node / 62_500), byte(node / 250), byte(node)).into()
}
