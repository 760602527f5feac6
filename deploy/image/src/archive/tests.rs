//! Archives of this test's own program.

use super::*;
use crate::files::of_program;

fn own() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn archive_of(program: &Path, name: &str) -> Vec<u8> {
    let files = of_program(program).unwrap();
    let image = Image {
        name,
        user: "65532:65532",
        files: &files,
    };
    let mut archive = Vec::new();
    image.write(&mut archive).unwrap();
    archive
}

fn read(folder: &Path, digest: &Value) -> Value {
    let blob = digest.as_str().unwrap().replace(':', "/");
    serde_json::from_slice(&fs::read(folder.join("blobs").join(blob)).unwrap()).unwrap()
}

/// The layer unpacked, and the image's configuration.
fn unpack(archive: &[u8], folder: &Path) -> Value {
    tar::Archive::new(archive).unpack(folder).unwrap();
    let index: Value = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let manifest = read(folder, &index["manifests"][0]["digest"]);
    let layer = manifest["layers"][0]["digest"]
        .as_str()
        .unwrap()
        .replace(':', "/");
    let layer = fs::read(folder.join("blobs").join(layer)).unwrap();
    let sha256 = hex::encode(digest(&SHA256, &layer));
    let config = read(folder, &manifest["config"]["digest"]);
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{sha256}"));
    tar::Archive::new(layer.as_slice())
        .unpack(folder.join("root"))
        .unwrap();
    config
}

#[test]
fn the_same_program_gives_the_same_bytes() {
    let first = archive_of(&own(), "signet-agent:1");
    for _ in 0..8 {
        assert!(archive_of(&own(), "signet-agent:1") == first);
    }
    // As after a checkout elsewhere, on another day.
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join(own().file_name().unwrap());
    fs::copy(own(), &copy).unwrap();
    assert!(archive_of(&copy, "signet-agent:1") == first);
}

#[test]
fn containerd_and_kubernetes_call_it_by_one_name() {
    let name_of = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        unpack(&archive_of(&own(), name), folder.path());
        let index = fs::read(folder.path().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let names = &index["manifests"][0]["annotations"];
        [names[CONTAINERD_NAME].clone(), names[REFERENCE].clone()]
    };
    assert_eq!(
        name_of("signet-agent:0.1"),
        ["docker.io/library/signet-agent:0.1", "0.1"]
    );
    assert_eq!(name_of("team/agent:2"), ["docker.io/team/agent:2", "2"]);
    assert_eq!(name_of("localhost:5000/agent:2"), ["localhost:5000/agent:2", "2"]);
}

mod needs_namespaces {
    use std::process::Command;

    use signet_testkit::machine::as_root;

    use super::*;

    /// What is in it is all that the program needs.
    #[test]
    #[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
    fn a_program_starts_in_a_root_with_nothing_but_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let config = unpack(&archive_of(&own(), "x:1"), folder.path());
        assert_eq!(config["config"]["User"], "65532:65532");
        let program = config["config"]["Entrypoint"][0].as_str().unwrap();
        let ended = Command::new("unshare")
            .args(as_root())
            .arg("--root")
            .arg(folder.path().join("root"))
            .args([program, "--list"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(
            said.contains("a_program_starts_in_a_root"),
            "{said}{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}
