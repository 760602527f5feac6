//! What a workload socket offers: services that know nothing of each other, and how each of their calls is let in.

use tonic::service::Routes;

use crate::sockets::Call;
use crate::streams::Following;
use crate::{sds, workload_api};

/// Longest request message of health and reflection: what probes and tools name is short.
const MAX_REQUEST: usize = 4 * 1024;

/// Everything a workload socket offers.
pub struct Services {
    /// Who answers.
    pub routes: Routes,
    /// The calls that are counted one by one. Health and reflection are none of them: probes and tools ask and leave, and send no security
    /// header (EP-05).
    pub calls: Vec<(&'static str, Call)>,
}

/// The Workload API, Envoy's SDS, gRPC health, and reflection in its two versions.
///
/// # Errors
/// When the descriptors built into the binary cannot be read.
pub(crate) fn services(
    following: Following,
    sds: sds::Sds,
) -> Result<Services, tonic_reflection::server::Error> {
    // A new reporter says SERVING for the whole server, which is all that probes ask for.
    let (_, health) = tonic_health::server::health_reporter();
    let routes = Routes::new(workload_api::service(following.clone()))
        .add_service(sds::Service::new(following, sds))
        .add_service(health.max_decoding_message_size(MAX_REQUEST))
        .add_service(reflection().build_v1()?.max_decoding_message_size(MAX_REQUEST))
        .add_service(
            reflection()
                .build_v1alpha()?
                .max_decoding_message_size(MAX_REQUEST),
        )
        .prepare();
    let calls = workload_api::CALLS.into_iter().chain(sds::CALLS).collect();
    Ok(Services { routes, calls })
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(signet_proto::DESCRIPTORS)
        .with_service_name(workload_api::SERVICE_NAME)
        .with_service_name(sds::SERVICE_NAME)
}
