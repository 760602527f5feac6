//! The agent with the CSI driver, with kubelet's part played beside it on the machine.

use std::fs::File;
use std::future::Future;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use signet_tests::domain::POD_AUDIENCE;
use signet_tests::fake_kube::PodSpec;
use signet_tests::kubelet::{Kubelet, KubeletConfig, Volume};
use signet_tests::wait::PATIENCE;
use tokio::sync::oneshot;

use crate::machine::Machine;
use crate::page::follow;

/// Does it on a thread that sees the files of the machine, as a process of it would.
async fn on<T: Send + 'static, F: Future<Output = T>>(
    machine: &Machine,
    work: impl FnOnce() -> F + Send + 'static,
) -> T {
    let mounts = File::open(format!("/proc/{}/ns/mnt", machine.init())).unwrap();
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || {
        // A thread that shares its folder with others may not move.
        unshare(CloneFlags::CLONE_FS).unwrap();
        setns(mounts, CloneFlags::CLONE_NEWNS).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let _ = done.send(runtime.unwrap().block_on(work()));
    });
    result.await.expect("kubelet's part says above what went wrong")
}

const UNIT: &str = "signet-agent-csi";

/// kubelet registers the driver, and publishes the pod's volume.
async fn published(machine: &Machine, config: &KubeletConfig) -> Volume {
    let config = config.clone();
    let publish = || async move {
        let kubelet = Kubelet::register(config, PATIENCE).await.unwrap();
        kubelet.publish("shop", "web").await.unwrap()
    };
    on(machine, publish).await
}

/// The pod asks, as its own user and at the path where its container sees the volume.
async fn asks(machine: &Machine) {
    let fetch = "setpriv --reuid 65532 --regid 65532 --clear-groups \
                 signet-agent fetch x509 --socket unix:///run/pod/spiffe.sock --timeout 60s";
    let fetched = machine.types(fetch).await;
    assert!(
        fetched.contains("spiffe://example.org/ns/shop/sa/web"),
        "{fetched}"
    );
}

mod needs_root_and_systemd {
    use super::*;

    #[tokio::test]
    #[ignore = "needs root and systemd: `.ci/step units` runs it"]
    async fn a_pod_gets_its_identity_by_an_agent_that_systemd_runs() {
        let machine = Machine::boot().await;
        let node = machine.is_a_node().await;
        follow(&machine, &["1. ", "2. "]).await;
        machine
            .types("install -d -m 0755 /var/lib/kubelet; install -d -m 0700 /var/lib/kubelet/pods")
            .await;
        follow(&machine, &["4. "]).await;
        // What was there is as its owner made it.
        let modes = "stat -c %a /var/lib/kubelet /var/lib/kubelet/pods /var/lib/kubelet/plugins";
        assert_eq!(machine.types(modes).await, "755\n700\n750\n");
        assert_eq!(machine.property("signet-agent", "ActiveState").await, "inactive");
        machine.until(UNIT, "StatusText", |text| text == "ready").await;
        let verify = format!("systemd-analyze verify /etc/systemd/system/{UNIT}.service");
        assert_eq!(machine.types(&verify).await, "");

        let pod = PodSpec::new("shop", "web").service_account("web").node(&node);
        machine.kube.add_pod(&pod).unwrap();
        let config = KubeletConfig::new(&machine.kube.url(), Path::new("/var/lib/kubelet"), POD_AUDIENCE);
        let volume = published(&machine, &config).await;
        let target = volume.target.display().to_string();
        // What the agent mounted is seen by others.
        machine
            .types(&format!(
                "mountpoint {target}; mkdir /run/pod; mount --bind {target} /run/pod"
            ))
            .await;
        asks(&machine).await;
        // Another run finds the volume and the socket that the container holds.
        machine.is_started_again(UNIT).await;
        asks(&machine).await;

        let again = config.clone();
        let unpublish = || async move {
            let kubelet = Kubelet::register(again, PATIENCE).await.unwrap();
            kubelet.unpublish(&volume).await.unwrap();
        };
        on(&machine, unpublish).await;
        machine.types(&format!("! mountpoint {target}")).await;
        machine.ends_in_order(UNIT).await;
        nobody_sees_what_is_mounted_in_a_namespace(&machine, &config, &target).await;
    }
}

/// Why the unit leaves so much open.
async fn nobody_sees_what_is_mounted_in_a_namespace(machine: &Machine, config: &KubeletConfig, target: &str) {
    let folder = format!("/etc/systemd/system/{UNIT}.service.d");
    machine
        .types(&format!(
            "mkdir {folder}; printf '[Service]\nPrivateTmp=yes\n' > {folder}/tmp.conf
             systemctl daemon-reload; systemctl start {UNIT}"
        ))
        .await;
    published(machine, config).await;
    machine
        .types(&format!("test -d {target}; ! mountpoint {target}"))
        .await;
}
