//! Messages of the Workload API about leaves of the testkit's authorities.

use std::collections::HashMap;

use signet_certs::authority::X509Authority;
use signet_certs::crl::Crl;
use signet_certs::svid::X509Svid;
use signet_proto::workload::{X509svid, X509svidResponse};

/// A whole message about one leaf.
pub fn message(leaf: &X509Svid, authorities: &[&X509Authority], crls: &[&Crl]) -> X509svidResponse {
    X509svidResponse {
        svids: vec![entry(
            leaf,
            &authorities
                .iter()
                .map(|ca| bundle(ca))
                .collect::<Vec<_>>()
                .concat(),
        )],
        crl: crls.iter().map(|crl| crl.der().clone()).collect(),
        federated_bundles: HashMap::new(),
    }
}

/// What a message says of one leaf.
pub fn entry(leaf: &X509Svid, bundle: &[u8]) -> X509svid {
    X509svid {
        spiffe_id: leaf.spiffe_id().to_string(),
        x509_svid: leaf.chain_der().into(),
        x509_svid_key: leaf.key().pkcs8_der().to_vec().into(),
        bundle: bundle.to_vec().into(),
        hint: String::new(),
    }
}

/// A bundle of this authority alone.
pub fn bundle(authority: &X509Authority) -> Vec<u8> {
    authority.certificate().der().to_vec()
}
