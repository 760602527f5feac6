//! Makes a list long: certificates of one identity by the thousand, to be revoked at once.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use signet_proto::agent::issue_result::Outcome;
use signet_tests::{
    agent_client::{RawAgent, new_csr, pod_item},
    domain::Domain,
    fake_kube::PodSpec,
};

const BATCH: usize = 64;
const UNDER_WAY: usize = 8;
const NODE: &str = "filling";

/// Issues at least this many and returns the SPIFFE ID that all of them have.
pub(super) async fn issue(domain: &Domain, certificates: usize) -> Result<String> {
    let (agent, _) = domain.raw_agent(NODE).await?;
    let tokens = (0..BATCH)
        .map(|pod| {
            let name = format!("filler-{pod}");
            domain
                .kube
                .add_pod(&PodSpec::new("bench", &name).service_account("filler").node(NODE))?;
            domain.pod_token("bench", &name)
        })
        .collect::<Result<Vec<_>>>()?;
    let csr = new_csr()?;
    let mut done = stream::iter(0..certificates.div_ceil(BATCH).max(1))
        .map(|_| batch(agent.clone(), &csr, &tokens))
        .buffer_unordered(UNDER_WAY);
    let mut id = None;
    while let Some(of_batch) = done.try_next().await? {
        id = Some(of_batch);
    }
    id.context("nothing was issued")
}

async fn batch(mut agent: RawAgent, csr: &[u8], tokens: &[String]) -> Result<String> {
    let items = tokens.iter().map(|token| pod_item(csr.to_vec(), token)).collect();
    let results = agent.issue(items).await?;
    ensure!(results.len() == tokens.len(), "{} results", results.len());
    let mut id = String::new();
    for result in results {
        match result.outcome {
            Some(Outcome::Issued(issued)) => id = issued.spiffe_id,
            other => anyhow::bail!("not issued: {other:?}"),
        }
    }
    Ok(id)
}
