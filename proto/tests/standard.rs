//! What others call or read stays as their standards define it.
#![allow(clippy::unwrap_used, reason = "test code")]
use std::collections::BTreeMap;

use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

fn file(package: &str) -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(signet_proto::DESCRIPTORS).unwrap();
    set.file
        .into_iter()
        .find(|file| file.package() == package)
        .unwrap()
}

/// `number name type`, in the order of numbers; maps by their value's type.
fn fields(message: &DescriptorProto) -> Vec<String> {
    let mut fields: Vec<_> = message.field.iter().collect();
    fields.sort_by_key(|field| field.number());
    let kind = |field: &prost_types::FieldDescriptorProto| match field.r#type() {
        Type::String => "string".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        _ => {
            let name = field.type_name().rsplit('.').next().unwrap_or_default();
            let entry = message.nested_type.iter().find(|entry| entry.name() == name);
            match entry.map(|entry| entry.field[1].r#type()) {
                Some(Type::Bytes) => "map of bytes".to_owned(),
                Some(Type::String) => "map of strings".to_owned(),
                _ => name.to_owned(),
            }
        }
    };
    let line = |field: &prost_types::FieldDescriptorProto| {
        let kind = kind(field);
        let many = field.label() == Label::Repeated && !kind.starts_with("map");
        format!(
            "{} {} {}{}",
            field.number(),
            field.name(),
            if many { "many " } else { "" },
            kind
        )
    };
    fields.into_iter().map(line).collect()
}

/// Covers API-02, EP-15, RS-13, X5S-01, X5B-02.
#[test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
fn the_workload_api_is_the_standard_one_and_nothing_more() {
    let file = file("");
    assert_eq!(file.service.len(), 1);
    assert_eq!(file.service[0].name(), "SpiffeWorkloadAPI");
    let methods: Vec<_> = file.service[0]
        .method
        .iter()
        .map(|method| {
            (
                method.name(),
                method.client_streaming(),
                method.server_streaming(),
            )
        })
        .collect();
    let expected = [
        ("FetchX509SVID", false, true),
        ("FetchX509Bundles", false, true),
        ("FetchJWTSVID", false, false),
        ("FetchJWTBundles", false, true),
        ("ValidateJWTSVID", false, false),
        ("FetchWITSVID", false, true),
        ("FetchWITBundles", false, true),
    ];
    assert_eq!(methods, expected);

    let messages: BTreeMap<_, _> = file.message_type.iter().map(|m| (m.name(), fields(m))).collect();
    let svid = |first: &str, key: &[&str]| {
        let mut fields = vec!["1 spiffe_id string".to_owned(), first.to_owned()];
        fields.extend(key.iter().map(ToString::to_string));
        fields
    };
    let list = |fields: &[&str]| fields.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected = BTreeMap::from([
        ("X509SVIDRequest", vec![]),
        (
            "X509SVIDResponse",
            list(&[
                "1 svids many X509SVID",
                "2 crl many bytes",
                "3 federated_bundles map of bytes",
            ]),
        ),
        (
            "X509SVID",
            svid(
                "2 x509_svid bytes",
                &["3 x509_svid_key bytes", "4 bundle bytes", "5 hint string"],
            ),
        ),
        ("X509BundlesRequest", vec![]),
        (
            "X509BundlesResponse",
            list(&["1 crl many bytes", "2 bundles map of bytes"]),
        ),
        (
            "JWTSVIDRequest",
            list(&["1 audience many string", "2 spiffe_id string"]),
        ),
        ("JWTSVIDResponse", list(&["1 svids many JWTSVID"])),
        ("JWTSVID", svid("2 svid string", &["3 hint string"])),
        ("JWTBundlesRequest", vec![]),
        ("JWTBundlesResponse", list(&["1 bundles map of bytes"])),
        (
            "ValidateJWTSVIDRequest",
            list(&["1 audience string", "2 svid string"]),
        ),
        (
            "ValidateJWTSVIDResponse",
            list(&["1 spiffe_id string", "2 claims Struct"]),
        ),
        ("WITSVIDRequest", list(&["1 spiffe_id string"])),
        ("WITSVIDResponse", list(&["1 svids many WITSVID"])),
        (
            "WITSVID",
            svid("2 wit_svid string", &["3 wit_svid_key string", "4 hint string"]),
        ),
        ("WITBundlesRequest", vec![]),
        ("WITBundlesResponse", list(&["1 bundles map of strings"])),
    ]);
    assert_eq!(messages, expected);
}

/// Between agent and server there is no field in which a private key could travel.
///
/// Covers INV-5.
#[test]
fn the_agents_protocol_has_no_room_for_a_private_key() {
    let file = file("signet.agent.v1");
    let mut bytes = Vec::new();
    for message in &file.message_type {
        let nested = message.nested_type.iter().chain([message]);
        for field in nested.flat_map(|message| &message.field) {
            assert!(
                !field.name().contains("key"),
                "{}.{}",
                message.name(),
                field.name()
            );
            if field.r#type() == Type::Bytes {
                bytes.push(field.name().to_owned());
            }
        }
    }
    bytes.sort_unstable();
    bytes.dedup();
    let public = [
        "authority_id",
        "bundle_digest",
        "certificate",
        "certificate_chain",
        "control_authorities",
        "crl",
        "crl_sha256",
        "csr",
        "departed_authorities",
        "held_crls",
        "lacking_crls",
        "sha256",
        "wanted_crls",
    ];
    assert_eq!(bytes, public, "what is new here must be public");
}
