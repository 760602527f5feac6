//! The SPIFFE rules on a leaf.

use std::time::SystemTime;

use ring::digest;

use super::VerifyError;
use crate::authority::AuthorityId;
use crate::certificate::{Certificate, usage};
use crate::id::SpiffeId;
use crate::serial::SerialNumber;

/// What a leaf says about itself. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafInfo {
    /// Its ID.
    pub spiffe_id: SpiffeId,
    /// Its serial.
    pub serial: SerialNumber,
    /// Its issuer's key, from AuthorityKeyIdentifier.
    pub authority_id: AuthorityId,
    /// First second of its life.
    pub not_before: SystemTime,
    /// Last second of its life.
    pub not_after: SystemTime,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
}

/// Reads a leaf by the rules of X509-SVID §5.2 and of what we issue: one SPIFFE ID with a path, no CA,
/// digitalSignature without the signing usages, both extended usages if any, an AuthorityKeyIdentifier of 160
/// bits. Verifies nothing.
pub fn inspect_leaf(der: &[u8]) -> Result<LeafInfo, VerifyError> {
    let leaf = Certificate::parse(der)?;
    let spiffe_id = check_leaf(&leaf)?;
    let key_id = leaf.authority_key_id.and_then(|id| <[u8; 20]>::try_from(id).ok());
    let key_id = key_id.ok_or(VerifyError::NotAnSvid(
        "it has no AuthorityKeyIdentifier of 160 bits",
    ))?;
    let mut spki_sha256 = [0; 32];
    spki_sha256.copy_from_slice(digest::digest(&digest::SHA256, leaf.spki()).as_ref());
    Ok(LeafInfo {
        spiffe_id,
        serial: leaf.serial,
        authority_id: AuthorityId::from_bytes(key_id),
        not_before: leaf.not_before(),
        not_after: leaf.not_after(),
        spki_sha256,
    })
}

pub(super) fn check_leaf(leaf: &Certificate<'_>) -> Result<SpiffeId, VerifyError> {
    let refuse = |why| Err(VerifyError::NotAnSvid(why));
    let [uri] = leaf.uris.as_slice() else {
        return refuse("it has no URI name or more than one");
    };
    let id = SpiffeId::parse(uri)?;
    if id.is_trust_domain() {
        return refuse("its ID has no path");
    }
    if leaf.basic_constraints.is_some_and(|constraints| constraints.ca) {
        return refuse("it is a CA certificate");
    }
    if leaf.has_usage(usage::KEY_CERT_SIGN) || leaf.has_usage(usage::CRL_SIGN) {
        return refuse("its key usage allows signing certificates or CRLs");
    }
    if !leaf.has_usage(usage::DIGITAL_SIGNATURE) {
        return refuse("its key usage is missing or lacks digitalSignature");
    }
    if leaf
        .extended_key_usage
        .is_some_and(|eku| !eku.server_auth || !eku.client_auth)
    {
        return refuse("its extended key usage lacks serverAuth or clientAuth");
    }
    Ok(id)
}
