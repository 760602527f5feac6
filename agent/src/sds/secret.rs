//! Turns an [`X509Context`] into Envoy's secrets. Pure: the time is an argument.

use std::time::SystemTime;

use bytes::Bytes;
use prost::Message as _;
use signet_certs::{pem, split_certificates};
use signet_proto::envoy::config::core::v3::DataSource;
use signet_proto::envoy::config::core::v3::data_source::Specifier;
use signet_proto::envoy::extensions::transport_sockets::tls::v3 as wire;
use zeroize::Zeroizing;

use super::TYPE_URL;
use super::names::{Asked, Names};
use super::node::Validator;
use crate::context::{GrantedSvid, X509Context};
use crate::streams::{Digest, Message, Nothing, is_servable};

const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// Why there is no secret of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Absent {
    /// The workload has none of this name.
    NotGranted,
    /// It has, and it cannot be shown now.
    NotNow(Nothing),
}

/// One workload's secrets at one moment, for one proxy.
pub(super) struct View<'a> {
    pub(super) context: &'a X509Context,
    pub(super) now: SystemTime,
    pub(super) names: &'a Names,
    pub(super) validator: Validator,
}

impl View<'_> {
    /// Whether a name asks for what verifies the own trust domain.
    pub(super) fn is_own_trust(&self, name: &str) -> bool {
        let is_foreign = matches!(self.names.meaning(name), Some(Asked::Bundle(domain)) if domain != self.context.trust_domain);
        self.names.is_trust(name) && !is_foreign
    }

    /// The secret of this name, as the `Any` that answers hold. It is the only one: a proxy takes no other name (SDS-03).
    ///
    /// # Errors
    /// [`Absent`].
    pub(super) fn secret(&self, name: &str) -> Result<Message, Absent> {
        let asked = self.names.meaning(name).ok_or(Absent::NotGranted)?;
        let secret = match asked {
            Asked::DefaultSvid => self.certificate(name, self.context.svids.first())?,
            Asked::Svid(id) => {
                let mut svids = self.context.svids.iter();
                self.certificate(name, svids.find(|svid| svid.spiffe_id == id))?
            }
            Asked::OwnBundle => self.trust(name, &[self.own()])?,
            Asked::Bundle(domain) if domain == self.context.trust_domain => {
                self.trust(name, &[self.own()])?
            }
            Asked::Bundle(domain) => {
                let bundle = self.context.federated_bundles.get(domain);
                let foreign = bundle.map(|bundle| Domain {
                    name: domain,
                    bundle,
                    is_own: false,
                });
                self.trust(name, &[foreign.ok_or(Absent::NotGranted)?])?
            }
            // One bundle for several trust domains would let each speak for the others.
            Asked::AllBundles if self.validator == Validator::Plain => return Err(Absent::NotGranted),
            Asked::AllBundles => self.trust(name, &self.every())?,
        };
        Ok(typed(TYPE_URL, secret))
    }

    fn certificate(&self, name: &str, svid: Option<&GrantedSvid>) -> Result<Message, Absent> {
        let svid = svid.ok_or(Absent::NotGranted)?;
        if !is_servable(svid, self.now) {
            return Err(Absent::NotNow(Nothing::none_valid(
                std::slice::from_ref(svid),
                self.now,
            )));
        }
        let key = Zeroizing::new(pem::encode("PRIVATE KEY", &svid.key.bytes()));
        let inline = |bytes: Bytes| {
            Some(DataSource {
                specifier: Some(Specifier::InlineBytes(bytes)),
            })
        };
        let certificate = wire::TlsCertificate {
            certificate_chain: inline(certificates(&svid.chain)?.into()),
            private_key: inline(Bytes::from_owner(Zeroizing::new(key.as_bytes().to_vec()))),
        };
        let secret = wire::Secret {
            name: name.to_owned(),
            r#type: Some(wire::secret::Type::TlsCertificate(certificate)),
        };
        Ok(Message::secret(secret.encode_to_vec()))
    }

    fn own(&self) -> Domain<'_> {
        Domain {
            name: &self.context.trust_domain,
            bundle: &self.context.bundle,
            is_own: true,
        }
    }

    /// Sorted by name, as the validator's configuration was seen to be elsewhere; a domain without authorities is left out, for Envoy
    /// refuses the whole secret over it.
    fn every(&self) -> Vec<Domain<'_>> {
        let foreign = self
            .context
            .federated_bundles
            .iter()
            .map(|(name, bundle)| Domain {
                name,
                bundle,
                is_own: false,
            });
        let foreign = foreign.filter(|domain| domain.name != self.context.trust_domain);
        let mut every: Vec<_> = std::iter::once(self.own())
            .chain(foreign)
            .filter(|domain| !domain.bundle.is_empty())
            .collect();
        every.sort_by_key(|domain| domain.name);
        every
    }

    fn trust(&self, name: &str, domains: &[Domain<'_>]) -> Result<Message, Absent> {
        let unknown = || Absent::NotNow(Nothing::because("the trust bundle is not known yet"));
        if domains.is_empty() || domains.iter().any(|domain| domain.bundle.is_empty()) {
            return Err(unknown());
        }
        let each = domains.iter().map(|domain| match self.validator {
            Validator::Spiffe => self.of_spiffe(domain),
            Validator::Plain => self.of_plain(domain),
        });
        let context = Message::default().then_all(each.collect::<Result<Vec<_>, _>>()?);
        let context = match self.validator {
            Validator::Spiffe => text(1, VALIDATOR)
                .then(typed(VALIDATOR_URL, context).within(2))
                .within(12),
            Validator::Plain => context,
        };
        Ok(text(1, name).then(context.within(4)))
    }

    /// Where this validator reads lists: among the certificates of their trust domain.
    fn of_spiffe(&self, domain: &Domain<'_>) -> Result<Message, Absent> {
        let bundle = Message::own(certificates(domain.bundle)?).then(self.lists(domain));
        Ok(text(1, domain.name).then(source(bundle).within(2)).within(1))
    }

    /// Where the default validator reads them: beside the certificates.
    fn of_plain(&self, domain: &Domain<'_>) -> Result<Message, Absent> {
        let bundle = source(Message::own(certificates(domain.bundle)?)).within(1);
        let lists = self.lists(domain);
        Ok(if lists.length() == 0 {
            bundle
        } else {
            bundle.then(source(lists).within(7))
        })
    }

    /// One list for each authority of the own domain, or nothing: proxies refuse an authority without one where there is any.
    fn lists(&self, domain: &Domain<'_>) -> Message {
        if domain.is_own {
            Message::lists_in_pem(&self.context.crls)
        } else {
            Message::default()
        }
    }
}

/// A trust domain and its authorities in DER.
struct Domain<'a> {
    name: &'a str,
    bundle: &'a Bytes,
    is_own: bool,
}

fn certificates(run: &[u8]) -> Result<String, Absent> {
    let ders = split_certificates(run).map_err(|error| {
        tracing::error!(%error, "certificates that were to be sent are malformed");
        Absent::NotNow(Nothing::because(
            "internal fault of the agent: a certificate is malformed",
        ))
    })?;
    Ok(ders.iter().map(|der| pem::encode("CERTIFICATE", der)).collect())
}

/// Length of a version.
pub(super) const VERSION: usize = 32;

/// Stands for what a secret or an answer holds, and tells nothing of a key.
pub(super) fn version(digest: &Digest) -> String {
    hex::encode(&digest[..16])
}

/// A field of this number with a text in it.
pub(super) fn text(field: u32, text: &str) -> Message {
    if text.is_empty() {
        return Message::default();
    }
    Message::own(text.to_owned()).within(field)
}

/// `google.protobuf.Any`.
fn typed(url: &str, value: Message) -> Message {
    text(1, url).then(value.within(2))
}

/// `DataSource` with the bytes in it.
fn source(bytes: Message) -> Message {
    bytes.within(2)
}
