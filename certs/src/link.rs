//! Links: how trust in the control plane follows a rotation that a reader slept through.
//!
//! When a successor is prepared, the acting control authority certifies its key. Whoever holds only the older authority walks
//! from it over such links to a newer one, adds that, and verifies its peer as always. A walk and no path building: no leaf is
//! judged by a chain with an intermediate, and each link is one statement of one authority about one key.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo as PublicKey,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::authority::{AuthorityCertificate, AuthorityError, AuthorityId, X509Authority, ia5};
use crate::certificate::Certificate;
use crate::id::TrustDomain;
use crate::serial::SerialNumber;
use crate::signer::RcgenSigner;
use crate::time::to_datetime;

/// How long after its end an authority may still be walked from, and how long the links that it made are valid.
pub const WALK_AFTER_END: Duration = Duration::from_secs(90 * 24 * 3600);
/// Most links that a server sends and a reader walks. Authorities that live for 30 days hand over every 25: from one that ended 90 days
/// ago four lead to the one that signs.
pub const MAX_LINKS: usize = 5;
/// The application protocol that a client offers to be sent links. A server never selects it.
pub const LINKS_PROTOCOL: &[u8] = b"signet-links/1";

/// Certifies `successor`'s key by the acting authority. The certificate states no more than the successor's own: its subject, its
/// key, its trust domain. It is valid from `not_before` until [`WALK_AFTER_END`] after the acting authority's own end, so that
/// whoever holds that one finds the way for as long as it may be walked from, however long authorities live. Since no authority lets another stand below it
/// (pathLenConstraint 0), it is of no use to whoever builds paths.
///
/// # Errors
/// When the two are not of one trust domain, the acting one ended too long ago, or the key does not sign.
pub fn create_link(
    acting: &X509Authority,
    successor: &AuthorityCertificate,
    serial: SerialNumber,
    not_before: SystemTime,
) -> Result<AuthorityCertificate, AuthorityError> {
    let params = link_params(acting.certificate(), successor, serial, not_before)?;
    let failed = |error: rcgen::Error| AuthorityError::Sign(error.to_string());
    let key = PublicKey::from_der(successor.spki()).map_err(failed)?;
    let issuer = Issuer::from_params(
        acting.certificate().issuer_params()?,
        RcgenSigner(acting.signer().as_ref()),
    );
    let signed = params.signed_by(&key, &issuer).map_err(failed)?;
    let link = AuthorityCertificate::from_der(signed.der())?;
    // Whatever signed must have been the key that the authority's certificate names.
    if Certificate::parse(link.der()).is_ok_and(|parsed| is_made_by(&parsed, acting.certificate())) {
        Ok(link)
    } else {
        Err(AuthorityError::KeyMismatch)
    }
}

fn link_params(
    acting: &AuthorityCertificate,
    successor: &AuthorityCertificate,
    serial: SerialNumber,
    not_before: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let one = |domain: &&TrustDomain| acting.trust_domain() == Some(*domain);
    let domain = successor
        .trust_domain()
        .filter(one)
        .ok_or_else(|| AuthorityError::Name("a link joins two authorities of one trust domain".to_owned()))?;
    let not_after = last_walk(acting).filter(|last| *last > not_before);
    let mut params = CertificateParams::default();
    params.not_before = to_datetime(not_before);
    params.not_after = to_datetime(not_after.ok_or(AuthorityError::Validity)?);
    params.serial_number = Some(serial.as_bytes().to_vec().into());
    params.distinguished_name = successor.issuer_params()?.distinguished_name.clone();
    params.subject_alt_names = vec![SanType::URI(ia5(domain.id().as_str())?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::PreSpecified(successor.key_id().to_vec());
    Ok(params)
}

/// What `links` lead to from `anchors` at `now`: the authorities at which a walk arrived, in the order walked, each as its link
/// shows it. Nothing leads from an anchor that ended more than [`WALK_AFTER_END`] ago, over a link that is not valid now or of
/// another trust domain, or from, over or to an authority that is `refused`. At most [`MAX_LINKS`] links are looked at, the first
/// ones.
#[must_use]
pub fn walk(
    anchors: &[AuthorityCertificate],
    links: &[AuthorityCertificate],
    trust_domain: &TrustDomain,
    refused: impl Fn(&AuthorityId) -> bool,
    now: SystemTime,
) -> Vec<AuthorityCertificate> {
    let usable = |link: &&AuthorityCertificate| {
        link.is_valid_at(now) && link.trust_domain() == Some(trust_domain) && !refused(&link.id())
    };
    let looked_at = links.iter().take(MAX_LINKS).filter(usable);
    let mut open: Vec<(&AuthorityCertificate, Certificate<'_>)> = looked_at
        .filter_map(|link| Some((link, Certificate::parse(link.der()).ok()?)))
        .collect();
    let starts: Vec<&AuthorityCertificate> = anchors
        .iter()
        .filter(|anchor| !refused(&anchor.id()) && last_walk(anchor).is_none_or(|last| now <= last))
        .collect();
    let mut reached: Vec<AuthorityCertificate> = Vec::new();
    // Each round takes a link away, so loops end.
    loop {
        let known = |id: AuthorityId| reached.iter().any(|authority| authority.id() == id);
        let next = open.iter().position(|(link, parsed)| {
            let mut makers = starts.iter().copied().chain(&reached);
            !known(link.id()) && makers.any(|maker| is_made_by(parsed, maker))
        });
        let Some(next) = next else { return reached };
        reached.push(open.swap_remove(next).0.clone());
    }
}

/// The last moment at which `authority` may be walked from; none where time does not reach that far.
fn last_walk(authority: &AuthorityCertificate) -> Option<SystemTime> {
    authority.not_after().checked_add(WALK_AFTER_END)
}

/// Whether `maker`'s key signed `link` under `maker`'s name.
fn is_made_by(link: &Certificate<'_>, maker: &AuthorityCertificate) -> bool {
    // A signature is looked at only where the names agree: strangers may send what they like.
    if link.x509.issuer().as_raw() != maker.subject_der() || link.authority_key_id != Some(maker.key_id()) {
        return false;
    }
    let Ok((_, key)) = SubjectPublicKeyInfo::from_der(maker.spki()) else {
        return false;
    };
    link.x509.verify_signature(Some(&key)).is_ok()
}

#[cfg(test)]
mod tests;
