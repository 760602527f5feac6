//! X.509-SVIDs in three steps: [`template`] decides what the leaf will say, [`sign`] makes it, [`check`]
//! reads it back.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CrlDistributionPoint, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, SanType,
};

use crate::authority::{AuthorityCertificate, AuthorityError, AuthorityId, X509Authority, ia5};
use crate::certificate::{Certificate, CertificateError, usage};
use crate::csr::{CsrError, WorkloadPublicKey};
use crate::id::{SpiffeId, TrustDomain};
use crate::serial::SerialNumber;
use crate::signer::{LeafKey, RcgenSigner};
use crate::time::{to_datetime, whole_seconds};
use crate::verify::{LeafInfo, VerifyError, inspect_leaf};

/// Most DNS names in one leaf.
pub const MAX_DNS_NAMES: usize = 64;

/// BasicConstraints with cA left at its default: an empty SEQUENCE.
const NOT_A_CA: [u8; 2] = [0x30, 0x00];

/// Why no certificate was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// An ID that no leaf may carry.
    #[error("{id} cannot be issued: {why}")]
    Identity {
        /// The ID asked for.
        id: SpiffeId,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A DNS name that is not one.
    #[error("`{name}` cannot be a DNS name in a certificate: {why}")]
    DnsName {
        /// The name, shortened.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Too many DNS names.
    #[error("{0} DNS names; the limit is {MAX_DNS_NAMES}")]
    TooManyDnsNames(usize),
    /// The base of the CRL's address cannot stand in a certificate.
    #[error("the CRL base URL `{0}` is not a plain http:// or https:// address")]
    CrlUrl(String),
    /// The authority is not valid now.
    #[error("authority {0} is expired or not yet valid; rotate it")]
    AuthorityNotValid(AuthorityId),
    /// A profile under which nothing would live.
    #[error("the certificate's lifetime is zero")]
    Lifetime,
    /// The authority cannot sign this.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A key that must not be certified.
    #[error(transparent)]
    Key(#[from] CsrError),
    /// The key did not sign.
    #[error("signing failed: {0}")]
    Sign(String),
    /// The leaf does not say what it should. Never hand it out.
    #[error("the signed certificate is wrong: {0}")]
    Wrong(String),
}

/// Limits that hold for every leaf.
#[derive(Clone, Debug)]
pub struct SvidProfile {
    /// How long a leaf lives from now.
    pub ttl: Duration,
    /// How far notBefore lies in the past, for peers whose clocks are behind.
    pub clock_skew: Duration,
    /// Where CRLs are served; the leaf names `<base>/crl/<authority id>.crl`. Without it no address is
    /// written.
    pub crl_base_url: Option<String>,
}

/// Whom a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A workload: never an ID below `/signet`.
    Workload,
    /// A server or agent of ours: only IDs below `/signet`.
    Control,
}

/// What a leaf will say, besides its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidTemplate {
    /// The one URI name.
    pub spiffe_id: SpiffeId,
    /// DNS names beside it.
    pub dns_names: Vec<String>,
    /// Begin, whole seconds.
    pub not_before: SystemTime,
    /// End, whole seconds, never after the authority's.
    pub not_after: SystemTime,
    /// The reserved serial.
    pub serial: SerialNumber,
    /// The CRL's address.
    pub crl_url: Option<String>,
}

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
    if !authority.is_valid_at(now) {
        return Err(SvidError::AuthorityNotValid(authority.id()));
    }
    let now = whole_seconds(now);
    let not_before = now
        .checked_sub(profile.clock_skew)
        .unwrap_or(now)
        .max(authority.not_before());
    let not_after = now
        .checked_add(profile.ttl)
        .unwrap_or(authority.not_after())
        .min(authority.not_after());
    let (not_before, not_after) = (whole_seconds(not_before), whole_seconds(not_after));
    if not_after <= now {
        return Err(if profile.ttl.as_secs() == 0 {
            SvidError::Lifetime
        } else {
            SvidError::AuthorityNotValid(authority.id())
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

/// Signs the leaf. Takes about as long as one signature; a remote key blocks.
pub fn sign(
    template: &SvidTemplate,
    key: &WorkloadPublicKey,
    authority: &X509Authority,
) -> Result<Vec<u8>, SvidError> {
    authority.check_key()?;
    key.refuse_authority_keys(&[authority.certificate.id()])?;
    let params = leaf_params(template, key)?;
    let issuer = Issuer::from_params(
        authority.certificate.issuer_params()?,
        RcgenSigner(authority.signer.as_ref()),
    );
    let leaf = params
        .signed_by(key, &issuer)
        .map_err(|error| SvidError::Sign(error.to_string()))?;
    Ok(leaf.der().to_vec())
}

fn leaf_params(template: &SvidTemplate, key: &WorkloadPublicKey) -> Result<CertificateParams, SvidError> {
    let mut params = CertificateParams::default();
    params.not_before = to_datetime(template.not_before);
    params.not_after = to_datetime(template.not_after);
    params.serial_number = Some(template.serial.as_bytes().to_vec().into());
    // An empty subject, by which rcgen makes the SAN critical.
    params.distinguished_name = DistinguishedName::new();
    params
        .subject_alt_names
        .push(SanType::URI(ia5(template.spiffe_id.as_str())?));
    for name in &template.dns_names {
        params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
    }
    // rust- and py-spiffe refuse a leaf without BasicConstraints; this writes them, empty.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.crl_distribution_points = template
        .crl_url
        .iter()
        .map(|url| CrlDistributionPoint {
            uris: vec![url.clone()],
        })
        .collect();
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::PreSpecified(key.key_id().as_bytes().to_vec());
    Ok(params)
}

/// Reads a signed leaf back and compares it with what was asked for (conformance X509-01…16). The signature
/// itself is not verified: it was made a moment ago.
pub fn check(
    leaf: &[u8],
    template: &SvidTemplate,
    key: &WorkloadPublicKey,
    authority: &AuthorityCertificate,
) -> Result<(), SvidError> {
    let certificate =
        Certificate::parse(leaf).map_err(|error: CertificateError| SvidError::Wrong(error.to_string()))?;
    check_fields(&certificate, template, key, authority).map_err(|what| SvidError::Wrong(what.to_owned()))
}

fn check_fields(
    leaf: &Certificate<'_>,
    template: &SvidTemplate,
    key: &WorkloadPublicKey,
    authority: &AuthorityCertificate,
) -> Result<(), &'static str> {
    let expect = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
    expect(leaf.uris == [template.spiffe_id.as_str()], "the URI name")?;
    expect(!template.spiffe_id.is_trust_domain(), "an ID without path")?;
    expect(
        leaf.dns_names == template.dns_names && leaf.other_names == 0,
        "the DNS names",
    )?;
    expect(
        leaf.x509.subject().iter().next().is_none(),
        "the subject is not empty",
    )?;
    expect(leaf.san_critical == Some(true), "SubjectAltName is not critical")?;
    expect(
        leaf.basic_constraints
            .is_some_and(|c| c.critical && !c.ca && c.value == NOT_A_CA),
        "BasicConstraints",
    )?;
    expect(
        leaf.key_usage == Some((true, usage::DIGITAL_SIGNATURE)),
        "KeyUsage",
    )?;
    expect(
        leaf.extended_key_usage
            .is_some_and(|eku| eku.server_auth && eku.client_auth && !eku.others),
        "ExtendedKeyUsage",
    )?;
    expect(leaf.serial == template.serial, "the serial")?;
    expect(
        leaf.not_before() == template.not_before && leaf.not_after() == template.not_after,
        "the validity",
    )?;
    expect(
        leaf.not_after() <= authority.not_after(),
        "it outlives its authority",
    )?;
    expect(leaf.spki() == key.spki_der(), "the public key")?;
    expect(
        leaf.subject_key_id == Some(key.key_id().as_bytes().as_slice()),
        "SubjectKeyIdentifier",
    )?;
    expect(
        leaf.authority_key_id == Some(authority.key_id()),
        "AuthorityKeyIdentifier",
    )?;
    expect(
        leaf.x509.issuer().as_raw() == authority.subject_der(),
        "the issuer's name",
    )?;
    expect(
        crl_points_match(leaf.crl_points, template.crl_url.as_deref()),
        "CRLDistributionPoints",
    )?;
    expect(leaf.unknown == 0, "an extension that was not asked for")
}

/// The address is the last and only string in the extension.
fn crl_points_match(points: Option<&[u8]>, url: Option<&str>) -> bool {
    match (points, url) {
        (None, None) => true,
        (Some(points), Some(url)) => points.ends_with(url.as_bytes()),
        _ => false,
    }
}

/// A workload's certificate chain with its private key. `Debug` shows neither.
pub struct X509Svid {
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The private key.
    pub key: LeafKey,
    /// The leaf's ID.
    pub spiffe_id: SpiffeId,
    /// The leaf's serial.
    pub serial: SerialNumber,
    /// Who signed the leaf.
    pub authority_id: AuthorityId,
    /// First second of the leaf's life.
    pub not_before: SystemTime,
    /// Last second of the leaf's life.
    pub not_after: SystemTime,
}

impl X509Svid {
    /// Joins a chain and its key: the leaf obeys the SPIFFE rules and holds that key, what follows are
    /// authorities. No signature is verified.
    pub fn new(chain: Vec<Vec<u8>>, key: LeafKey) -> Result<Self, VerifyError> {
        let (leaf, above) = chain.split_first().ok_or(VerifyError::EmptyChain)?;
        let LeafInfo {
            spiffe_id,
            serial,
            authority_id,
            not_before,
            not_after,
            ..
        } = inspect_leaf(leaf)?;
        if Certificate::parse(leaf)?.spki() != key.public_key_spki() {
            return Err(VerifyError::KeyMismatch);
        }
        for der in above {
            AuthorityCertificate::from_der(der).map_err(|error| VerifyError::Chain(error.to_string()))?;
        }
        Ok(Self {
            spiffe_id,
            serial,
            authority_id,
            not_before,
            not_after,
            chain,
            key,
        })
    }

    /// The chain as one run of DER, leaf first, as the Workload API carries it.
    #[must_use]
    pub fn chain_der(&self) -> Vec<u8> {
        self.chain.concat()
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("serial", &self.serial)
            .field("authority_id", &self.authority_id)
            .finish_non_exhaustive()
    }
}
