//! [`ServerApi`] over `signet.agent.v1`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use signet_certs::id::TrustDomain;
use signet_certs::tls::RotatingIdentity;
use signet_proto::agent::agent_client::AgentClient;
use signet_runtime::clock::Clock;
use signet_runtime::sync::Mutex;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::anchors::ControlAnchors;
use super::connect::Connector;
use super::sync::warn_of_skew;
use super::{
    AttestedNode, IssueItem, IssueOutcome, NodeAttestation, ServerApi, ServerError, ServerHello, TrustReport,
    TrustUpdate, convert,
};

/// One call that is not a stream.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// A trust state carries every CRL; the server bounds each at 3 MiB.
const MAX_TRUST_STATE: usize = 64 * 1024 * 1024;

/// The server over the network.
pub struct GrpcServer {
    /// For calls before the node has attested, and for attesting when the certificate is not accepted: a revoked one
    /// must not keep the node from proving itself anew.
    anonymous: Channel,
    /// For all other calls, once there is a certificate. Replaced with it, since a connection keeps the one it was made
    /// with and the first use of a newer certificate revokes the older.
    identified: Mutex<Option<Channel>>,
    connector: Connector,
    trust_domain: TrustDomain,
    clock: Arc<dyn Clock>,
}

impl GrpcServer {
    /// Connects to nobody yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(
        address: &str,
        trust_domain: &TrustDomain,
        anchors: Arc<ControlAnchors>,
        identity: Arc<RotatingIdentity>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        let anonymous = Connector::new(address, trust_domain, anchors.clone(), None, clock.clone())?;
        let connector = Connector::new(address, trust_domain, anchors, Some(identity), clock.clone())?;
        Ok(Self {
            anonymous: anonymous.channel(),
            identified: Mutex::new(None),
            connector,
            trust_domain: trust_domain.clone(),
            clock,
        })
    }

    fn anonymous(&self) -> AgentClient<Channel> {
        AgentClient::new(self.anonymous.clone())
    }

    fn identified(&self) -> Result<AgentClient<Channel>, ServerError> {
        let channel = self.identified.lock().clone();
        let missing = || ServerError::unavailable("this node has not been attested by the server yet");
        Ok(AgentClient::new(channel.ok_or_else(missing)?).max_decoding_message_size(MAX_TRUST_STATE))
    }

    async fn greet(&self, mut client: AgentClient<Channel>) -> Result<ServerHello, ServerError> {
        let request = convert::hello_request(self.clock.now());
        let hello = convert::hello(limited(client.hello(request)).await?)?;
        if hello.trust_domain != self.trust_domain.as_str() {
            return Err(ServerError::Refused(format!(
                "the server serves trust domain {:?}, this agent belongs to {}",
                hello.trust_domain, self.trust_domain
            )));
        }
        warn_of_skew(hello.clock, self.clock.now());
        Ok(hello)
    }

    async fn open(
        &self,
        reports: watch::Receiver<TrustReport>,
    ) -> Result<BoxStream<'static, Result<TrustUpdate, ServerError>>, ServerError> {
        let mut client = self.identified()?;
        self.greet(client.clone()).await?;
        let outgoing = report_stream(reports, self.clock.clone());
        let updates = limited(client.sync_trust(outgoing)).await?;
        let converted = updates.map(|update| match update {
            Ok(state) => convert::trust_update(state),
            Err(status) => Err(convert::error(&status)),
        });
        Ok(converted.boxed())
    }
}

impl ServerApi for GrpcServer {
    fn hello(&self) -> BoxFuture<'_, Result<ServerHello, ServerError>> {
        Box::pin(self.greet(self.anonymous()))
    }

    fn attest_node(&self, request: NodeAttestation) -> BoxFuture<'_, Result<AttestedNode, ServerError>> {
        Box::pin(async move {
            // The present certificate stands in for the API server while that is away. It may as well be what is wrong:
            // then the node proves itself without.
            if let Ok(mut client) = self.identified() {
                match limited(client.attest_node(convert::attest_request(&request))).await {
                    Err(ServerError::Unavailable { .. } | ServerError::Unauthenticated(_)) => {}
                    outcome => return convert::attested_node(outcome?),
                }
            }
            let request = convert::attest_request(&request);
            convert::attested_node(limited(self.anonymous().attest_node(request)).await?)
        })
    }

    fn issue(&self, items: Vec<IssueItem>) -> BoxFuture<'_, Result<Vec<IssueOutcome>, ServerError>> {
        Box::pin(async move {
            let asked = items.len();
            let mut client = self.identified()?;
            let response = limited(client.issue_x509_svids(convert::issue_request(items))).await?;
            convert::outcomes(response, asked)
        })
    }

    fn sync_trust(
        &self,
        reports: watch::Receiver<TrustReport>,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<TrustUpdate, ServerError>>, ServerError>> {
        Box::pin(self.open(reports))
    }

    fn identity_changed(&self) {
        // Calls under way keep the old channel until they end.
        *self.identified.lock() = Some(self.connector.channel());
    }
}

/// The newest report at once, then each newer one; ends when the manager does.
fn report_stream(
    reports: watch::Receiver<TrustReport>,
    clock: Arc<dyn Clock>,
) -> impl stream::Stream<Item = signet_proto::agent::TrustReport> + Send + 'static {
    stream::unfold((reports, clock, true), |(mut reports, clock, first)| async move {
        if !first {
            reports.changed().await.ok()?;
        }
        let report = convert::report(reports.borrow_and_update().clone(), clock.now());
        Some((report, (reports, clock, false)))
    })
}

async fn limited<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, ServerError> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(convert::error(&status)),
        Err(_) => Err(ServerError::unavailable("the server did not answer in time")),
    }
}

#[cfg(test)]
mod tests;
