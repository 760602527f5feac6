//! Reads the authorities in a message.

use std::collections::HashMap;

use bytes::Bytes;
use signet_certs::authority::AuthorityCertificate;
use signet_certs::id::TrustDomain;
use signet_certs::split_certificates;
use signet_proto::workload::X509svidResponse;

use super::{MAX_ELEMENTS, MessageError, parse_id};
use crate::policy::Federated;

/// Authorities as they are read: by trust domain, which are never merged.
pub(super) type Domains = Vec<(TrustDomain, Vec<AuthorityCertificate>)>;

/// The bundles that come with our SVIDs, one for each trust domain.
pub(super) fn own_bundles(message: &X509svidResponse) -> Result<Vec<(TrustDomain, &[u8])>, MessageError> {
    let mut bundles: Vec<(TrustDomain, &[u8])> = Vec::new();
    for entry in &message.svids {
        let domain = parse_id(&entry.spiffe_id)?.trust_domain();
        match bundles.iter().find(|(known, _)| *known == domain) {
            None => bundles.push((domain, &entry.bundle)),
            Some((_, bundle)) if *bundle == entry.bundle => {}
            Some(_) => {
                let problem = "two SVIDs bring different ones".to_owned();
                return Err(MessageError::Bundle {
                    trust_domain: domain,
                    problem,
                });
            }
        }
    }
    Ok(bundles)
}

/// Foreign domains' bundles; unusable ones are left out, so that their peers are refused. Our own domain never counts as
/// foreign, or its entry could replace the real one.
pub(super) fn foreign_bundles(
    bundles: &HashMap<String, Bytes>,
    own: &Domains,
    federated: &Federated,
) -> Domains {
    let mut foreign: Domains = Vec::new();
    for (name, bundle) in bundles {
        let read = TrustDomain::parse_lenient(name)
            .map_err(|error| error.to_string())
            .and_then(|domain| Ok((authorities(&domain, bundle)?, domain)));
        match read {
            Ok((_, domain)) if own.iter().chain(&foreign).any(|(known, _)| *known == domain) => {
                tracing::warn!(trust_domain = %domain, "a second bundle of this trust domain is not used");
            }
            Ok((_, domain)) if !federated.takes(&domain) => {
                tracing::debug!(trust_domain = %domain, "a trust domain is left out, as the program wants");
            }
            Ok((authorities, domain)) => foreign.push((domain, authorities)),
            Err(error) => tracing::warn!(trust_domain = name, error, "a federated bundle is not used"),
        }
    }
    foreign
}

pub(super) fn authorities(domain: &TrustDomain, bundle: &[u8]) -> Result<Vec<AuthorityCertificate>, String> {
    let certificates = split_certificates(bundle).map_err(|error| error.to_string())?;
    if certificates.is_empty() || certificates.len() > MAX_ELEMENTS {
        return Err(format!(
            "it holds {} authorities, not 1 to {MAX_ELEMENTS}",
            certificates.len()
        ));
    }
    let read = |der: &[u8]| {
        let certificate = AuthorityCertificate::from_der(der).map_err(|error| error.to_string())?;
        match certificate.trust_domain() {
            Some(stated) if stated != domain => Err(format!("an authority in it belongs to {stated}")),
            _ => Ok(certificate),
        }
    };
    certificates.into_iter().map(read).collect()
}
