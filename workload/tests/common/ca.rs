//! A small certificate authority at a fixed moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use rustls::pki_types::CertificateDer;
use signet_certs::authority::{AuthorityKind, AuthorityProfile, X509Authority, create_authority};
use signet_certs::crl::{Crl, CrlNumber, RevocationReason, RevokedEntry, sign_crl};
use signet_certs::csr::{create_csr, verify_csr};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use signet_certs::signer::{LeafKey, LocalSigner};
use signet_certs::svid::{Purpose, SvidProfile, sign, template};
use signet_certs::verify::{TrustRoots, TrustedAuthority};
use signet_proto::workload::{X509svid, X509svidResponse};

/// The moment at which all tests happen.
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub struct Ca {
    pub domain: TrustDomain,
    pub authority: X509Authority,
}

pub struct Leaf {
    pub id: SpiffeId,
    pub serial: SerialNumber,
    pub der: Vec<u8>,
    pub key: Vec<u8>,
}

fn serial(salt: &[u8]) -> SerialNumber {
    let mut random = [0; 13];
    random.copy_from_slice(&ring::digest::digest(&ring::digest::SHA256, salt).as_ref()[..13]);
    SerialNumber::generate(now(), &random)
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let domain = domain(name);
        let (signer, _sealed) = LocalSigner::generate(&SystemRandom::new()).unwrap();
        let profile = AuthorityProfile {
            trust_domain: domain.clone(),
            kind: AuthorityKind::X509,
            not_before: now() - Duration::from_secs(3600),
            not_after: now() + Duration::from_secs(7 * 86_400),
            serial: serial(b"authority"),
        };
        let certificate = create_authority(&profile, &signer).unwrap();
        let authority = X509Authority::new(certificate, Arc::new(signer)).unwrap();
        Self { domain, authority }
    }

    /// A leaf that lives for an hour.
    pub fn leaf(&self, path: &str) -> Leaf {
        self.leaf_living(path, Duration::from_secs(3600))
    }

    pub fn leaf_living(&self, path: &str, ttl: Duration) -> Leaf {
        let key = LeafKey::generate(&SystemRandom::new()).unwrap();
        let id = id(&format!("spiffe://{}{path}", self.domain));
        let serial = serial(&key.public_key_spki());
        let profile = SvidProfile {
            ttl,
            clock_skew: Duration::from_secs(120),
            crl_base_url: None,
        };
        let certificate = &self.authority.certificate;
        let template = template(
            &profile,
            Purpose::Workload,
            id.clone(),
            vec![],
            serial,
            certificate,
            now(),
        )
        .unwrap();
        let public = verify_csr(&create_csr(&key).unwrap()).unwrap();
        let der = sign(&template, &public, &self.authority).unwrap();
        Leaf {
            id,
            serial,
            der,
            key: key.pkcs8_der().to_vec(),
        }
    }

    /// A CRL that is current for two hours.
    pub fn crl(&self, number: u64, revoked: &[&Leaf]) -> Crl {
        let entry = |leaf: &&Leaf| RevokedEntry {
            serial: leaf.serial,
            revoked_at: now(),
            reason: RevocationReason::KeyCompromise,
        };
        let entries: Vec<RevokedEntry> = revoked.iter().map(entry).collect();
        let end = now() + Duration::from_secs(7200);
        sign_crl(
            &self.authority,
            &entries,
            CrlNumber(number),
            now() - Duration::from_secs(60),
            end,
        )
        .unwrap()
    }

    pub fn bundle(&self) -> Vec<u8> {
        self.authority.certificate.der().to_vec()
    }
}

impl Leaf {
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(self.der.clone())]
    }

    /// The entry of the Workload API's message.
    pub fn entry(&self, bundle: &[u8]) -> X509svid {
        X509svid {
            spiffe_id: self.id.to_string(),
            x509_svid: self.der.clone().into(),
            x509_svid_key: self.key.clone().into(),
            bundle: bundle.to_vec().into(),
            hint: String::new(),
        }
    }
}

/// A whole message about one leaf.
pub fn message(leaf: &Leaf, authorities: &[&Ca], crls: &[&Crl]) -> X509svidResponse {
    let bundle = authorities.iter().flat_map(|ca| ca.bundle()).collect::<Vec<u8>>();
    X509svidResponse {
        svids: vec![leaf.entry(&bundle)],
        crl: crls.iter().map(|crl| crl.der().clone()).collect(),
        federated_bundles: HashMap::new(),
    }
}

/// Roots as a message would give them.
pub fn roots(authorities: &[(&Ca, Option<&Crl>)]) -> TrustRoots {
    let trusted = |(ca, crl): &(&Ca, Option<&Crl>)| {
        let authority = TrustedAuthority {
            certificate: ca.authority.certificate.clone(),
            crl: crl.cloned(),
        };
        (ca.domain.clone(), vec![authority])
    };
    TrustRoots::new(authorities.iter().map(trusted).collect())
}
