//! Decides what a leaf will say.

use std::net::IpAddr;
use std::time::SystemTime;

use super::{MAX_DNS_NAMES, Purpose, SvidError, SvidProfile, SvidTemplate};
use crate::authority::{AuthorityCertificate, AuthorityId};
use crate::id::{SpiffeId, TrustDomain};
use crate::serial::SerialNumber;
use crate::time::whole_seconds;

/// Decides what a leaf says. Refuses IDs without a path, of another trust domain, or of the other purpose,
/// and DNS names that are none; caps the end at the authority's.
pub fn template(
    profile: &SvidProfile,
    purpose: Purpose,
    spiffe_id: SpiffeId,
    dns_names: Vec<String>,
    serial: SerialNumber,
    authority: &AuthorityCertificate,
    now: SystemTime,
) -> Result<SvidTemplate, SvidError> {
    check_identity(&spiffe_id, purpose, authority)?;
    check_dns_names(&dns_names)?;
    authority.check_valid_at(now)?;
    let now = whole_seconds(now);
    let not_before = now
        .checked_sub(profile.clock_skew)
        .unwrap_or(now)
        .max(authority.not_before());
    let not_after = now
        .checked_add(profile.ttl)
        .unwrap_or_else(|| authority.not_after())
        .min(authority.not_after());
    let (not_before, not_after) = (whole_seconds(not_before), whole_seconds(not_after));
    if not_after <= now {
        return Err(if profile.ttl.as_secs() == 0 {
            SvidError::Lifetime
        } else {
            authority.expired(now).into()
        });
    }
    let crl_url = profile
        .crl_base_url
        .as_deref()
        .map(|base| crl_url(base, authority.id()))
        .transpose()?;
    Ok(SvidTemplate {
        spiffe_id,
        dns_names,
        not_before,
        not_after,
        serial,
        crl_url,
    })
}

fn check_identity(
    id: &SpiffeId,
    purpose: Purpose,
    authority: &AuthorityCertificate,
) -> Result<(), SvidError> {
    let why = if id.is_trust_domain() {
        "it has no path, which only the trust domain itself may have"
    } else if authority.trust_domain().map(TrustDomain::as_str) != Some(id.trust_domain_name()) {
        "the authority belongs to another trust domain"
    } else if purpose == Purpose::Workload && id.is_reserved() {
        "paths below /signet are kept for servers and agents"
    } else if purpose == Purpose::Control && !id.is_reserved() {
        "servers and agents have paths below /signet"
    } else {
        return Ok(());
    };
    Err(SvidError::Identity { id: id.clone(), why })
}

/// Whether every name can stand in a certificate: LDH labels in lower case, no wildcard, no address, none
/// twice.
pub fn check_dns_names(names: &[String]) -> Result<(), SvidError> {
    if names.len() > MAX_DNS_NAMES {
        return Err(SvidError::TooManyDnsNames(names.len()));
    }
    for (index, name) in names.iter().enumerate() {
        let why = match dns_name_fault(name) {
            None if names.iter().take(index).any(|earlier| earlier == name) => "it is given twice",
            None => continue,
            Some(why) => why,
        };
        return Err(SvidError::DnsName {
            name: name.chars().take(80).collect(),
            why,
        });
    }
    Ok(())
}

fn dns_name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 253 {
        return Some("a name has 1 to 253 bytes");
    }
    if name.parse::<IpAddr>().is_ok() {
        return Some("it is an IP address");
    }
    name.split('.').find_map(label_fault)
}

fn label_fault(label: &str) -> Option<&'static str> {
    let ldh = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if label.is_empty() || label.len() > 63 {
        Some("a label has 1 to 63 bytes")
    } else if !label.bytes().all(ldh) {
        Some("labels hold a-z 0-9 - only")
    } else if label.starts_with('-') || label.ends_with('-') {
        Some("a label does not begin or end with a hyphen")
    } else {
        None
    }
}

/// Where the CRL of `authority` is found below `base`.
pub fn crl_url(base: &str, authority: AuthorityId) -> Result<String, SvidError> {
    let host = base
        .strip_prefix("http://")
        .or_else(|| base.strip_prefix("https://"));
    let plain = |host: &str| {
        !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'@'))
    };
    if !host.is_some_and(plain) {
        return Err(SvidError::CrlUrl(base.to_owned()));
    }
    Ok(format!("{}/crl/{authority}.crl", base.trim_end_matches('/')))
}
