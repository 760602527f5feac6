//! What is wrong with objects that lie side by side.

use std::time::SystemTime;

use signet_certs::authority::AuthorityCertificate;
use signet_certs::crl::Crl;
use signet_certs::dates::OutsideDates;

use super::{Found, Paper};

/// What a person should know, one line each. Only what is there is held against each other: a leaf without authorities beside it is judged
/// by its dates alone.
pub(crate) fn troubles(found: &[Found], now: SystemTime) -> Vec<String> {
    let authorities: Vec<&AuthorityCertificate> = found.iter().filter_map(authority).collect();
    let mut troubles = Vec::new();
    for one in found {
        let mut say = |what: String| troubles.push(format!("{}: {what}", one.file.display()));
        if let Some((begins, Some(ends))) = one.paper.dates()
            && let Err(outside) = OutsideDates::check(begins, ends, now)
        {
            say(format!("the {} {outside}", one.paper.kind()));
        }
        match &one.paper {
            Paper::Svid(leaf, _) => {
                let issuer = |authority: &&AuthorityCertificate| authority.id() == leaf.authority_id;
                if !authorities.is_empty() && !authorities.iter().any(issuer) {
                    say(format!(
                        "no authority here has issued it, that would be {}",
                        leaf.authority_id
                    ));
                }
                let lists = found.iter().filter_map(|found| list(found, &authorities)?.ok());
                if lists
                    .into_iter()
                    .any(|crl| crl.authority_id() == leaf.authority_id && crl.is_revoked(&leaf.serial))
                {
                    say(format!(
                        "{} is revoked: serial {} is on the list",
                        leaf.spiffe_id, leaf.serial
                    ));
                }
            }
            Paper::Crl(..) => {
                if let Some(Err(why)) = list(one, &authorities) {
                    say(why);
                }
            }
            Paper::Key { spki_sha256, is_open } => {
                if *is_open {
                    say("everybody on this machine may read the key".to_owned());
                }
                let mut leaves = found.iter().filter_map(leaf_key).peekable();
                if leaves.peek().is_some() && !leaves.any(|leaf| leaf == spki_sha256) {
                    say("the key belongs to none of the certificates here".to_owned());
                }
            }
            Paper::Unusable { label, why } => say(format!("unusable {label}: {why}")),
            Paper::Authority(_) => {}
        }
    }
    for authority in without_list(found, &authorities) {
        troubles.push(format!(
            "authority {authority} has no list here: where every authority needs one, all of its peers are refused"
        ));
    }
    troubles
}

fn authority(found: &Found) -> Option<&AuthorityCertificate> {
    match &found.paper {
        Paper::Authority(authority) => Some(authority),
        _ => None,
    }
}

fn leaf_key(found: &Found) -> Option<&[u8; 32]> {
    match &found.paper {
        Paper::Svid(leaf, _) => Some(&leaf.spki_sha256),
        _ => None,
    }
}

/// The list in it, verified by the authorities that are there; or why it is not. None where nothing can be said.
fn list(found: &Found, authorities: &[&AuthorityCertificate]) -> Option<Result<Crl, String>> {
    let Paper::Crl(info, der) = &found.paper else {
        return None;
    };
    if authorities.is_empty() {
        return None;
    }
    let issuer = authorities
        .iter()
        .find(|authority| Some(authority.id()) == info.authority_id);
    Some(match issuer {
        Some(issuer) => Crl::verify(der, issuer).map_err(|error| error.to_string()),
        None => Err("no authority here has signed the list".to_owned()),
    })
}

/// Only where there are lists at all: whoever looks at a bundle alone knows that.
fn without_list(found: &[Found], authorities: &[&AuthorityCertificate]) -> Vec<String> {
    let listed: Vec<_> = found
        .iter()
        .filter_map(|found| match &found.paper {
            Paper::Crl(info, _) => info.authority_id,
            _ => None,
        })
        .collect();
    if listed.is_empty() {
        return Vec::new();
    }
    let lacking = authorities
        .iter()
        .map(|authority| authority.id())
        .filter(|id| !listed.contains(id));
    lacking.map(|id| id.to_string()).collect()
}
