//! What is in a secret.

use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use signet_proto::envoy::config::core::v3::{DataSource, Node, data_source::Specifier};
use signet_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, secret::Type,
};
use signet_proto::envoy::service::discovery::v3::DiscoveryRequest;
use tonic::Code;

use super::{Facts, Proxy, TWO, asking, secrets};
use crate::support::{Socket, ready};

pub(super) fn without_spiffe_validator() -> Node {
    let off = Value {
        kind: Some(Kind::BoolValue(true)),
    };
    Node {
        metadata: Some(Struct {
            fields: [("disable_spiffe_cert_validation".to_owned(), off)].into(),
        }),
        ..Node::default()
    }
}

fn context(secret: &Secret) -> &CertificateValidationContext {
    match &secret.r#type {
        Some(Type::ValidationContext(context)) => context,
        _ => panic!("{} is no validation context", secret.name),
    }
}

pub(super) fn is_spiffe(secret: &Secret) -> bool {
    context(secret).custom_validator_config.is_some()
}

fn inline(source: Option<&DataSource>) -> String {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        _ => panic!("not inline"),
    }
}

/// The trust domains of a SPIFFE validator with their bundles.
fn domains(secret: &Secret) -> Vec<(String, String)> {
    let context = context(secret);
    assert!(context.trusted_ca.is_none() && context.crl.is_none());
    let config = context.custom_validator_config.as_ref().unwrap();
    assert_eq!(config.name, "envoy.tls.cert_validator.spiffe");
    let typed = config.typed_config.as_ref().unwrap();
    assert_eq!(
        typed.type_url,
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
    );
    let config = SpiffeCertValidatorConfig::decode(typed.value.as_slice()).unwrap();
    let each = config.trust_domains.into_iter();
    each.map(|domain| (domain.name, inline(domain.trust_bundle.as_ref())))
        .collect()
}

async fn asked(facts: &Facts, node: Option<Node>, names: &[&str]) -> Vec<Secret> {
    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut proxy = Proxy::of(&socket).await;
    proxy
        .asks(DiscoveryRequest {
            node,
            ..asking(names)
        })
        .await;
    secrets(&proxy.hears().await)
}

/// Covers SDS-04.
#[tokio::test]
async fn a_certificate_is_pem_leaf_first_and_its_key_pkcs8() {
    let facts = Facts::new();
    let context = facts.context(1);
    for (name, svid) in [("default", 0), (TWO, 1)] {
        let secret = asked(&facts, None, &[name]).await.remove(0);
        let Some(Type::TlsCertificate(certificate)) = secret.r#type else {
            panic!("{name} is no certificate");
        };
        let chain = inline(certificate.certificate_chain.as_ref());
        assert!(chain.starts_with("-----BEGIN CERTIFICATE-----\n"));
        let svids = context.svids[svid].spiffe_id.as_str();
        let der = pem(&chain, "CERTIFICATE");
        let uri = der[0]
            .windows(svids.len())
            .any(|window| window == svids.as_bytes());
        assert!(uri, "{svids} is not in the leaf");
        assert_eq!(
            pem(&inline(certificate.private_key.as_ref()), "PRIVATE KEY").len(),
            1
        );
    }
}

/// Covers SDS-05, SDS-12.
#[tokio::test]
async fn the_spiffe_validator_has_each_domain_and_its_lists_within_the_bundle() {
    let facts = Facts::new();
    let (own, foreign) = (
        facts.authority.certificate().pem(),
        facts.foreign.certificate().pem(),
    );
    let secrets = asked(&facts, None, &["ROOTCA", "ALL", "spiffe://friend.example"]).await;
    let (all, root, friend) = (domains(&secrets[0]), domains(&secrets[1]), domains(&secrets[2]));
    assert_eq!(friend, [("friend.example".to_owned(), foreign.clone())]);
    let [(name, bundle)] = &root[..] else {
        panic!("{root:?}");
    };
    assert_eq!(name, "example.org");
    assert!(bundle.starts_with(&own) && bundle.matches("BEGIN X509 CRL").count() == 1);
    assert_eq!(all, [root[0].clone(), ("friend.example".to_owned(), foreign)]);
}

/// Covers SDS-06.
#[tokio::test]
async fn the_default_validator_has_one_bundle_and_its_lists_beside_it() {
    let facts = Facts::new();
    let node = Some(without_spiffe_validator());
    let secrets = asked(&facts, node.clone(), &["ROOTCA", "spiffe://friend.example"]).await;
    let root = context(&secrets[0]);
    assert_eq!(
        inline(root.trusted_ca.as_ref()),
        facts.authority.certificate().pem()
    );
    assert_eq!(pem(&inline(root.crl.as_ref()), "X509 CRL").len(), 1);
    let friend = context(&secrets[1]);
    assert_eq!(
        inline(friend.trusted_ca.as_ref()),
        facts.foreign.certificate().pem()
    );
    assert!(friend.crl.is_none() && friend.custom_validator_config.is_none());

    let socket = Socket::pending();
    socket.say(ready(facts.context(1)));
    let mut proxy = Proxy::of(&socket).await;
    proxy
        .asks(DiscoveryRequest {
            node,
            ..asking(&["ALL"])
        })
        .await;
    assert_eq!(proxy.ends().await.code(), Code::InvalidArgument);
}

/// The DER of each block of this label.
fn pem(text: &str, label: &str) -> Vec<Vec<u8>> {
    use rustls_pki_types::pem::{PemObject as _, SectionKind};
    let kind = match label {
        "CERTIFICATE" => SectionKind::Certificate,
        "PRIVATE KEY" => SectionKind::PrivateKey,
        _ => SectionKind::Crl,
    };
    let blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes());
    let blocks = blocks.map(Result::unwrap);
    blocks
        .inspect(|(found, _)| assert_eq!(*found, kind))
        .map(|(_, der)| der)
        .collect()
}
