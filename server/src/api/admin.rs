//! `signet.admin.v1`: what admins ask and order. Whoever opens the socket is an admin; the audit log names the user.

mod audit;
mod audit_tail;
mod authorities;
mod clock;
mod convert;
mod explain;
mod listing;
mod revoking;
mod rule_edits;
mod rules;
mod spreading;
mod status;
mod targets;

use std::{sync::Arc, time::SystemTime};

use signet_certs::{
    id::TrustDomain,
    time::{from_unix_millis, rfc3339},
};
use signet_proto::admin::{self as wire, admin_server};
use signet_runtime::ready::Readiness;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use self::authorities::ProgressStream;
use super::admin_calls::{author, is_about};
use crate::{
    agents::Agents,
    attest::Attestor,
    audit::{AuditLog, AuditPublicKey, AuditTail},
    authority::AuthorityManager,
    clock::TrustedClock,
    issuer::Issuer,
    live_rules::LiveRules,
    metrics::Metrics,
    publisher::{Firsts, Publisher},
    put_back::PutBack,
    store::{Store, StoreError},
    trust::TrustSnapshot,
};

/// The service.
pub(crate) struct AdminService {
    /// Name of the trust domain.
    pub trust_domain: TrustDomain,
    /// Ledger, denials, agents.
    pub store: Arc<dyn Store>,
    /// Authorities.
    pub authorities: AuthorityManager,
    /// Lists.
    pub publisher: Publisher,
    /// Whom the file of control anchors names as distrusted.
    pub firsts: watch::Receiver<Firsts>,
    /// What is published now.
    pub trust: watch::Receiver<Arc<TrustSnapshot>>,
    /// Open trust streams.
    pub agents: Arc<Agents>,
    /// Proofs against the store.
    pub put_back: Arc<PutBack>,
    /// Clusters.
    pub attestor: Arc<dyn Attestor>,
    /// What it refused, and whose budgets are used up.
    pub issuer: Arc<Issuer>,
    /// Whether the server serves.
    pub readiness: Readiness,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The rules in force, and those that wait.
    pub rules: LiveRules,
    /// Wall time.
    pub clock: Arc<TrustedClock>,
    /// Where confirmations of the time are written.
    pub audit: AuditLog,
    /// By what that log is verified.
    pub audit_key: AuditPublicKey,
    /// Its newest lines.
    pub audit_tail: AuditTail,
    /// What should be changed about the configuration.
    pub advice: Vec<String>,
    /// Start of this process.
    pub started: SystemTime,
}

/// Longest answer: a full page of the ledger, or every list.
const MAX_ANSWER_BYTES: usize = 64 << 20;

impl AdminService {
    /// As a gRPC service, with its bounds.
    #[must_use]
    pub(crate) fn into_grpc(self) -> admin_server::AdminServer<Self> {
        admin_server::AdminServer::new(self).max_encoding_message_size(MAX_ANSWER_BYTES)
    }
}

