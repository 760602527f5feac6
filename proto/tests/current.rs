//! The committed code in `src/gen` is what the `.proto` files give. `SIGNET_UPDATE_GEN=1` rewrites it.
#![allow(clippy::unwrap_used, reason = "test code")]
use std::{collections::BTreeMap, fs, path::Path};

const PROTOS: [&str; 8] = [
    "spiffe/workload.proto",
    "csi/csi.proto",
    "envoy/secret.proto",
    "envoy/tls.proto",
    "kubelet/registration.proto",
    "signet/agent/v1/agent.proto",
    "signet/admin/v1/admin.proto",
    "signet/local/v1/local.proto",
];

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(PROTOS, [root.join("proto")]).unwrap();
    let descriptor_path = out.path().join("descriptors.bin");
    fs::write(
        &descriptor_path,
        prost::Message::encode_to_vec(&without_source_info(descriptors.clone())),
    )
    .unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        .client_mod_attribute(".", "#[cfg(feature = \"stubs\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"stubs\")]")
        .emit_rerun_if_changed(false)
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    let fresh = read(out.path());
    let committed_dir = root.join("src/gen");
    if std::env::var_os("SIGNET_UPDATE_GEN").is_some() {
        fs::create_dir_all(&committed_dir).unwrap();
        for (name, content) in &fresh {
            fs::write(committed_dir.join(name), content).unwrap();
        }
    }
    let committed = read(&committed_dir);
    assert_eq!(
        fresh.keys().collect::<Vec<_>>(),
        committed.keys().collect::<Vec<_>>()
    );
    for (name, content) in &fresh {
        assert!(
            committed.get(name) == Some(content),
            "{name} is stale: run SIGNET_UPDATE_GEN=1 cargo test -p signet-proto"
        );
    }
}

/// Comments and positions stay out of what reflection serves.
fn without_source_info(mut set: prost_types::FileDescriptorSet) -> prost_types::FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

fn read(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}
