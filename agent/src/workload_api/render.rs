//! Turns an [`X509Context`] into messages of the Workload API. Pure but for one alarm: the time is an argument.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use signet_certs::dates::{OutsideDates, WhoseClock};
use signet_proto::workload::{X509BundlesResponse, X509svid, X509svidResponse};

use super::message::Message;
use crate::context::{GrantedSvid, X509Context};

/// The fields of the lists; a test compares what is sent with what the generated code makes.
const CRL_OF_SVIDS: u32 = 2;
const CRL_OF_BUNDLES: u32 = 1;

/// Largest message that gRPC clients accept by default (EP-25).
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// From here on each message is reported in the log, while there is time to act.
const ALARMING_MESSAGE: usize = 3 * 1024 * 1024;

/// Whether the last message was sent without its revocation lists: said when it begins and when it ends, not by every stream.
static WITHOUT_LISTS: AtomicBool = AtomicBool::new(false);

/// Why a context cannot be sent as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unservable {
    /// For the status message of a stream that has waited long enough.
    pub problem: Cow<'static, str>,
    /// When time alone may mend it.
    pub again_in: Option<Duration>,
}

impl Unservable {
    const fn because(problem: &'static str) -> Self {
        Self {
            problem: Cow::Borrowed(problem),
            again_in: None,
        }
    }
}

/// The answer of FetchX509SVID: every SVID valid at `now`, in the order given, with bundles and CRLs.
pub(super) fn svids(context: &X509Context, now: SystemTime) -> Result<Message, Unservable> {
    let bundle = own_bundle(context)?;
    let hinted = context.svids.iter().zip(context.hints());
    let svids: Vec<X509svid> = hinted
        .filter(|(svid, _)| is_complete(svid) && svid.not_before <= now && now < svid.not_after)
        .map(|(svid, hint)| X509svid {
            spiffe_id: svid.spiffe_id.clone(),
            x509_svid: svid.chain.clone(),
            x509_svid_key: svid.key.bytes(),
            bundle: bundle.clone(),
            hint: hint.to_owned(),
        })
        .collect();
    if svids.is_empty() {
        return Err(none_valid(context, now));
    }
    let head = X509svidResponse {
        svids,
        ..X509svidResponse::default()
    };
    let each = federated(context).map(|one| X509svidResponse {
        federated_bundles: [one].into(),
        ..X509svidResponse::default()
    });
    within_bounds(Message {
        // Made at its full length, so that no part of a key stays behind where it has grown.
        head: head.encode_to_vec().into(),
        lists: Some(context.crls.clone()),
        field: CRL_OF_SVIDS,
        tail: each.flat_map(|one| one.encode_to_vec()).collect(),
    })
}

/// The answer of FetchX509Bundles: the own trust domain and the foreign ones, with CRLs.
pub(super) fn bundles(context: &X509Context, _now: SystemTime) -> Result<Message, Unservable> {
    let own = (domain_id(&context.trust_domain), own_bundle(context)?);
    let each = [own].into_iter().chain(federated(context));
    let each = each.map(|one| X509BundlesResponse {
        bundles: [one].into(),
        ..X509BundlesResponse::default()
    });
    within_bounds(Message {
        head: Vec::new().into(),
        lists: Some(context.crls.clone()),
        field: CRL_OF_BUNDLES,
        tail: each.flat_map(|one| one.encode_to_vec()).collect(),
    })
}

/// A mandatory field must never be at its default (API-07): clients drop the whole message.
fn is_complete(svid: &GrantedSvid) -> bool {
    let complete = !svid.spiffe_id.is_empty() && !svid.chain.is_empty() && !svid.key.bytes().is_empty();
    if !complete {
        tracing::error!(spiffe_id = %svid.spiffe_id, "an SVID without id, chain or key was not served");
    }
    complete
}

/// Every SVID that is complete is too early, which passes, or too late.
fn none_valid(context: &X509Context, now: SystemTime) -> Unservable {
    let upcoming = context
        .svids
        .iter()
        .filter(|svid| now < svid.not_before && svid.not_before < svid.not_after)
        .min_by_key(|svid| svid.not_before);
    let latest = context.svids.iter().max_by_key(|svid| svid.not_after);
    let Some(svid) = upcoming.or(latest) else {
        return Unservable::because("there is no certificate");
    };
    let dates = OutsideDates {
        not_before: svid.not_before,
        not_after: svid.not_after,
        now,
        clock: WhoseClock::Here,
    };
    let remedy = match upcoming {
        Some(_) => "check the clocks of node and server",
        None => "it could not be renewed",
    };
    Unservable {
        problem: format!("the certificate {dates}; {remedy}").into(),
        again_in: upcoming.and_then(|svid| svid.not_before.duration_since(now).ok()),
    }
}

fn own_bundle(context: &X509Context) -> Result<Bytes, Unservable> {
    if context.bundle.is_empty() || context.trust_domain.is_empty() {
        return Err(Unservable::because("the trust bundle is not known yet"));
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
fn within_bounds(mut message: Message) -> Result<Message, Unservable> {
    let bytes = message.length();
    if bytes <= MAX_MESSAGE {
        tell_size(bytes);
        return Ok(message);
    }
    message.lists = None;
    if message.length() > MAX_MESSAGE {
        return Err(Unservable::because(
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
    Ok(message)
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
