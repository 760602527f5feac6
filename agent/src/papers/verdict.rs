//! Whether a leaf verifies.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use signet_certs::authority::AuthorityCertificate;
use signet_certs::crl::Crl;
use signet_certs::id::SpiffeId;
use signet_certs::verify::{CrlPolicy, Role, TrustRoots, TrustedAuthority, VerifiedSvid, verify_chain};

use super::{Found, Paper};

/// What is held against what.
pub(crate) struct Asked<'a> {
    /// The leaf, what stands above it, perhaps its key.
    pub svid: &'a [Found],
    /// Authorities, perhaps with lists.
    pub bundle: &'a [Found],
    /// Whether revocation counts: a leaf of an authority without a current list is refused then.
    pub lists: bool,
    pub id: Option<&'a SpiffeId>,
}

/// Verifies as a peer would.
///
/// # Errors
/// With the reason why not.
pub(crate) fn verify(asked: &Asked<'_>, now: SystemTime) -> Result<VerifiedSvid, String> {
    let leaf = asked.svid.iter().find_map(|found| match &found.paper {
        Paper::Svid(leaf, der) => Some((leaf, der)),
        _ => None,
    });
    let Some((leaf, der)) = leaf else {
        return Err(no_leaf(asked.svid));
    };
    let mut chain = vec![CertificateDer::from(der.as_slice())];
    chain.extend(asked.svid.iter().filter_map(|found| match &found.paper {
        Paper::Authority(above) => Some(CertificateDer::from(above.der())),
        _ => None,
    }));
    let domain = leaf.spiffe_id.trust_domain();
    let authorities = trusted(asked.bundle)?;
    if authorities.is_empty() {
        return Err("the bundle holds no authority".to_owned());
    }
    let policy = if asked.lists {
        CrlPolicy::Require
    } else {
        CrlPolicy::Tolerate
    };
    let roots = TrustRoots::new(vec![(domain, authorities)]).with_crl_policy(policy);
    let verified = verify_chain(&chain, Role::Server, &roots, now).map_err(|error| error.to_string())?;
    if let Some(id) = asked.id
        && id != verified.spiffe_id()
    {
        return Err(format!(
            "it is the identity of {}, not of {id}",
            verified.spiffe_id()
        ));
    }
    let mut keys = asked.svid.iter().filter_map(|found| match &found.paper {
        Paper::Key { spki_sha256, .. } => Some(spki_sha256),
        _ => None,
    });
    if keys.any(|key| *key != leaf.spki_sha256) {
        return Err("the key does not belong to the certificate".to_owned());
    }
    Ok(verified)
}

fn no_leaf(found: &[Found]) -> String {
    let why = found.iter().find_map(|found| match &found.paper {
        Paper::Unusable { label, why } => Some(format!(": unusable {label}: {why}")),
        _ => None,
    });
    format!("there is no SVID in it{}", why.unwrap_or_default())
}

/// Each authority with the newest of its lists. A list that does not verify would hide that somebody is revoked, so it is no list.
fn trusted(bundle: &[Found]) -> Result<Vec<TrustedAuthority>, String> {
    let mut trusted: Vec<TrustedAuthority> = Vec::new();
    for found in bundle {
        if let Paper::Authority(certificate) = &found.paper
            && !trusted
                .iter()
                .any(|known| known.certificate.id() == certificate.id())
        {
            let certificate: AuthorityCertificate = certificate.clone();
            trusted.push(TrustedAuthority {
                certificate,
                crl: None,
            });
        }
    }
    for found in bundle {
        match &found.paper {
            Paper::Crl(info, der) => {
                let issuer = trusted
                    .iter_mut()
                    .find(|one| Some(one.certificate.id()) == info.authority_id);
                let Some(issuer) = issuer else { continue };
                let crl = Crl::verify(der, &issuer.certificate)
                    .map_err(|error| format!("{}: {error}", found.file.display()))?;
                if issuer
                    .crl
                    .as_ref()
                    .is_none_or(|held| held.number() < crl.number())
                {
                    issuer.crl = Some(crl);
                }
            }
            Paper::Unusable { label, why } => {
                return Err(format!("{}: unusable {label}: {why}", found.file.display()));
            }
            _ => {}
        }
    }
    Ok(trusted)
}
