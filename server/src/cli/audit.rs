//! The audit log, verified where its files are: no server has to run for that.

mod render;
mod tail;

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use signet_runtime::cli::Answer;

pub(super) use self::tail::tail;
use super::{admin::AdminClient, args::AuditVerifyArgs};
use crate::audit::AuditPublicKey;
use crate::audit::verify::{self, Trusted};

/// Verifies files; the answer has a problem when the log is not whole.
///
/// # Errors
/// A file or a key cannot be read, or the server that was to be asked does not answer.
pub(super) async fn verify(args: AuditVerifyArgs) -> anyhow::Result<Answer> {
    let mut trusted = Trusted {
        keys: Vec::new(),
        ids: args.key_id,
    };
    for id in &trusted.ids {
        if id.len() != 64 || hex::decode(id).is_err() {
            bail!(
                "--key-id {id}: not the id of a key: expected the 64 hexadecimal digits that `audit verify` and `audit key --output json` print"
            );
        }
    }
    for path in &args.key {
        trusted.keys.push(key_in(path)?);
    }
    let mut written = None;
    if args.server {
        // Before the files are read: what has been written by now must be in them.
        let audit = AdminClient::connect(&args.admin.admin_socket)
            .await?
            .audit()
            .await?;
        trust_server(&mut trusted, audit.key)?;
        written = Some(audit.written);
    }
    let verdict = verify::verify(&args.files, &trusted, written.as_ref())?;
    Ok(render::verdict(&verdict, !trusted.is_empty()))
}

/// The key of the server counts where nobody has said which do; else it has to be one of those.
fn trust_server(trusted: &mut Trusted, key: AuditPublicKey) -> anyhow::Result<()> {
    if trusted.is_empty() {
        trusted.keys.push(key);
    } else if !trusted.has(&key) {
        bail!(
            "the server signs its log by key {}, which none of --key and --key-id names: it is another server, or another has its place",
            key.id()
        );
    }
    Ok(())
}

fn key_in(path: &Path) -> anyhow::Result<AuditPublicKey> {
    let text = fs::read(path).with_context(|| format!("--key {}: cannot read it", path.display()))?;
    AuditPublicKey::from_pem(&text).with_context(|| format!("--key {}", path.display()))
}

/// The key of the running server's log.
///
/// # Errors
/// What the server answered.
pub(super) async fn key(client: &mut AdminClient) -> anyhow::Result<Answer> {
    let audit = client.audit().await?;
    let pem = audit.key.to_pem();
    let json = json!({ "server": audit.written.server, "key_id": audit.key.id(), "public_key": pem });
    Ok(Answer::new(json, pem))
}

/// The newest head of the running server's log.
///
/// # Errors
/// What the server answered, or that it has signed none yet.
pub(super) async fn head(client: &mut AdminClient) -> anyhow::Result<Answer> {
    let head = client.audit().await?.head;
    let head = head.context("no head is signed yet: the first one comes ten seconds after the first line")?;
    let json: Value = serde_json::from_str(&head).context("what the server calls a head is none")?;
    Ok(Answer::new(json, format!("{head}\n")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring::rand::SystemRandom;
    use signet_certs::signer::{LocalSigner, SignatureAlgorithm};

    use super::*;
    use crate::audit::AuditKey;

    fn key() -> AuditPublicKey {
        let (signer, _) = LocalSigner::generate(SignatureAlgorithm::P256, &SystemRandom::new()).unwrap();
        AuditKey::new(Arc::new(signer)).public()
    }

    #[test]
    fn a_server_adds_no_key_to_those_that_somebody_named() {
        let (named, other) = (key(), key());
        let mut trusted = Trusted::default();
        trust_server(&mut trusted, named.clone()).unwrap();
        assert_eq!(trusted.keys, std::slice::from_ref(&named));
        trust_server(&mut trusted, named.clone()).unwrap();
        let refused = trust_server(&mut trusted, other.clone()).unwrap_err();
        assert!(refused.to_string().contains(&other.id()), "{refused}");
        assert_eq!(trusted.keys, std::slice::from_ref(&named));
        let mut by_id = Trusted {
            keys: Vec::new(),
            ids: vec![named.id()],
        };
        trust_server(&mut by_id, named).unwrap();
        trust_server(&mut by_id, other).unwrap_err();
    }
}
