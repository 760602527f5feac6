//! `fetch x509`: the Workload API as a workload sees it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use signet_certs::crl::Crl;
use signet_certs::time::rfc3339;
use signet_certs::verify::TrustedAuthority;
use signet_runtime::backoff::Backoff;
use signet_runtime::cli::{Answer, or_dash};
use signet_runtime::clock::{Clock, SystemClock};
use signet_runtime::files::Shown;
use signet_runtime::output::complain;
use signet_runtime::pace::random_unit;
use signet_runtime::table::{Table, age};
use signet_workload::{Endpoint, GrantedSvid, SourceError, X509Context};

use super::layout::LayoutArgs;
use crate::files::Layout;

/// Waiting times between attempts.
const BACKOFF: Backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(5)).jittered(0.5);

/// What the Workload API gave.
struct Fetched<'a> {
    /// Default first.
    svids: &'a [GrantedSvid],
    /// The bundle of the default identity with its CRLs.
    bundle: &'a [TrustedAuthority],
}

/// Fetches, and writes or shows.
pub(super) async fn x509(
    socket: &str,
    write: Option<&Path>,
    layout: &LayoutArgs,
    limit: Duration,
) -> anyhow::Result<Answer> {
    let layout = layout.layout().context("--file")?;
    let context = tokio::time::timeout(limit, first_context(&socket.parse()?))
        .await
        .map_err(|_| anyhow::anyhow!("no identity within {} s from {socket}", limit.as_secs_f64()))??;
    let default = context
        .default_svid()
        .context("the agent's answer holds no SVID")?;
    let fetched = Fetched {
        svids: &context.svids,
        bundle: context.roots.authorities(&default.spiffe_id().trust_domain()),
    };
    if let Some(directory) = write {
        let shown = layout.fill(default, fetched.bundle).write(directory);
        let shown = shown.with_context(|| {
            format!(
                "nothing is written to {}: let this user write there, or choose another directory",
                directory.display()
            )
        })?;
        if let Shown::Partly(error) = shown {
            let directory = directory.display();
            bail!(
                "{directory} holds the new set, and some of it may not be found there, or not after a loss of power: {error}; mend \
                 that, then write again"
            );
        }
    }
    let written = write.map(|directory| (directory, &layout));
    Ok(Answer::new(
        to_json(&fetched, write),
        to_text(&fetched, written, SystemClock.now()),
    ))
}

/// Tries again while the agent starts or has nothing yet; a verdict ends it at once.
async fn first_context(endpoint: &Endpoint) -> anyhow::Result<X509Context> {
    let mut backoff = BACKOFF;
    loop {
        let error = match X509Context::fetch(endpoint, &SystemClock).await {
            Ok(context) => return Ok(context),
            Err(error) => error,
        };
        let may_pass = error.may_pass();
        let said = match error {
            SourceError::Stream { message, .. } => message,
            other => other.to_string(),
        };
        if !may_pass {
            bail!(said);
        }
        complain(&format!("signet-agent: {said}; trying again\n"));
        tokio::time::sleep(backoff.next(random_unit())).await;
    }
}

fn to_json(fetched: &Fetched<'_>, write: Option<&Path>) -> Value {
    let svid = |GrantedSvid { svid, hint }: &GrantedSvid| {
        json!({
            "spiffe_id": svid.spiffe_id().as_str(),
            "hint": hint,
            "serial": svid.serial().to_string(),
            "authority": svid.authority_id().to_string(),
            "not_before": rfc3339(svid.not_before()),
            "not_after": rfc3339(svid.not_after()),
        })
    };
    let crl = |crl: &Crl| {
        json!({
            "authority": crl.authority_id().to_string(),
            "number": crl.number().0,
            "revoked": crl.entry_count(),
            "next_update": rfc3339(crl.next_update()),
        })
    };
    json!({
        "svids": fetched.svids.iter().map(svid).collect::<Vec<_>>(),
        "bundle": fetched.bundle.iter().map(|authority| authority.certificate.id().to_string()).collect::<Vec<_>>(),
        "crls": fetched.bundle.iter().filter_map(|authority| authority.crl.as_ref()).map(crl).collect::<Vec<_>>(),
        "written": write.map(|directory| directory.display().to_string()),
    })
}

fn to_text(fetched: &Fetched<'_>, written: Option<(&Path, &Layout)>, now: SystemTime) -> String {
    let mut svids = Table::new(&["SPIFFE ID", "HINT", "SERIAL", "AUTHORITY", "EXPIRES"]);
    for GrantedSvid { svid, hint } in fetched.svids {
        svids.row([
            svid.spiffe_id().as_str(),
            or_dash(hint),
            &svid.serial().to_string(),
            &svid.authority_id().to_string(),
            &age(now, svid.not_after()),
        ]);
    }
    let mut trust = Table::new(&["TRUSTED AUTHORITY", "CRL NUMBER", "REVOKED", "CRL ENDS"]);
    for TrustedAuthority { certificate, crl } in fetched.bundle {
        let dash = || "-".to_owned();
        let cell = |of: fn(&Crl) -> String| crl.as_ref().map_or_else(dash, of);
        trust.row([
            certificate.id().to_string(),
            cell(|crl| crl.number().0.to_string()),
            cell(|crl| crl.entry_count().to_string()),
            crl.as_ref().map_or_else(dash, |crl| age(now, crl.next_update())),
        ]);
    }
    let mut text = format!("{}\n{}", svids.render(), trust.render());
    if let Some((directory, layout)) = written {
        let names = layout.names().join(", ");
        text.push_str(&format!("\nwritten to {}: {names}\n", directory.display()));
        if fetched.svids.len() > 1 {
            text.push_str("only the first identity, the default one, was written\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use signet_testkit::{DOMAIN, at, authority, crl, svid};

    use super::*;

    /// Covers INV-13.
    #[test]
    fn what_is_shown_holds_no_key() {
        let authority = authority(DOMAIN);
        let svid = svid(&authority, "/ns/a/sa/b");
        let key = hex::encode(svid.key().pkcs8_der());
        let hint = String::new();
        let crl = Some(crl(&authority, 1, &[]));
        let certificate = authority.certificate().clone();
        let fetched = Fetched {
            svids: &[GrantedSvid {
                svid: svid.into(),
                hint,
            }],
            bundle: &[TrustedAuthority { certificate, crl }],
        };
        let shown = format!("{}{}", to_text(&fetched, None, at(1)), to_json(&fetched, None));
        assert!(shown.contains("spiffe://example.org/ns/a/sa/b"));
        assert!(!shown.contains("PRIVATE") && !shown.contains(&key[20..60]));
    }
}
