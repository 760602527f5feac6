//! `show` and `verify`: files of identities, for people.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use signet_certs::id::SpiffeId;
use signet_certs::time::rfc3339;
use signet_runtime::cli::{Answer, OutputArgs};
use signet_runtime::clock::{Clock, SystemClock};
use signet_runtime::table::age;

use super::write::spiffe_id;
use crate::papers::{self, Asked, Found, Paper};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// SVIDs, keys, bundles and lists, PEM or DER; or folders, such as `write` keeps.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    pub answer: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The leaf, with what stands above it; a key among them has to fit.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The authorities, PEM or DER; or a folder that `write` keeps, with its lists.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Their lists. Once there is one, here or in the bundle, each authority needs a current one; else revocation is not looked at.
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,
    /// Whose identity it has to be.
    #[arg(long, value_name = "ID", value_parser = spiffe_id)]
    spiffe_id: Option<SpiffeId>,
    #[command(flatten)]
    pub answer: OutputArgs,
}

/// Tells what is in files, and what is wrong with it.
pub(super) async fn show(args: &ShowArgs) -> anyhow::Result<Answer> {
    let now = SystemClock.now();
    let found = all(&args.files)?;
    let troubles = papers::troubles(&found, now);
    Ok(Answer::new(
        papers::to_json(&found, &troubles),
        papers::to_text(&found, &troubles, now),
    ))
}

/// Verifies a leaf as a peer would.
pub(super) async fn verify(args: &VerifyArgs) -> anyhow::Result<Answer> {
    let now = SystemClock.now();
    let svid = all(&args.files)?;
    let mut bundle = papers::read(&args.bundle)?;
    let in_bundle = bundle.iter().any(|found| matches!(found.paper, Paper::Crl(..)));
    let lists = in_bundle || !args.crl.is_empty();
    bundle.extend(all(&args.crl)?);
    let asked = Asked {
        svid: &svid,
        bundle: &bundle,
        lists,
        id: args.spiffe_id.as_ref(),
    };
    let revocation = if lists { "looked at" } else { "not looked at" };
    Ok(match papers::verify(&asked, now) {
        Ok(verified) => Answer::new(
            json!({
                "verified": true,
                "spiffe_id": verified.spiffe_id().as_str(),
                "serial": verified.serial().to_string(),
                "authority": verified.authority_id().to_string(),
                "not_after": rfc3339(verified.not_after()),
                "revocation": revocation,
            }),
            format!(
                "{} verifies: serial {}, authority {}, ends {}; revocation was {revocation}\n",
                verified.spiffe_id(),
                verified.serial(),
                verified.authority_id(),
                age(now, verified.not_after()),
            ),
        ),
        Err(why) => Answer {
            json: json!({ "verified": false, "why": why, "revocation": revocation }),
            text: String::new(),
            problem: Some(why),
        },
    })
}

fn all(files: &[PathBuf]) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for file in files {
        found.extend(papers::read(file).context("cannot be read")?);
    }
    Ok(found)
}
