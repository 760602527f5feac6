//! Tells kubelet about the driver: kubelet finds this socket in its registry folder and asks. No sidecar is needed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use signet_proto::registration::{self as wire, registration_server};
use signet_runtime::{drain::Drain, uds};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

use super::DriverConfig;
use crate::sockets::incoming::{call_span, incoming};

/// kubelet runs as root.
const SOCKET_MODE: u32 = 0o600;
/// The CSI version the driver speaks.
const CSI_VERSION: &str = "1.0.0";
/// After kubelet has refused, the socket is made anew this much later, which makes kubelet ask again.
const RETRY: Duration = Duration::from_secs(5);

/// Serves `<registry>/<driver>-reg.sock` until `drain` is signalled; then the socket is removed, which deregisters.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn register(config: &DriverConfig, drain: &Drain) -> anyhow::Result<()> {
    let path = config
        .registration_dir
        .join(format!("{}-reg.sock", config.driver_name));
    let service = Registration {
        driver_name: config.driver_name.clone(),
        endpoint: config.socket_path.clone(),
        refused: Arc::new(Notify::new()),
    };
    let first = uds::bind(&path, SOCKET_MODE, None, None)?;
    let ended = drain.clone();
    drain.spawn_worker("registration", async move {
        let mut listener = Some(first);
        while !ended.is_draining() {
            let Some(current) = listener.take() else {
                match uds::bind(&path, SOCKET_MODE, None, None) {
                    Ok(again) => listener = Some(again),
                    Err(error) => tracing::error!(%error, "the registration socket cannot be made"),
                }
                if listener.is_none() {
                    wait(&ended).await;
                }
                continue;
            };
            serve(service.clone(), current, &ended).await;
            // kubelet watches the folder: gone means deregistered, made anew means ask again.
            let _ = tokio::fs::remove_file(&path).await;
            if !ended.is_draining() {
                wait(&ended).await;
            }
        }
        let _ = tokio::fs::remove_file(&path).await;
    });
    Ok(())
}

async fn wait(drain: &Drain) {
    tokio::select! {
        () = tokio::time::sleep(RETRY) => {}
        () = drain.signalled() => {}
    }
}

async fn serve(service: Registration, listener: tokio::net::UnixListener, drain: &Drain) {
    let refused = service.refused.clone();
    let until = async {
        tokio::select! {
            () = refused.notified() => {}
            () = drain.signalled() => {}
        }
    };
    let result = tonic::transport::Server::builder()
        .trace_fn(call_span)
        .add_service(registration_server::RegistrationServer::new(service))
        .serve_with_incoming_shutdown(incoming(listener, "registration socket"), until)
        .await;
    if let Err(error) = result {
        tracing::error!(%error, "the registration socket failed");
    }
}

#[derive(Clone)]
struct Registration {
    driver_name: String,
    endpoint: PathBuf,
    refused: Arc<Notify>,
}

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(&self, _: Request<wire::InfoRequest>) -> Result<Response<wire::PluginInfo>, Status> {
        Ok(Response::new(wire::PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.driver_name.clone(),
            endpoint: self.endpoint.to_string_lossy().into_owned(),
            supported_versions: vec![CSI_VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<wire::RegistrationStatus>,
    ) -> Result<Response<wire::RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!(driver = self.driver_name, "registered with kubelet");
        } else {
            tracing::error!(
                driver = self.driver_name,
                error = status.error,
                "kubelet refused the driver, it is asked again"
            );
            self.refused.notify_one();
        }
        Ok(Response::new(wire::RegistrationStatusResponse {}))
    }
}
