//! Turns an [`X509Context`] into messages of the Workload API. Pure but for one alarm: the time is an argument.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use prost::Message as _;
use signet_proto::workload::{X509BundlesResponse, X509svid, X509svidResponse};

use crate::context::X509Context;
use crate::streams::{Message, Nothing, is_servable};

/// The fields of the lists; a test compares what is sent with what the generated code makes.
const CRL_OF_SVIDS: u32 = 2;
const CRL_OF_BUNDLES: u32 = 1;

/// Largest message that gRPC clients accept by default (EP-25).
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// From here on each message is reported in the log, while there is time to act.
const ALARMING_MESSAGE: usize = 3 * 1024 * 1024;

/// Whether the last message was sent without its revocation lists: said when it begins and when it ends, not by every stream.
static WITHOUT_LISTS: AtomicBool = AtomicBool::new(false);

/// The lists, and what comes before and behind them: fields in the order of their numbers, as the generated code has it.
struct Around {
    head: Message,
    lists: Message,
    tail: Message,
}

/// The answer of FetchX509SVID: every SVID valid at `now`, in the order given, with bundles and CRLs.
pub(super) fn svids(context: &X509Context, now: SystemTime) -> Result<Message, Nothing> {
    let bundle = own_bundle(context)?;
    let hinted = context.svids.iter().zip(context.hints());
    let svids: Vec<X509svid> = hinted
        .filter(|(svid, _)| is_servable(svid, now))
        .map(|(svid, hint)| X509svid {
            spiffe_id: svid.spiffe_id.clone(),
            x509_svid: svid.chain.clone(),
            x509_svid_key: svid.key.bytes(),
            bundle: bundle.clone(),
            hint: hint.to_owned(),
        })
        .collect();
    if svids.is_empty() {
        return Err(Nothing::none_valid(&context.svids, now));
    }
    let head = X509svidResponse {
        svids,
        ..X509svidResponse::default()
    };
    let each = federated(context).map(|one| X509svidResponse {
        federated_bundles: [one].into(),
        ..X509svidResponse::default()
    });
    within_bounds(Around {
        head: Message::secret(head.encode_to_vec()),
        lists: Message::lists_in_der(&context.crls, CRL_OF_SVIDS),
        tail: Message::own(each.flat_map(|one| one.encode_to_vec()).collect::<Vec<_>>()),
    })
}

/// The answer of FetchX509Bundles: the own trust domain and the foreign ones, with CRLs.
pub(super) fn bundles(context: &X509Context, _now: SystemTime) -> Result<Message, Nothing> {
    let own = (domain_id(&context.trust_domain), own_bundle(context)?);
    let each = [own].into_iter().chain(federated(context));
    let each = each.map(|one| X509BundlesResponse {
        bundles: [one].into(),
        ..X509BundlesResponse::default()
    });
    within_bounds(Around {
        head: Message::default(),
        lists: Message::lists_in_der(&context.crls, CRL_OF_BUNDLES),
        tail: Message::own(each.flat_map(|one| one.encode_to_vec()).collect::<Vec<_>>()),
    })
}

fn own_bundle(context: &X509Context) -> Result<Bytes, Nothing> {
    if context.bundle.is_empty() || context.trust_domain.is_empty() {
        return Err(Nothing::because("the trust bundle is not known yet"));
    }
    Ok(context.bundle.clone())
}

/// Foreign bundles by trust domain id, always in the same order. Empty ones make java- and py-spiffe refuse the message (X5S-13), and
/// an entry for the own domain would win over the real one in rust-spiffe (API-17).
fn federated(context: &X509Context) -> impl Iterator<Item = (String, Bytes)> {
    context
        .federated_bundles
        .iter()
        .filter(|(name, bundle)| **name != context.trust_domain && !bundle.is_empty())
        .map(|(name, bundle)| (domain_id(name), bundle.clone()))
}

/// Map keys are SPIFFE IDs, without a slash at the end (API-10).
fn domain_id(name: &str) -> String {
    format!("spiffe://{name}")
}

/// Keys and trust are never withheld because of lists: where all of it is more than clients take, the lists stay behind.
fn within_bounds(Around { head, lists, tail }: Around) -> Result<Message, Nothing> {
    let without = head.length() + tail.length();
    let bytes = without + lists.length();
    if bytes <= MAX_MESSAGE {
        tell_size(bytes);
        return Ok(head.then(lists).then(tail));
    }
    if without > MAX_MESSAGE {
        return Err(Nothing::because(
            "certificates and bundles exceed 4 MiB; ask the administrator",
        ));
    }
    if !WITHOUT_LISTS.swap(true, Ordering::Relaxed) {
        tracing::error!(
            bytes,
            limit = MAX_MESSAGE,
            "a response exceeds what gRPC clients accept: it is sent without revocation lists"
        );
    }
    Ok(head.then(tail))
}

/// What is worth a word about a message that is sent whole.
fn tell_size(bytes: usize) {
    if WITHOUT_LISTS.swap(false, Ordering::Relaxed) {
        tracing::info!(bytes, "responses carry the revocation lists again");
    }
    if bytes > ALARMING_MESSAGE {
        tracing::warn!(
            bytes,
            limit = MAX_MESSAGE,
            "a response comes close to what gRPC clients accept"
        );
    }
}
