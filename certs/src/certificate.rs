//! Reads a certificate strictly and lists what SPIFFE rules are about. Judges nothing beyond its form.

use std::ops::Deref;
use std::time::SystemTime;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::{FromDer, X509Version};

use crate::der::{self, DerError};
use crate::serial::{SerialError, SerialNumber};
use crate::time::from_unix_seconds;

/// More extensions than any certificate needs.
pub(crate) const MAX_EXTENSIONS: usize = 32;

/// Why bytes are no certificate that anything here may use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not strict DER.
    #[error("not DER: {0}")]
    Der(#[from] DerError),
    /// DER of something else, or an extension that does not parse.
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    /// Only v3 has extensions.
    #[error("the certificate has version {0}; v3 is required")]
    Version(u32),
    /// RFC 5280 §4.2.
    #[error("extension {0} occurs twice")]
    DuplicateExtension(String),
    /// RFC 5280 §4.2: an unknown critical extension must not be ignored.
    #[error("critical extension {0} is not known")]
    UnknownCritical(String),
    /// The serial is not positive or too long.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// The two signature algorithm fields differ.
    #[error("the inner and outer signature algorithms differ")]
    AlgorithmMismatch,
}

/// KeyUsage bits as x509-parser numbers them.
pub(crate) mod usage {
    pub(crate) const DIGITAL_SIGNATURE: u16 = 1;
    pub(crate) const KEY_CERT_SIGN: u16 = 1 << 5;
    pub(crate) const CRL_SIGN: u16 = 1 << 6;
}

/// BasicConstraints, with its encoding because clients look at it.
#[derive(Clone, Copy)]
pub(crate) struct BasicConstraints<'a> {
    pub(crate) critical: bool,
    pub(crate) ca: bool,
    /// How many authorities may stand between it and a leaf.
    pub(crate) path_len: Option<u32>,
    pub(crate) value: &'a [u8],
}

/// ExtendedKeyUsage reduced to what SPIFFE asks.
#[derive(Clone, Copy)]
pub(crate) struct ExtendedKeyUsage {
    pub(crate) server_auth: bool,
    pub(crate) client_auth: bool,
    /// Whether it holds anything else, anyExtendedKeyUsage included.
    pub(crate) others: bool,
}

/// A certificate, read; what its extensions say is reached through it.
pub(crate) struct Certificate<'a> {
    pub(crate) x509: X509Certificate<'a>,
    pub(crate) serial: SerialNumber,
    extensions: Extensions<'a>,
}

impl<'a> Deref for Certificate<'a> {
    type Target = Extensions<'a>;

    fn deref(&self) -> &Extensions<'a> {
        &self.extensions
    }
}

/// What the extensions say that matters here.
#[derive(Default)]
pub(crate) struct Extensions<'a> {
    pub(crate) basic_constraints: Option<BasicConstraints<'a>>,
    /// Criticality and bits.
    pub(crate) key_usage: Option<(bool, u16)>,
    pub(crate) extended_key_usage: Option<ExtendedKeyUsage>,
    /// Whether SubjectAltName is there, and critical.
    pub(crate) san_critical: Option<bool>,
    pub(crate) uris: Vec<&'a str>,
    pub(crate) dns_names: Vec<&'a str>,
    /// Names of other kinds, malformed ones included.
    pub(crate) other_names: usize,
    pub(crate) subject_key_id: Option<&'a [u8]>,
    pub(crate) authority_key_id: Option<&'a [u8]>,
    /// The raw content of CRLDistributionPoints.
    pub(crate) crl_points: Option<&'a [u8]>,
    /// Non-critical extensions that nothing here knows.
    pub(crate) unknown: usize,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(input: &'a [u8]) -> Result<Self, CertificateError> {
        let parts = der::signed(input)?;
        let (_, x509) = X509Certificate::from_der(input).map_err(malformed)?;
        if x509.tbs_certificate.as_ref().len() != parts.tbs.len() {
            return Err(CertificateError::Malformed(
                "unexpected fields after the extensions".to_owned(),
            ));
        }
        if x509.version != X509Version::V3 {
            return Err(CertificateError::Version(x509.version.0));
        }
        // After version and serial.
        if !parts.has_inner_algorithm_at(2) {
            return Err(CertificateError::AlgorithmMismatch);
        }
        Ok(Self {
            serial: SerialNumber::from_der_integer(x509.raw_serial())?,
            extensions: Extensions::read(x509.extensions())?,
            x509,
        })
    }

    pub(crate) fn not_before(&self) -> SystemTime {
        from_unix_seconds(self.x509.validity().not_before.timestamp())
    }

    pub(crate) fn not_after(&self) -> SystemTime {
        from_unix_seconds(self.x509.validity().not_after.timestamp())
    }

    pub(crate) fn spki(&self) -> &'a [u8] {
        self.x509.tbs_certificate.subject_pki.raw
    }
}

