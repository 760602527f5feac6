//! The DaemonSet.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use signet_certs::authority::{AuthorityKind, AuthorityProfile};
use signet_proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, node_client::NodeClient};
use signet_runtime::clock::{Clock as _, SystemClock};
use signet_testkit::{DAY, authority_profile, new_authority};
use signet_tests::kubelet::{PodOfVolume, Volume, publish_request};
use signet_tests::process::binary;
use signet_tests::uds;

use crate::root::{Container, Fault, Files};
use crate::running::Running;

const POD: &str = "dd4cbb08-469b-4ef9-a96b-3b5ff555a13b";

/// What docs/kubernetes.md tells a user to make, and what kubelet writes.
fn given() -> [(&'static str, Files); 2] {
    let now = SystemClock.now();
    let authority = new_authority(AuthorityProfile {
        kind: AuthorityKind::Control,
        not_before: now - DAY,
        not_after: now + 30 * DAY,
        ..authority_profile("example.org")
    });
    let file = |name: &str, text: &str| Files::from([(name.to_owned(), text.to_owned())]);
    [
        (
            "signet-anchors",
            file("anchors.pem", &authority.certificate().pem()),
        ),
        ("node-token", file("token", "not.a.token")),
    ]
}

fn volume() -> Volume {
    Volume {
        id: "csi-1".to_owned(),
        target: PathBuf::from(format!(
            "/var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~csi/spiffe/mount"
        )),
        pod: PodOfVolume {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: POD.to_owned(),
            service_account: "web".to_owned(),
        },
    }
}

fn publication() -> NodePublishVolumeRequest {
    let token =
        json!({"signet:example.org:pod": {"token": "t.t.t", "expirationTimestamp": "2036-11-21T19:47:36Z"}});
    publish_request(&volume(), &token.to_string())
}

fn status(agent: &Running) -> Value {
    let answer = agent.exec(&["signet-agent", "status", "--output", "json"]);
    serde_json::from_slice(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"))
}

mod needs_root {
    use super::*;

    /// Kubelet calls it where the manifest puts its socket; the pod's folder is seen, read-only, by the node.
    #[tokio::test]
    #[ignore = "needs root, `ip`, `curl` and `nsenter`: `.ci/step machine` runs it"]
    async fn the_agent_starts_as_the_manifest_says_and_gives_a_pod_its_socket() {
        let container = Container::new("agent.yaml", &binary("signet-agent"), &given(), &Fault::default());
        let agent = Running::of(container).await;
        assert!(agent.lives(), "{}", agent.log());
        let said = status(&agent);
        for key in ["not_kept", "volumes_problem"] {
            assert_eq!(said[key], "", "{said}");
        }
        let registration = "/var/lib/kubelet/plugins_registry/csi.signet.dev-reg.sock";
        assert!(agent.container().node(registration).exists(), "{}", agent.log());
        let target = volume().target.display().to_string();
        fs::create_dir_all(agent.inside(&target).parent().unwrap()).unwrap();
        let socket = agent
            .container()
            .node("/var/lib/kubelet/plugins/csi.signet.dev/csi.sock");
        let mut driver = NodeClient::new(uds::connect_lazy(&socket));
        for _ in 0..3 {
            let published = driver.node_publish_volume(publication()).await;
            published.unwrap_or_else(|status| panic!("{status}: {}", agent.log()));
        }
        assert!(agent.inside(&format!("{target}/spiffe.sock")).exists());
        let mounts = agent.mounts_on_node(&target);
        assert!(mounts.len() == 1 && mounts[0].starts_with("ro,"), "{mounts:?}");
        let gone = NodeUnpublishVolumeRequest {
            volume_id: "csi-1".to_owned(),
            target_path: target.clone(),
        };
        driver.node_unpublish_volume(gone).await.unwrap();
        assert!(agent.mounts_on_node(&target).is_empty());
    }

    /// The obvious repair of a root that cannot be written would cut every pod off with the agent's next update.
    #[test]
    #[ignore = "needs root, `ip`, `curl` and `nsenter`: `.ci/step machine` runs it"]
    fn an_agent_whose_volumes_would_end_with_its_container_does_not_start() {
        let fault = Fault { without: Some("run") };
        let ended = Container::new("agent.yaml", &binary("signet-agent"), &given(), &fault).output();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{said}");
        for word in ["csi.volumes_dir", "overlayfs", "hostPath"] {
            assert!(said.contains(word), "{said}");
        }
    }
}

/// As it is shipped: linked statically, and alone in its image.
#[tokio::test]
#[ignore = "needs root, and SIGNET_AGENT: `.ci/step image` builds it and runs this"]
async fn the_agent_that_is_shipped_needs_nothing_beside_it() {
    let program = PathBuf::from(std::env::var_os("SIGNET_AGENT").expect("set SIGNET_AGENT"));
    let container = Container::new("agent.yaml", &program, &given(), &Fault::default());
    assert_eq!(container.files(), [PathBuf::from("usr/bin/signet-agent")]);
    let agent = Running::of(container).await;
    assert!(agent.lives(), "{}", agent.log());
}