#[tonic::async_trait]
impl admin_server::Admin for AdminService {
    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        self.shown_status().await.map(Response::new)
    }

    async fn show_authorities(
        &self,
        _: Request<wire::ShowAuthoritiesRequest>,
    ) -> Result<Response<wire::ShowAuthoritiesResponse>, Status> {
        self.shown_authorities().await.map(Response::new)
    }

    type PrepareAuthorityStream = ProgressStream;

    async fn prepare_authority(
        &self,
        request: Request<wire::PrepareAuthorityRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        self.prepare(&request).await
    }

    type ActivateAuthorityStream = ProgressStream;

    async fn activate_authority(
        &self,
        request: Request<wire::ActivateAuthorityRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        self.activate(&request).await
    }

    type RotateAuthorityStream = ProgressStream;

    async fn rotate_authority(
        &self,
        request: Request<wire::RotateAuthorityRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        self.rotate(&request).await
    }

    type StartEmergencyStream = ProgressStream;

    async fn start_emergency(
        &self,
        request: Request<wire::StartEmergencyRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        self.emergency(&request).await
    }

    type TaintAuthorityStream = ProgressStream;

    async fn taint_authority(
        &self,
        request: Request<wire::TaintAuthorityRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        self.taint(&request).await
    }

    type RevokeAuthorityStream = ProgressStream;

    async fn revoke_authority(
        &self,
        request: Request<wire::RevokeAuthorityRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        self.take_away(&request).await
    }

    type WatchOperationStream = ProgressStream;

    async fn watch_operation(
        &self,
        request: Request<wire::WatchOperationRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        is_about(&request, &request.get_ref().operation_id);
        self.watched(&request.get_ref().operation_id)
    }

    async fn list_svids(
        &self,
        request: Request<wire::ListSvidsRequest>,
    ) -> Result<Response<wire::ListSvidsResponse>, Status> {
        self.listed_svids(request.into_inner()).await.map(Response::new)
    }

    async fn revoke(
        &self,
        request: Request<wire::RevokeRequest>,
    ) -> Result<Response<wire::RevokeResponse>, Status> {
        let author = author(request.extensions());
        is_about(&request, &revoking::named(request.get_ref()));
        self.revoked(request.into_inner(), author)
            .await
            .map(Response::new)
    }

    type WatchRevocationStream = ReceiverStream<Result<wire::SpreadProgress, Status>>;

    async fn watch_revocation(
        &self,
        request: Request<wire::WatchRevocationRequest>,
    ) -> Result<Response<Self::WatchRevocationStream>, Status> {
        let watched = self.watched_revocation(request.into_inner()).await?;
        Ok(Response::new(watched))
    }

    async fn allow(
        &self,
        request: Request<wire::AllowRequest>,
    ) -> Result<Response<wire::AllowResponse>, Status> {
        let author = author(request.extensions());
        is_about(&request, &request.get_ref().denial_id);
        let lifted = self.lifted(&request.get_ref().denial_id, &author).await?;
        Ok(Response::new(lifted))
    }

    async fn list_denials(
        &self,
        request: Request<wire::ListDenialsRequest>,
    ) -> Result<Response<wire::ListDenialsResponse>, Status> {
        let listed = self.listed_denials(request.get_ref().include_lifted).await?;
        Ok(Response::new(listed))
    }

    async fn show_crls(
        &self,
        _: Request<wire::ShowCrlsRequest>,
    ) -> Result<Response<wire::ShowCrlsResponse>, Status> {
        Ok(Response::new(self.lists()))
    }

    async fn list_agents(
        &self,
        _: Request<wire::ListAgentsRequest>,
    ) -> Result<Response<wire::ListAgentsResponse>, Status> {
        let rows = self.store.agents().await.map_err(store_status)?;
        let agents = rows
            .iter()
            .map(|row| convert::agent(row, self.agents.status(&row.spiffe_id)))
            .collect();
        Ok(Response::new(wire::ListAgentsResponse { agents }))
    }

    async fn list_rules(
        &self,
        _: Request<wire::ListRulesRequest>,
    ) -> Result<Response<wire::ListRulesResponse>, Status> {
        Ok(Response::new(self.listed_rules()))
    }

    async fn confirm_rules(
        &self,
        request: Request<wire::ConfirmRulesRequest>,
    ) -> Result<Response<wire::ConfirmRulesResponse>, Status> {
        let author = author(request.extensions());
        is_about(&request, &request.get_ref().revision);
        let confirmed = self
            .confirmed_rules(&request.into_inner().revision, author)
            .await?;
        Ok(Response::new(confirmed))
    }

    async fn set_rule(
        &self,
        request: Request<wire::SetRuleRequest>,
    ) -> Result<Response<wire::RuleChange>, Status> {
        self.rule_set(request).await.map(Response::new)
    }

    async fn delete_rule(
        &self,
        request: Request<wire::DeleteRuleRequest>,
    ) -> Result<Response<wire::RuleChange>, Status> {
        self.rule_deleted(request).await.map(Response::new)
    }

    async fn test_rule(
        &self,
        request: Request<wire::TestRuleRequest>,
    ) -> Result<Response<wire::TestRuleResponse>, Status> {
        self.rule_tested(request).await.map(Response::new)
    }

    async fn show_clock(&self, _: Request<wire::ShowClockRequest>) -> Result<Response<wire::Clock>, Status> {
        Ok(Response::new(self.shown_clock()))
    }

    async fn confirm_clock(
        &self,
        request: Request<wire::ConfirmClockRequest>,
    ) -> Result<Response<wire::Clock>, Status> {
        let author = author(request.extensions());
        let said = from_unix_millis(request.get_ref().time_unix_ms);
        is_about(&request, &rfc3339(said));
        let confirmed = self.confirmed_clock(said, request.get_ref().force, author)?;
        Ok(Response::new(confirmed))
    }

    async fn show_audit(
        &self,
        _: Request<wire::ShowAuditRequest>,
    ) -> Result<Response<wire::ShowAuditResponse>, Status> {
        self.shown_audit().await.map(Response::new)
    }

    type TailAuditStream = ReceiverStream<Result<wire::AuditLine, Status>>;

    async fn tail_audit(
        &self,
        request: Request<wire::TailAuditRequest>,
    ) -> Result<Response<Self::TailAuditStream>, Status> {
        is_about(&request, &audit_tail::words(request.get_ref()));
        self.audit_tail(request.into_inner()).map(Response::new)
    }

    async fn explain_pod(
        &self,
        request: Request<wire::ExplainPodRequest>,
    ) -> Result<Response<wire::ExplainPodResponse>, Status> {
        let asked = request.get_ref();
        is_about(&request, &format!("pod {}/{}", asked.namespace, asked.name));
        self.explained_pod(request.into_inner()).await.map(Response::new)
    }

    async fn explain_id(
        &self,
        request: Request<wire::ExplainIdRequest>,
    ) -> Result<Response<wire::ExplainIdResponse>, Status> {
        let id = &request.get_ref().spiffe_id;
        is_about(&request, id);
        self.explained_id(id).await.map(Response::new)
    }
}

fn store_status(error: StoreError) -> Status {
    let said = error.to_string();
    match error {
        StoreError::NotFound { .. } => Status::not_found(said),
        StoreError::Invalid { .. } => Status::invalid_argument(said),
        error => {
            tracing::error!(%error, "an admin's request could not be carried out");
            Status::unavailable(error.to_string())
        }
    }
}
