//! kubelet's part against a CSI driver that only takes notes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use signet_proto::{
    csi::{
        NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
        NodePublishVolumeRequest, NodePublishVolumeResponse, NodeUnpublishVolumeRequest,
        NodeUnpublishVolumeResponse,
        node_server::{Node, NodeServer},
    },
    registration::{
        InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
        registration_server::{Registration, RegistrationServer},
    },
};
use signet_tests::{
    fake_kube::{FakeKube, FakeKubeConfig, PodSpec},
    kubelet::{Kubelet, KubeletConfig},
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

#[derive(Clone, Default)]
struct Driver {
    endpoint: PathBuf,
    calls: Arc<Mutex<Vec<String>>>,
    contexts: Arc<Mutex<Vec<NodePublishVolumeRequest>>>,
}

impl Driver {
    fn note(&self, call: &str) {
        self.calls.lock().unwrap().push(call.to_owned());
    }
}

#[tonic::async_trait]
impl Registration for Driver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        self.note("GetInfo");
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: "csi.example.org".to_owned(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        assert!(request.into_inner().plugin_registered);
        self.note("NotifyRegistrationStatus");
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        self.note("NodePublishVolume");
        self.contexts.lock().unwrap().push(request.into_inner());
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        _: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        self.note("NodeUnpublishVolume");
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        self.note("NodeGetCapabilities");
        Ok(Response::new(NodeGetCapabilitiesResponse {}))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        self.note("NodeGetInfo");
        Ok(Response::new(NodeGetInfoResponse {
            node_id: "node-a".to_owned(),
            ..Default::default()
        }))
    }
}

fn serve(driver: &Driver, registration: &Path) {
    let sockets = [driver.endpoint.as_path(), registration].map(|path| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        UnixListenerStream::new(UnixListener::bind(path).unwrap())
    });
    for socket in sockets {
        let server = Server::builder()
            .add_service(NodeServer::new(driver.clone()))
            .add_service(RegistrationServer::new(driver.clone()));
        tokio::spawn(server.serve_with_incoming(socket));
    }
}

#[tokio::test]
async fn a_driver_gets_the_calls_of_a_real_kubelet_in_their_order() {
    let fake = FakeKube::start(FakeKubeConfig::default()).await.unwrap();
    let uid = fake
        .add_pod(&PodSpec::new("shop", "csi-0").service_account("frontend"))
        .unwrap();
    let folder = signet_testkit::folder();
    let config = KubeletConfig::new(&fake.url(), folder.path(), "signet");
    let driver = Driver {
        endpoint: folder.path().join("csi.sock"),
        ..Driver::default()
    };
    serve(&driver, &config.registry().join("csi.example.org-reg.sock"));

    let kubelet = Kubelet::register(config, Duration::from_secs(5)).await.unwrap();
    assert_eq!(kubelet.registered().driver, "csi.example.org");
    let volume = kubelet.publish("shop", "csi-0").await.unwrap();
    kubelet.republish(&volume).await.unwrap();
    kubelet.unpublish(&volume).await.unwrap();

    let calls = driver.calls.lock().unwrap().join(" ");
    assert_eq!(
        calls,
        "GetInfo NodeGetInfo NotifyRegistrationStatus \
         NodeGetCapabilities NodeGetCapabilities NodePublishVolume \
         NodeGetCapabilities NodeGetCapabilities NodePublishVolume NodeUnpublishVolume"
    );
    assert!(volume.target.parent().unwrap().is_dir() && !volume.target.exists());
    let published = driver.contexts.lock().unwrap();
    let tokens: Vec<Value> = published
        .iter()
        .map(|request| &request.volume_context["csi.storage.k8s.io/serviceAccount.tokens"])
        .map(|tokens| serde_json::from_str(tokens).unwrap())
        .collect();
    assert_ne!(
        tokens[0]["signet"]["token"], tokens[1]["signet"]["token"],
        "a fresh token each time"
    );
    assert_eq!(published[0].volume_context["csi.storage.k8s.io/pod.uid"], uid);
}
