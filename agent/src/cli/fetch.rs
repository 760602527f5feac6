//! `fetch x509`: the Workload API as a workload sees it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use signet_certs::authority::AuthorityCertificate;
use signet_certs::crl::Crl;
use signet_certs::signer::LeafKey;
use signet_certs::svid::X509Svid;
use signet_certs::time::rfc3339;
use signet_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use signet_proto::workload::{X509svid, X509svidRequest, X509svidResponse};
use signet_runtime::backoff::Backoff;
use signet_runtime::cli::Answer;
use signet_runtime::clock::{Clock, SystemClock};
use signet_runtime::pace::random_unit;
use signet_runtime::table::{Table, age};
use signet_runtime::uds;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::files;
use super::local::reason;

/// Largest number of certificates or CRLs that is read from one field.
const MAX_PARTS: usize = 4096;

/// What the Workload API gave, read and checked.
pub(super) struct Fetched {
    /// Default first, with hints.
    pub(super) svids: Vec<(X509Svid, String)>,
    /// The bundle of the default identity.
    pub(super) bundle: Vec<AuthorityCertificate>,
    /// CRLs of the bundle's authorities.
    pub(super) crls: Vec<Crl>,
}

/// Fetches, and writes or shows.
pub(super) async fn x509(socket: &str, write: Option<&Path>, limit: Duration) -> anyhow::Result<Answer> {
    let path = socket_path(socket)?;
    let response = tokio::time::timeout(limit, first_response(&path))
        .await
        .map_err(|_| anyhow::anyhow!("no identity within {} s from {socket}", limit.as_secs_f64()))??;
    let now = SystemClock.now();
    let fetched = read(response, now).context("the Workload API's answer is not usable")?;
    if let Some(directory) = write {
        files::write(directory, &fetched)
            .with_context(|| format!("cannot write into {}", directory.display()))?;
    }
    Ok(Answer::new(
        to_json(&fetched, write),
        to_text(&fetched, write, now),
    ))
}

/// `unix:///absolute/path` and nothing more (SPIFFE Workload Endpoint §4).
fn socket_path(address: &str) -> anyhow::Result<PathBuf> {
    let path = address
        .strip_prefix("unix:")
        .map(|rest| rest.strip_prefix("//").unwrap_or(rest));
    match path {
        Some(path) if path.starts_with('/') && !path.contains(['?', '#', '%']) => Ok(path.into()),
        _ => bail!("`{address}` names no Workload API of this agent; write unix:///absolute/path"),
    }
}

/// Tries again while the agent starts or has nothing yet; a verdict ends it at once.
async fn first_response(path: &Path) -> anyhow::Result<X509svidResponse> {
    let mut backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(5)).jittered(0.5);
    loop {
        let status = match ask(path).await {
            Ok(response) => return Ok(response),
            Err(status) => status,
        };
        if status.code() != Code::Unavailable {
            bail!("{}", status.message());
        }
        eprintln!("signet-agent: {}; trying again", status.message());
        tokio::time::sleep(backoff.next(random_unit())).await;
    }
}

async fn ask(path: &Path) -> Result<X509svidResponse, Status> {
    let channel = connect(path).await?;
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().insert(
        "workload.spiffe.io",
        tonic::metadata::MetadataValue::from_static("true"),
    );
    let mut stream = SpiffeWorkloadApiClient::new(channel)
        .fetch_x509svid(request)
        .await?
        .into_inner();
    stream
        .message()
        .await?
        .ok_or_else(|| Status::unavailable("the agent ended the stream"))
}

async fn connect(path: &Path) -> Result<Channel, Status> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { uds::connect(&path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| Status::unavailable(reason(&error)))
}

fn read(response: X509svidResponse, now: SystemTime) -> anyhow::Result<Fetched> {
    let Some(default) = response.svids.first() else {
        bail!("it holds no SVID")
    };
    let bundle: Vec<_> = split(&default.bundle)?
        .iter()
        .map(|der| AuthorityCertificate::from_der(der).context("the bundle holds an unusable certificate"))
        .collect::<Result<_, _>>()?;
    let crls = response
        .crl
        .iter()
        .map(|der| read_crl(der, &bundle))
        .collect::<Result<_, _>>()?;
    let svids: Vec<_> = response
        .svids
        .into_iter()
        .map(|svid| read_svid(svid, now))
        .collect::<Result<_, _>>()?;
    Ok(Fetched { svids, bundle, crls })
}

fn read_svid(svid: X509svid, now: SystemTime) -> anyhow::Result<(X509Svid, String)> {
    let named = svid.spiffe_id.clone();
    let key = LeafKey::from_pkcs8(Zeroizing::new(svid.x509_svid_key.to_vec()), &SystemRandom::new())
        .context("the private key is unusable")?;
    let read = X509Svid::new(split(&svid.x509_svid)?, key)?;
    if read.spiffe_id.as_str() != named {
        bail!("the certificate names {}, the answer {named}", read.spiffe_id);
    }
    if read.not_after < now {
        bail!("the certificate of {named} has expired");
    }
    Ok((read, svid.hint))
}

fn read_crl(der: &Bytes, bundle: &[AuthorityCertificate]) -> anyhow::Result<Crl> {
    bundle
        .iter()
        .find_map(|authority| Crl::verify(der, authority).ok())
        .context("a revocation list is not signed by any authority of the bundle")
}

/// Takes DER structures apart that stand one after another.
fn split(mut der: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    while !der.is_empty() {
        let length = sequence_length(der).context("it is not a run of DER certificates")?;
        let (part, rest) = der.split_at(length);
        parts.push(part.to_vec());
        der = rest;
        if parts.len() > MAX_PARTS {
            bail!("it holds more than {MAX_PARTS} certificates");
        }
    }
    Ok(parts)
}

