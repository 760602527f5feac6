//! A root above authorities, as an organisation keeps one.

use super::DAY;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use signet_certs::authority::{
    AuthorityCertificate, AuthorityChain, AuthorityError, AuthorityId, AuthorityProfile,
};

/// The root with its key.
pub struct Upstream {
    certificate: AuthorityCertificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self::new(BasicConstraints::Unconstrained)
    }
}

impl Upstream {
    /// A root that allows so many authorities below it.
    #[must_use]
    pub fn new(below: BasicConstraints) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Example Root");
        (params.not_before, params.not_after) = (
            (super::now() - 365 * DAY).into(),
            (super::now() + 3650 * DAY).into(),
        );
        params.is_ca = IsCa::Ca(below);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            certificate: AuthorityCertificate::from_der(root.der()).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The root's certificate.
    #[must_use]
    pub fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// Signs what `profile` asks for over this key, after `change`.
    ///
    /// # Errors
    /// The root may not sign that.
    pub fn certify(
        &self,
        profile: &AuthorityProfile,
        spki: &[u8],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<AuthorityChain, AuthorityError> {
        let id = AuthorityId::of_spki(spki);
        let mut params = CertificateParams::default();
        params.not_before = profile.not_before.into();
        params.not_after = profile.not_after.into();
        params.distinguished_name = name(id);
        let domain = profile.trust_domain.id();
        params.subject_alt_names = vec![SanType::URI(domain.as_str().try_into().unwrap())];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = KeyIdMethod::PreSpecified(id.as_bytes().to_vec());
        change(&mut params);
        let key = SubjectPublicKeyInfo::from_der(spki).unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let own = AuthorityCertificate::from_der(signed.der()).unwrap();
        AuthorityChain::new(vec![own, self.certificate.clone()])
    }
}

/// A subject that holds the key's id.
fn name(id: AuthorityId) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Signet under Example Root");
    let serial_number = DnValue::PrintableString(id.to_string().try_into().unwrap());
    name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), serial_number);
    name
}
