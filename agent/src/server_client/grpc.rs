//! [`ServerApi`] over `signet.agent.v1`.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use signet_certs::id::TrustDomain;
use signet_certs::serial::SerialNumber;
use signet_certs::tls::RotatingIdentity;
use signet_proto::agent as wire;
use signet_proto::agent::agent_client::AgentClient;
use signet_runtime::sync::Mutex;
use tokio::sync::{mpsc, watch};
use tonic::{Response, Status};

use super::anchors::ControlAnchors;
use super::connect::{Connector, Http2};
use super::dial::Dialer;
use super::line::{Line, Open, limited};
use super::trust::Said;
use super::{
    Answer, AttestedNode, IssueItem, IssueOutcome, KeyExchanges, NodeAttestation, ServerApi, ServerError,
    TrustReport, TrustUpdate, convert,
};
use crate::time::AgentTime;

/// A trust state carries every CRL; the server bounds each at 3 MiB.
const MAX_TRUST_STATE: usize = 64 * 1024 * 1024;

/// The server over the network.
pub(crate) struct GrpcServer {
    /// For calls before the node has attested, and for attesting when the certificate is not accepted: a revoked one
    /// must not keep the node from proving itself anew.
    anonymous: Line,
    /// For all other calls, once there is a certificate. Replaced with it, since a connection keeps the one it was made
    /// with and the first use of a newer certificate revokes the older.
    identified: Mutex<Option<Arc<Line>>>,
    connector: Connector,
    trust_domain: TrustDomain,
    time: Arc<AgentTime>,
}

impl GrpcServer {
    /// Connects to nobody yet. Must be called inside a tokio runtime.
    pub(crate) fn new(
        way: Arc<dyn Dialer>,
        trust_domain: &TrustDomain,
        anchors: Arc<ControlAnchors>,
        identity: Arc<RotatingIdentity>,
        time: Arc<AgentTime>,
        key_exchanges: KeyExchanges,
    ) -> Self {
        let connector = |identity| {
            Connector::new(
                way.clone(),
                trust_domain,
                anchors.clone(),
                identity,
                time.clone(),
                key_exchanges.clone(),
            )
        };
        let (anonymous, connector) = (connector(None), connector(Some(identity)));
        Self {
            anonymous: Line::new(anonymous, trust_domain.clone(), time.clone(), None),
            identified: Mutex::new(None),
            connector,
            trust_domain: trust_domain.clone(),
            time,
        }
    }

    async fn identified(&self) -> Result<Open, ServerError> {
        let line = self.identified.lock().clone();
        let missing = || ServerError::unavailable("this node has not been attested by the server yet");
        line.ok_or_else(missing)?.open().await
    }

    async fn attest(&self, request: NodeAttestation) -> Result<AttestedNode, ServerError> {
        // The present certificate stands in for the API server while that is away. It may as well be what is wrong:
        // then the node proves itself without.
        let identified = async {
            let open = self.identified().await?;
            attested(&open, &request).await
        };
        match identified.await {
            Err(ServerError::Unavailable { .. } | ServerError::Unauthenticated(_)) => {}
            // Its key must not get another one: the caller hears of it, and comes again without.
            Err(error @ ServerError::Revoked { .. }) => {
                *self.identified.lock() = None;
                return Err(error);
            }
            outcome => return outcome,
        }
        attested(&self.anonymous.open().await?, &request).await
    }

    async fn ask(&self, items: Vec<IssueItem>) -> Result<Vec<IssueOutcome>, ServerError> {
        let open = self.identified().await?;
        let (items, known) = convert::known_to_server(items, &open.agreed);
        let asked = items.len();
        if asked == 0 && !known.is_empty() {
            return Ok(convert::in_order(Vec::new(), &known));
        }
        let response = limited(client(&open).issue_x509_svids(convert::issue_request(items))).await?;
        Ok(convert::in_order(convert::outcomes(response, asked)?, &known))
    }

    async fn sync(
        &self,
        reports: watch::Receiver<TrustReport>,
        answers: mpsc::Receiver<Answer>,
    ) -> Result<BoxStream<'static, Result<TrustUpdate, ServerError>>, ServerError> {
        let open = self.identified().await?;
        let outgoing = report_stream(reports, answers, self.time.clone());
        let updates = limited(client(&open).sync_trust(outgoing)).await?;
        let said = open.said();
        let converted = updates.map(move |update| match update {
            Ok(state) => said_by(&said, state),
            Err(status) => Err(convert::error(&status)),
        });
        Ok(converted.boxed())
    }
}

impl GrpcServer {
    async fn read(&self) -> Result<TrustUpdate, ServerError> {
        let open = self.anonymous.open().await?;
        let state = limited(async {
            let mut states = client(&open)
                .get_trust(wire::GetTrustRequest {})
                .await?
                .into_inner();
            let state = states.message().await?;
            state
                .map(Response::new)
                .ok_or_else(|| Status::unavailable("no trust state came"))
        });
        said_by(&open.said(), state.await?)
    }
}

fn client(open: &Open) -> AgentClient<Http2> {
    open.client().max_decoding_message_size(MAX_TRUST_STATE)
}

async fn attested(open: &Open, request: &NodeAttestation) -> Result<AttestedNode, ServerError> {
    let response = limited(client(open).attest_node(convert::attest_request(request))).await?;
    let attested = convert::attested_node(response)?;
    let said = open.said();
    Ok(AttestedNode { said, ..attested })
}

fn said_by(said: &Said, state: wire::TrustState) -> Result<TrustUpdate, ServerError> {
    let said = said.clone();
    let update = convert::trust_update(state)?;
    Ok(TrustUpdate { said, ..update })
}

impl ServerApi for GrpcServer {
    fn attest_node(&self, request: NodeAttestation) -> BoxFuture<'_, Result<AttestedNode, ServerError>> {
        Box::pin(self.attest(request))
    }

    fn issue(&self, items: Vec<IssueItem>) -> BoxFuture<'_, Result<Vec<IssueOutcome>, ServerError>> {
        Box::pin(self.ask(items))
    }

    fn sync_trust(
        &self,
        reports: watch::Receiver<TrustReport>,
        answers: mpsc::Receiver<Answer>,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<TrustUpdate, ServerError>>, ServerError>> {
        Box::pin(self.sync(reports, answers))
    }

    fn read_trust(&self) -> BoxFuture<'_, Result<TrustUpdate, ServerError>> {
        Box::pin(self.read())
    }

    fn identity_changed(&self, serial: SerialNumber) {
        let line = Line::new(
            self.connector.clone(),
            self.trust_domain.clone(),
            self.time.clone(),
            Some(serial),
        );
        // Calls under way keep the old line's connection until they end.
        *self.identified.lock() = Some(Arc::new(line));
    }
}

/// The newest report at once, then each newer one, and one more for each answer; ends when the manager does.
fn report_stream(
    reports: watch::Receiver<TrustReport>,
    answers: mpsc::Receiver<Answer>,
    time: Arc<AgentTime>,
) -> impl stream::Stream<Item = wire::TrustReport> + Send + 'static {
    let begin = (reports, answers, time, true);
    stream::unfold(begin, |(mut reports, mut answers, time, first)| async move {
        let mut answer = Answer::default();
        if !first {
            tokio::select! {
                changed = reports.changed() => changed.ok()?,
                Some(said) = answers.recv() => answer = said,
            }
        }
        let report = reports.borrow_and_update().clone();
        let report = convert::report(report, answer, time.machine());
        Some((report, (reports, answers, time, false)))
    })
}

#[cfg(test)]
mod tests;
