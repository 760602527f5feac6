//! The identity, what verifies it, and whether it does by this machine's clock.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use signet_certs::dates::OutsideDates;
use signet_certs::time::{from_unix_millis, rfc3339};
use signet_certs::verify::{Role, TrustedAuthority, VerifyError, verify_chain};
use signet_workload::{GrantedSvid, MessageError, X509Context};

use super::super::story::{Checked, Fault, Story};
use super::{Fetched, Seen};

pub(super) fn tell(story: &mut Story, seen: &Seen, context: &X509Context) {
    let Some(default) = context.svids.first() else {
        return;
    };
    story.told("identity", Ok(((), given(seen, default, context.svids.len()))));
    let domain = default.svid.spiffe_id().trust_domain();
    let authorities = context.roots.authorities(&domain);
    let count = authorities.len();
    let says = format!(
        "{count} {} of {domain}",
        if count == 1 { "authority" } else { "authorities" }
    );
    story.told("bundle", Ok(((), says)));
    for authority in authorities {
        list(story, seen, authority);
    }
    let _: Option<()> = story.told("verification", verified(seen, default, context));
}

fn given(seen: &Seen, default: &GrantedSvid, count: usize) -> String {
    let svid = &default.svid;
    let known = seen.said().into_iter().flat_map(|said| &said.svids);
    let renewed = known
        .filter(|known| known.serial == svid.serial().to_string() && known.renew_unix_ms > 0)
        .map(|known| {
            format!(
                ", renewed about {}",
                rfc3339(from_unix_millis(known.renew_unix_ms))
            )
        })
        .next();
    let more = match count {
        1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    format!(
        "{}, serial {}, from {} until {}{}{more}",
        svid.spiffe_id(),
        svid.serial(),
        rfc3339(svid.not_before()),
        rfc3339(svid.not_after()),
        renewed.unwrap_or_default()
    )
}

/// The revocation list of one authority.
fn list(story: &mut Story, seen: &Seen, authority: &TrustedAuthority) {
    let id = authority.certificate.id();
    let Some(crl) = &authority.crl else {
        let remedy = "only agents that send lists let peers be checked for revocation: Signet's do";
        return story.note("list", format!("none of authority {id}"), remedy);
    };
    let ends = rfc3339(crl.next_update());
    let says = format!(
        "number {} of authority {id}, {} revoked, until {ends}",
        crl.number().0,
        crl.entry_count()
    );
    if crl.is_current(seen.now) {
        story.told("list", Ok(((), says)));
        return;
    }
    let fault = Fault::new(
        format!(
            "number {} of authority {id} ended {ends}: peers of that authority are refused",
            crl.number().0
        ),
        "the agent gets the next one when it reaches its server, and the server signs it: `signet-server crl show`; or this machine's clock is wrong",
    );
    let _: Option<()> = story.told("list", Err(fault));
}

/// Whether what was given is refused at this machine's time, and good at that of the agent.
pub(super) fn is_refused_by_clock(seen: &Seen, agents: SystemTime) -> bool {
    let is_good = |context: &X509Context, now: SystemTime| {
        let Some(default) = context.svids.first() else {
            return false;
        };
        let domain = default.svid.spiffe_id().trust_domain();
        let authorities = context.roots.authorities(&domain);
        let mut lists = authorities.iter().filter_map(|one| one.crl.as_ref());
        lists.all(|list| list.is_current(now)) && as_a_peer(default, context, now).is_ok()
    };
    match &seen.fetched {
        Fetched::Context(context) => !is_good(context, seen.now) && is_good(context, agents),
        Fetched::Unusable(MessageError::Svid { source, .. }) => source
            .dates()
            .is_some_and(|dates| OutsideDates::check(dates.not_before, dates.not_after, agents).is_ok()),
        _ => false,
    }
}

/// By bundle, lists, and a clock that says this.
fn as_a_peer(default: &GrantedSvid, context: &X509Context, now: SystemTime) -> Result<(), VerifyError> {
    let chain = default.svid.chain().iter();
    let chain: Vec<_> = chain.map(|der| CertificateDer::from(der.as_slice())).collect();
    verify_chain(&chain, Role::Client, &context.roots, now).map(drop)
}

/// By this machine's clock, as a peer would.
fn verified(seen: &Seen, default: &GrantedSvid, context: &X509Context) -> Checked<()> {
    match as_a_peer(default, context, seen.now) {
        Ok(()) => Ok((
            (),
            "the identity verifies by bundle and lists, with this machine's clock".to_owned(),
        )),
        Err(error) => Err(fault(seen, &error)),
    }
}

fn fault(seen: &Seen, error: &VerifyError) -> Fault {
    let says = format!("a peer with this machine's clock refuses it: {error}");
    if error.dates().is_some() {
        return Fault::new(says, clock_or_renewal(seen));
    }
    Fault::new(
        says,
        "if it is revoked, the agent gets another one within seconds: ask again",
    )
}

/// What to do about an answer that this machine cannot use.
pub(super) fn unusable(seen: &Seen, error: &MessageError) -> Fault {
    let says = format!("the agent's answer does not verify here: {error}");
    match error {
        MessageError::Svid { source, .. } if source.dates().is_some() => {
            Fault::new(says, clock_or_renewal(seen))
        }
        MessageError::Svid { .. } | MessageError::Crl(_) => Fault::new(
            says,
            "ask again in a moment: after a revocation or a rotation the next answer fits together; if it stays so, look at the agent's log",
        ),
        _ => Fault::new(
            says,
            "is it an agent's socket? an agent of another make may send what this command does not take",
        ),
    }
}

fn clock_or_renewal(seen: &Seen) -> String {
    format!(
        "this machine says that it is {}: set its clock if that is wrong; else the agent could not renew, and its log says why",
        rfc3339(seen.now)
    )
}
