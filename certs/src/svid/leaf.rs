//! Makes a leaf and reads it back.

use rcgen::{
    CertificateParams, CrlDistributionPoint, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, SanType,
};

use super::{SvidError, SvidTemplate};
use crate::authority::{AuthorityCertificate, X509Authority, ia5};
use crate::certificate::{Certificate, CertificateError, usage};
use crate::csr::WorkloadPublicKey;
use crate::signer::RcgenSigner;
use crate::time::to_datetime;

/// BasicConstraints with cA left at its default: an empty SEQUENCE.
const NOT_A_CA: [u8; 2] = [0x30, 0x00];

/// Signs the leaf. Takes about as long as one signature; a remote key blocks.
pub fn sign(
    template: &SvidTemplate,
    key: &WorkloadPublicKey,
    authority: &X509Authority,
) -> Result<Vec<u8>, SvidError> {
    key.refuse_authority_keys(&[authority.certificate().id()])?;
    let params = leaf_params(template, key)?;
    let issuer = Issuer::from_params(
        authority.certificate().issuer_params()?,
        RcgenSigner(authority.signer().as_ref()),
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