impl<'a> Extensions<'a> {
    fn read(list: &[X509Extension<'a>]) -> Result<Self, CertificateError> {
        // The search for doubles compares each with each.
        if list.len() > MAX_EXTENSIONS {
            return Err(CertificateError::Malformed(format!(
                "{} extensions; the limit is {MAX_EXTENSIONS}",
                list.len()
            )));
        }
        let mut extensions = Self::default();
        for (index, extension) in list.iter().enumerate() {
            if list
                .iter()
                .take(index)
                .any(|earlier| earlier.oid == extension.oid)
            {
                return Err(CertificateError::DuplicateExtension(extension.oid.to_id_string()));
            }
            extensions.read_extension(extension)?;
        }
        Ok(extensions)
    }

    fn read_extension(&mut self, extension: &X509Extension<'a>) -> Result<(), CertificateError> {
        let critical = extension.critical;
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => {
                let ca = constraints.ca;
                self.basic_constraints = Some(BasicConstraints {
                    critical,
                    ca,
                    path_len: constraints.path_len_constraint,
                    value: extension.value,
                });
            }
            ParsedExtension::KeyUsage(usage) => self.key_usage = Some((critical, usage.flags)),
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.extended_key_usage = Some(ExtendedKeyUsage {
                    server_auth: usage.server_auth,
                    client_auth: usage.client_auth,
                    others: usage.any
                        || usage.code_signing
                        || usage.email_protection
                        || usage.time_stamping
                        || usage.ocsp_signing
                        || !usage.other.is_empty(),
                });
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                self.san_critical = Some(critical);
                names.general_names.iter().for_each(|name| self.read_name(name));
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0);
            }
            ParsedExtension::CRLDistributionPoints(_) => self.crl_points = Some(extension.value),
            ParsedExtension::ParseError { error } => {
                return Err(CertificateError::Malformed(format!(
                    "extension {}: {error}",
                    extension.oid
                )));
            }
            // Path validation is webpki's; it understands name constraints.
            ParsedExtension::NameConstraints(_) => {}
            _ if critical => return Err(CertificateError::UnknownCritical(extension.oid.to_id_string())),
            _ => self.unknown += 1,
        }
        Ok(())
    }

    fn read_name(&mut self, name: &GeneralName<'a>) {
        match name {
            GeneralName::URI(uri) => self.uris.push(uri),
            // A URI that is not even text still counts as one.
            GeneralName::Invalid(tag, _) if tag.0 == 6 => self.uris.push("\u{fffd}"),
            GeneralName::DNSName(name) => self.dns_names.push(name),
            _ => self.other_names += 1,
        }
    }

    pub(crate) fn has_usage(&self, bit: u16) -> bool {
        self.key_usage.is_some_and(|(_, bits)| bits & bit != 0)
    }
}

fn malformed(error: impl std::fmt::Display) -> CertificateError {
    CertificateError::Malformed(error.to_string())
}
