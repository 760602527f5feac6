//! rust-spiffe as workloads use it, against any Workload API. `tests/interop/clients.sh` sets what it reads: the mode
//! (fetch, watch or deny), the socket, and the command that makes SVIDs change.

use std::{env, time::Duration};

use anyhow::{Context, Result, ensure};
use signet_certs::{authority::AuthorityCertificate, verify::inspect_leaf};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509BundleSet, X509Source, X509Svid};
use tokio::{process::Command, time::timeout};

#[tokio::test]
#[ignore = "needs a running agent: `.ci/step interop` runs it against one"]
async fn the_spiffe_crate_is_served() -> Result<()> {
    let mode = env::var("INTEROP_MODE").context("INTEROP_MODE is not set")?;
    let limit = env::var("INTEROP_TIMEOUT")
        .ok()
        .and_then(|text| text.parse().ok());
    let work = async {
        match mode.as_str() {
            "fetch" => fetch().await,
            "watch" => watch().await,
            "deny" => deny().await,
            other => anyhow::bail!("INTEROP_MODE is fetch, watch or deny, not {other}"),
        }
    };
    timeout(Duration::from_secs(limit.unwrap_or(60)), work).await?
}

async fn fetch() -> Result<()> {
    let client = WorkloadApiClient::connect_env().await?;
    let context = client.fetch_x509_context().await?;
    let svid = context.default_svid().context("no default SVID")?;
    check(svid, context.bundle_set())?;
    ensure!(!client.fetch_x509_bundles().await?.is_empty(), "no bundle");
    Ok(())
}

async fn watch() -> Result<()> {
    let source = X509Source::new().await?;
    let mut updates = source.updated();
    let before = source.svid()?;
    check(&before, &*source.bundle_set()?)?;
    if let Ok(command) = env::var("INTEROP_ROTATE") {
        let status = Command::new("sh").args(["-c", &command]).status().await?;
        ensure!(status.success(), "{command}: {status}");
    }
    // The bundle may change first; every state is complete and fits together.
    while source.svid()?.leaf() == before.leaf() {
        updates.changed().await?;
        let context = source.x509_context()?;
        check(
            context.default_svid().context("no default SVID")?,
            context.bundle_set(),
        )?;
    }
    source.shutdown().await;
    Ok(())
}

async fn deny() -> Result<()> {
    let refusal = WorkloadApiClient::connect_env()
        .await?
        .fetch_x509_context()
        .await
        .err();
    // The crate reads this out of the message; a source goes on asking after it, slowly.
    ensure!(
        matches!(refusal, Some(WorkloadApiError::NoIdentityIssued)),
        "expected no identity issued, got {refusal:?}"
    );
    Ok(())
}

/// The leaf is a SPIFFE leaf for the ID the crate read, and one of the bundle's authorities has issued it.
fn check(svid: &X509Svid, bundles: &X509BundleSet) -> Result<()> {
    let id = svid.spiffe_id();
    if let Ok(expected) = env::var("INTEROP_SPIFFE_ID") {
        ensure!(id.to_string() == expected, "expected {expected}, got {id}");
    }
    let leaf = inspect_leaf(svid.leaf().as_bytes())?;
    ensure!(
        leaf.spiffe_id.as_str() == id.to_string(),
        "the leaf names {}",
        leaf.spiffe_id
    );
    let bundle = bundles
        .get_ref(id.trust_domain())
        .context("no bundle of the own trust domain")?;
    let mut issuers = Vec::new();
    for authority in bundle.authorities() {
        issuers.push(AuthorityCertificate::from_der(authority.as_bytes())?.id());
    }
    ensure!(
        issuers.contains(&leaf.authority_id),
        "{} is not in the bundle",
        leaf.authority_id
    );
    Ok(())
}
