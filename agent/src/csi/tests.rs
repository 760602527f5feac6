//! The driver with links for mounts and a sink that fails on demand.

mod needs_namespaces;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fs, os::unix::fs::MetadataExt, path::Path};

use signet_proto::csi::{VolumeCapability, volume_capability::AccessType, volume_capability::MountVolume};

use super::*;
use crate::csi::mount::LinkMounter;

const POD: &str = "dd4cbb08-469b-4ef9-a96b-3b5ff555a13b";

#[derive(Default)]
struct Sink {
    fails: AtomicBool,
    opened: AtomicUsize,
    tokens: AtomicUsize,
    closed: AtomicUsize,
    cut_off: AtomicUsize,
    missed: AtomicUsize,
}

impl VolumeSink for Sink {
    fn open(&self, _: &VolumeRecord, _: &Path, _: &Path) -> anyhow::Result<()> {
        anyhow::ensure!(!self.fails.load(Ordering::SeqCst), "no file descriptors left");
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn token(&self, _: &str, _: Arc<PodToken>) {
        self.tokens.fetch_add(1, Ordering::SeqCst);
    }

    fn cut_off(&self, _: &str) {
        self.cut_off.fetch_add(1, Ordering::SeqCst);
    }

    fn missed(&self, _: &str) {
        self.missed.fetch_add(1, Ordering::SeqCst);
    }

    fn close(&self, _: &str) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

struct Node {
    directory: tempfile::TempDir,
    sink: Arc<Sink>,
    standing: Standing,
}

impl Node {
    fn new() -> Self {
        Self::below(&signet_testkit::machine::short_parent())
    }

    /// In a folder of its own in this one.
    fn below(dir: &Path) -> Self {
        Self {
            directory: tempfile::tempdir_in(dir).unwrap(),
            sink: Arc::default(),
            standing: Standing::default(),
        }
    }

    fn start_agent(&self) -> Driver {
        self.start_agent_with_room_for(20)
    }

    fn start_agent_with_room_for(&self, max_volumes: usize) -> Driver {
        self.start_agent_that_mounts(max_volumes, Arc::new(LinkMounter))
    }

    fn start_agent_that_mounts(&self, max_volumes: usize, mounter: Arc<dyn Mounter>) -> Driver {
        let config = DriverConfig {
            driver_name: "csi.signet.dev".into(),
            socket_path: self.directory.path().join("csi.sock"),
            registration_dir: self.directory.path().into(),
            kubelet_dir: self.directory.path().join("kubelet"),
            node_name: "node-a".into(),
            token_audience: "signet:example.org:pod".into(),
            tokens_from: TokensFrom::VolumeContext,
            max_volumes,
        };
        let volumes = Volumes::open(&self.directory.path().join("volumes")).unwrap();
        Driver::restore(config, volumes, mounter, self.sink.clone(), self.standing.clone())
    }

    fn target(&self) -> PathBuf {
        let below = format!("kubelet/pods/{POD}/volumes/kubernetes.io~csi/spiffe/mount");
        self.directory.path().join(below)
    }

    fn request(&self) -> wire::NodePublishVolumeRequest {
        let tokens =
            r#"{"signet:example.org:pod":{"token":"t.t.t","expirationTimestamp":"2026-11-21T19:47:36Z"}}"#;
        let context = [
            ("csi.storage.k8s.io/pod.name", "web-0"),
            ("csi.storage.k8s.io/pod.namespace", "shop"),
            ("csi.storage.k8s.io/pod.uid", POD),
            ("csi.storage.k8s.io/serviceAccount.name", "web"),
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/serviceAccount.tokens", tokens),
        ];
        wire::NodePublishVolumeRequest {
            volume_id: "csi-4c42".into(),
            target_path: self.target().to_str().unwrap().into(),
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume::default())),
                access_mode: None,
            }),
            readonly: true,
            volume_context: context.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..wire::NodePublishVolumeRequest::default()
        }
    }

    /// Of the directory that the pod sees.
    fn inode(&self) -> u64 {
        fs::metadata(self.target()).unwrap().ino()
    }

    fn opened(&self) -> usize {
        self.sink.opened.load(Ordering::SeqCst)
    }

    fn told(&self) -> String {
        self.standing.subscribe().borrow().clone()
    }
}

#[tokio::test]
async fn a_volume_that_could_not_be_served_after_a_restart_is_served_at_kubelets_next_call() {
    let node = Node::new();
    node.start_agent().publish(node.request()).await.unwrap();
    let inode = node.inode();
    node.sink.fails.store(true, Ordering::SeqCst);
    let driver = node.start_agent();
    assert_eq!(node.opened(), 1);
    assert_eq!(
        node.sink.missed.load(Ordering::SeqCst),
        1,
        "what its pod holds is not known"
    );
    assert!(
        driver.publish(node.request()).await.is_err(),
        "kubelet hears of it"
    );
    assert_eq!(node.inode(), inode, "the mounted directory stays");
    node.sink.fails.store(false, Ordering::SeqCst);
    driver.publish(node.request()).await.unwrap();
    driver.publish(node.request()).await.unwrap();
    assert_eq!(node.opened(), 2);
    assert_eq!(node.inode(), inode);
}

