//! The driver with mounts of its own: a tmpfs that is full, and real ones under pods.

use super::*;
use crate::csi::mount::BindMounter;
use crate::csi::mount::tests::alone::{alone, own_mounts_at};

/// On a small tmpfs of its own, which the file named to `test` can fill.
fn on_a_full_tmpfs(dir: &Path, test: impl AsyncFnOnce(&Node, &Path)) {
    let node = Node::below(dir);
    let volumes = node.directory.path().join("volumes");
    fs::create_dir(&volumes).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &volumes, Some("tmpfs"), flags, Some("size=65536")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(test(&node, &volumes.join("filler")));
}

/// What is in memory serves; what cannot be written is told, and written once there is room.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn a_full_tmpfs_throws_no_token_away_and_starts_pods() {
    alone(
        "csi::tests::needs_namespaces::a_full_tmpfs_throws_no_token_away_and_starts_pods",
        |dir| {
            on_a_full_tmpfs(dir, async |node: &Node, filler: &Path| {
                fs::write(filler, [0; 65536]).unwrap();
                let driver = node.start_agent();
                driver.publish(node.request()).await.unwrap();
                driver.publish(node.request()).await.unwrap();
                assert_eq!(node.sink.tokens.load(Ordering::SeqCst), 2);
                assert!(node.told().contains("No space left"), "{}", node.told());
                drop(driver);
                // As far as a restarted agent knows there is no volume; kubelet calls again, and the pod's folder is the same.
                let inode = node.inode();
                let driver = node.start_agent();
                driver.publish(node.request()).await.unwrap();
                assert_eq!((node.inode(), node.opened()), (inode, 2));
                fs::remove_file(filler).unwrap();
                driver.publish(node.request()).await.unwrap();
                assert_eq!(node.told(), "");
                drop(driver);
                node.start_agent();
                assert_eq!(node.opened(), 3, "it knows the volume by its record");
            });
        },
    );
}

/// Somebody emptied `/run`, or the agent was given another folder.
#[test]
#[ignore = "needs root or user namespaces: `.ci/step machine` runs it"]
fn a_folder_lost_under_a_running_pod_is_told_and_the_pod_is_served_in_a_new_one() {
    alone(
        "csi::tests::needs_namespaces::a_folder_lost_under_a_running_pod_is_told_and_the_pod_is_served_in_a_new_one",
        |dir| {
            for agent_was_away in [false, true] {
                let node = Node::below(dir);
                fs::create_dir_all(node.target().parent().unwrap()).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(lost_folder(&node, agent_was_away));
            }
        },
    );
}

async fn lost_folder(node: &Node, agent_was_away: bool) {
    let start = || node.start_agent_that_mounts(20, Arc::new(BindMounter));
    let cut_off = || node.sink.cut_off.load(Ordering::SeqCst);
    let mut driver = start();
    driver.publish(node.request()).await.unwrap();
    let before = node.inode();
    let volumes = node.directory.path().join("volumes");
    for entry in fs::read_dir(&volumes).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    if agent_was_away {
        driver = start();
    }
    driver.publish(node.request()).await.unwrap();
    driver.publish(node.request()).await.unwrap();
    assert_eq!(cut_off(), 1);
    assert_eq!(node.opened(), 2, "a socket in the new folder");
    assert_ne!(node.inode(), before);
    assert_eq!(own_mounts_at(&node.target()).len(), 1);
    // Until the pod is gone a person is told, also by the next agent.
    drop(driver);
    let driver = start();
    assert_eq!(cut_off(), 2);
    driver.publish(node.request()).await.unwrap();
    let gone = wire::NodeUnpublishVolumeRequest {
        volume_id: "csi-4c42".into(),
        target_path: node.target().to_str().unwrap().into(),
    };
    driver.unpublish(gone).await.unwrap();
    assert!(own_mounts_at(&node.target()).is_empty() && !node.target().exists());
    drop(driver);
    start();
    assert_eq!(cut_off(), 2);
}
