//! The agent with the CSI driver, with kubelet's part played beside it on the machine.

use std::fs::File;
use std::future::Future;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use signet_tests::domain::POD_AUDIENCE;
use signet_tests::fake_kube::PodSpec;
use signet_tests::kubelet::{Kubelet, KubeletConfig};
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

mod needs_root_and_systemd {
    use super::*;

    #[tokio::test]
    #[ignore = "needs root and systemd: `.ci/step units` runs it"]
    async fn a_pod_gets_its_identity_by_an_agent_that_systemd_runs() {
        let machine = Machine::boot().await;
        let node = machine.is_a_node().await;
        machine
            .types("mkdir -p /var/lib/kubelet/{pods,plugins,plugins_registry}")
            .await;
        follow(&machine, &["1. ", "2. ", "4. "]).await;
        assert_eq!(machine.property("signet-agent", "ActiveState").await, "inactive");
        machine
            .until("signet-agent-csi", "StatusText", |text| text == "ready")
            .await;

        let pod = PodSpec::new("shop", "web").service_account("web").node(&node);
        machine.kube.add_pod(&pod).unwrap();
        let config = KubeletConfig::new(&machine.kube.url(), Path::new("/var/lib/kubelet"), POD_AUDIENCE);
        let (registered, shut_in) = (config.clone(), config.clone());
        let volume = on(&machine, || async move {
            let kubelet = Kubelet::register(registered, PATIENCE).await.unwrap();
            kubelet.publish("shop", "web").await.unwrap()
        })
        .await;
        // What the agent mounted is seen by others, and a container sees it at another path.
        let target = volume.target.display();
        machine
            .types(&format!(
                "mountpoint {target}; mkdir /run/pod; mount --bind {target} /run/pod"
            ))
            .await;
        let fetch = "setpriv --reuid 65532 --regid 65532 --clear-groups \
                     signet-agent fetch x509 --socket unix:///run/pod/spiffe.sock --timeout 60s";
        let fetched = machine.types(fetch).await;
        assert!(
            fetched.contains("spiffe://example.org/ns/shop/sa/web"),
            "{fetched}"
        );

        // A restart finds the volume and the socket that the container holds.
        machine
            .types("kill -9 $(systemctl show --value -p MainPID signet-agent-csi)")
            .await;
        machine
            .until("signet-agent-csi", "NRestarts", |restarts| restarts == "1")
            .await;
        machine
            .until("signet-agent-csi", "ActiveState", |state| state == "active")
            .await;
        let again = machine.types(fetch).await;
        assert!(again.contains("spiffe://example.org/ns/shop/sa/web"), "{again}");

        let unpublished = volume.clone();
        on(&machine, || async move {
            let kubelet = Kubelet::register(config, PATIENCE).await.unwrap();
            kubelet.unpublish(&unpublished).await.unwrap();
        })
        .await;
        machine.types(&format!("! mountpoint {target}")).await;
        machine.ends_in_order("signet-agent-csi").await;
        let file = "/etc/systemd/system/signet-agent-csi.service";
        let verified = machine.types(&format!("systemd-analyze verify {file}")).await;
        assert_eq!(verified, "");

        // What the unit says of a mount namespace of its own: nobody sees what is mounted in one.
        machine
            .types(
                "mkdir /etc/systemd/system/signet-agent-csi.service.d
                 printf '[Service]\nPrivateTmp=yes\n' > /etc/systemd/system/signet-agent-csi.service.d/tmp.conf
                 systemctl daemon-reload
                 systemctl start signet-agent-csi",
            )
            .await;
        on(&machine, || async move {
            let kubelet = Kubelet::register(shut_in, PATIENCE).await.unwrap();
            kubelet.publish("shop", "web").await.unwrap();
        })
        .await;
        machine
            .types(&format!("test -d {target}; ! mountpoint {target}"))
            .await;
    }
}