#[tokio::test]
async fn a_volume_that_comes_back_after_it_was_removed_is_served_again() {
    let node = Node::new();
    let driver = node.start_agent();
    for times in 1..3 {
        driver.publish(node.request()).await.unwrap();
        assert_eq!(node.opened(), times);
        let removal = wire::NodeUnpublishVolumeRequest {
            volume_id: "csi-4c42".into(),
            target_path: node.target().to_str().unwrap().into(),
        };
        driver.unpublish(removal.clone()).await.unwrap();
        driver.unpublish(removal).await.unwrap();
        assert!(!node.target().exists());
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_kept_is_used_all_the_same() {
    let node = Node::new();
    let driver = node.start_agent();
    driver.publish(node.request()).await.unwrap();
    let held = driver.volumes.lock().await;
    let folder = held.records.svid_file("csi-4c42").parent().unwrap().to_owned();
    drop(held);
    // As on a full file system: no file can take the place of the former one.
    fs::remove_file(folder.join("token.json")).unwrap();
    fs::create_dir_all(folder.join("token.json/in-the-way")).unwrap();
    driver.publish(node.request()).await.unwrap();
    assert_eq!(node.sink.tokens.load(Ordering::SeqCst), 2);
    assert_eq!(node.opened(), 1);
}

/// A pod's author decides how many volumes it mounts.
#[tokio::test]
async fn a_pod_has_so_many_volumes_and_no_more_and_those_go_on() {
    let node = Node::new();
    let driver = node.start_agent();
    let numbered = |number: usize| {
        let mut request = node.request();
        request.volume_id = format!("csi-{number}");
        request.target_path = request
            .target_path
            .replace("/spiffe/", &format!("/spiffe{number}/"));
        request
    };
    for number in 0..MAX_VOLUMES_OF_POD {
        driver.publish(numbered(number)).await.unwrap();
    }
    let refused = driver.publish(numbered(MAX_VOLUMES_OF_POD)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("16 volumes"), "{refused}");
    assert_eq!(driver.standing.refused.get(), 1);
    driver.publish(numbered(0)).await.unwrap();
    let target = numbered(1).target_path;
    let gone = wire::NodeUnpublishVolumeRequest {
        volume_id: "csi-1".into(),
        target_path: target,
    };
    driver.unpublish(gone).await.unwrap();
    driver.publish(numbered(MAX_VOLUMES_OF_POD)).await.unwrap();
}

/// Each volume is a socket, and the agent may open only so many files.
#[tokio::test]
async fn a_node_has_so_many_volumes_and_says_what_would_make_room() {
    let node = Node::new();
    let driver = node.start_agent_with_room_for(1);
    driver.publish(node.request()).await.unwrap();
    let mut second = node.request();
    second.volume_id = "csi-second".into();
    second.target_path = second.target_path.replace("/spiffe/", "/second/");
    let refused = driver.publish(second).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("LimitNOFILE"), "{refused}");
    assert_eq!(driver.standing.refused.get(), 1);
    driver.publish(node.request()).await.unwrap();
}

/// As after an update of the unit file. What is served is served whole, and kubelet hears why the others are not.
#[tokio::test]
async fn after_a_restart_with_less_room_there_are_no_more_volumes_than_that() {
    let node = Node::new();
    let driver = node.start_agent();
    let mut second = node.request();
    second.volume_id = "csi-second".into();
    second.target_path = second.target_path.replace("/spiffe/", "/second/");
    for request in [node.request(), second.clone()] {
        driver.publish(request).await.unwrap();
    }
    drop(driver);
    let driver = node.start_agent_with_room_for(1);
    assert_eq!(node.opened(), 3);
    let served = driver.volumes.lock().await.served.clone();
    let (one, other) = if served.contains("csi-second") {
        (second, node.request())
    } else {
        (node.request(), second)
    };
    driver.publish(one.clone()).await.unwrap();
    let refused = driver.publish(other.clone()).await.unwrap_err();
    assert!(refused.message().contains("LimitNOFILE"), "{refused}");
    assert_eq!(driver.standing.refused.get(), 1);
    let gone = wire::NodeUnpublishVolumeRequest {
        volume_id: one.volume_id,
        target_path: one.target_path,
    };
    driver.unpublish(gone).await.unwrap();
    driver.publish(other).await.unwrap();
}