/// Bytes of the SEQUENCE at the start, header included; `None` when there is none or it is cut off.
fn sequence_length(der: &[u8]) -> Option<usize> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let count = usize::from(first & 0x7f);
    let (header, content) = match first {
        0..0x80 => (2, usize::from(first)),
        _ if (1..=4).contains(&count) => {
            let bytes = rest.get(..count)?;
            (
                2 + count,
                bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            )
        }
        _ => return None,
    };
    let total = header.checked_add(content)?;
    (tag == 0x30 && total <= der.len()).then_some(total)
}

fn to_json(fetched: &Fetched, write: Option<&Path>) -> Value {
    let svid = |(svid, hint): &(X509Svid, String)| {
        json!({
            "spiffe_id": svid.spiffe_id.as_str(),
            "hint": hint,
            "serial": svid.serial.to_string(),
            "authority": svid.authority_id.to_string(),
            "not_before": rfc3339(svid.not_before),
            "not_after": rfc3339(svid.not_after),
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
        "bundle": fetched.bundle.iter().map(|authority| authority.id().to_string()).collect::<Vec<_>>(),
        "crls": fetched.crls.iter().map(crl).collect::<Vec<_>>(),
        "written": write.map(|directory| directory.display().to_string()),
    })
}

fn to_text(fetched: &Fetched, write: Option<&Path>, now: SystemTime) -> String {
    let mut svids = Table::new(&["SPIFFE ID", "HINT", "SERIAL", "AUTHORITY", "EXPIRES"]);
    for (svid, hint) in &fetched.svids {
        svids.row([
            svid.spiffe_id.as_str(),
            if hint.is_empty() { "-" } else { hint },
            &svid.serial.to_string(),
            &svid.authority_id.to_string(),
            &age(now, svid.not_after),
        ]);
    }
    let mut trust = Table::new(&["TRUSTED AUTHORITY", "CRL NUMBER", "REVOKED", "CRL ENDS"]);
    for authority in &fetched.bundle {
        let crl = fetched
            .crls
            .iter()
            .find(|crl| crl.authority_id() == authority.id());
        let (number, revoked, ends) = crl.map_or_else(
            || ("-".to_owned(), "-".to_owned(), "-".to_owned()),
            |crl| {
                (
                    crl.number().0.to_string(),
                    crl.entry_count().to_string(),
                    age(now, crl.next_update()),
                )
            },
        );
        trust.row([authority.id().to_string(), number, revoked, ends]);
    }
    let mut text = format!("{}\n{}", svids.render(), trust.render());
    if let Some(directory) = write {
        let names = files::NAMES.join(", ");
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

    /// Covers EP-10.
    #[test]
    fn a_socket_address_is_an_absolute_unix_path() {
        assert_eq!(
            socket_path("unix:///run/a.sock").unwrap(),
            Path::new("/run/a.sock")
        );
        assert_eq!(socket_path("unix:/run/a.sock").unwrap(), Path::new("/run/a.sock"));
        for wrong in [
            "",
            "/run/a.sock",
            "unix:a.sock",
            "unix://run/a.sock",
            "unix:///a?x",
            "tcp://127.0.0.1:1",
            "unix:",
        ] {
            assert!(socket_path(wrong).is_err(), "{wrong}");
        }
    }

    fn response() -> X509svidResponse {
        let authority = authority(DOMAIN);
        let svid = svid(&authority, "/ns/a/sa/b");
        X509svidResponse {
            svids: vec![X509svid {
                spiffe_id: svid.spiffe_id.as_str().to_owned(),
                x509_svid: svid.chain_der().into(),
                x509_svid_key: svid.key.pkcs8_der().to_vec().into(),
                bundle: Bytes::copy_from_slice(authority.certificate.der()),
                hint: String::new(),
            }],
            crl: vec![crl(&authority, 1, &[]).der().clone()],
            ..X509svidResponse::default()
        }
    }

    /// Covers INV-13.
    #[test]
    fn what_is_shown_holds_no_key() {
        let response = response();
        let key = hex::encode(&response.svids[0].x509_svid_key);
        let fetched = read(response, at(1)).unwrap();
        let shown = format!("{}{}", to_text(&fetched, None, at(1)), to_json(&fetched, None));
        assert!(shown.contains("spiffe://example.org/ns/a/sa/b"));
        assert!(!shown.contains("PRIVATE") && !shown.contains(&key[20..60]));
    }

    #[test]
    fn an_answer_that_does_not_fit_together_is_refused() {
        assert!(read(X509svidResponse::default(), at(1)).is_err());
        assert!(read(response(), at(10_000)).is_err(), "expired");
        let mut other_key = response();
        other_key.svids[0].x509_svid_key = response().svids[0].x509_svid_key.clone();
        assert!(read(other_key, at(1)).is_err());
        let mut foreign_crl = response();
        foreign_crl.crl = response().crl;
        assert!(read(foreign_crl, at(1)).is_err());
        let mut cut = response();
        cut.svids[0].bundle = cut.svids[0].bundle.slice(..100);
        assert!(read(cut, at(1)).is_err());
    }

    #[test]
    fn runs_of_der_are_taken_apart() {
        let part = |length: usize| {
            let mut der = vec![0x30, 0x82, (length >> 8) as u8, length as u8];
            der.resize(4 + length, 7);
            der
        };
        let run = [part(300), vec![0x30, 0x01, 0x05], part(1)].concat();
        assert_eq!(split(&run).unwrap(), [part(300), vec![0x30, 0x01, 0x05], part(1)]);
        for broken in [
            &[0x30][..],
            &[0x30, 0x80],
            &[0x31, 0x00],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
            &[0x30, 5, 1],
        ] {
            assert!(split(broken).is_err(), "{broken:?}");
        }
    }
}
