//! Orders about authorities: given, followed, and followed again after the connection broke.

mod followed;

use std::time::Duration;

use signet_proto::admin as wire;
use signet_runtime::{cli::Answer, output::Narration};
use tokio::select;
use tonic::{Code, Status, Streaming};

use self::followed::{Away, Followed};
use super::{AdminClient, render, said};

/// How long one is waited for that is away. What is recorded goes on with its next start, whoever waits.
const AWAY: Duration = Duration::from_secs(600);

/// What is asked of authorities.
#[derive(Clone, Debug)]
pub enum CaOrder {
    /// Make a successor and let it spread.
    Prepare {
        /// `x509` or `control`.
        kind: String,
        /// `p256`, `p384`, or nothing.
        algorithm: String,
    },
    /// The successor takes over.
    Activate {
        /// `x509` or `control`.
        kind: String,
        /// Though it has not spread.
        force: bool,
    },
    /// Prepare, spread, activate.
    Rotate {
        /// `x509` or `control`.
        kind: String,
        /// Without waiting for it to spread.
        force: bool,
        /// `p256`, `p384`, or nothing.
        algorithm: String,
        /// Then take the old one out of every bundle.
        retire: bool,
    },
    /// Another authority at once, and all before it out.
    Emergency {
        /// `x509` or `control`.
        kind: String,
        /// `p256`, `p384`, or nothing.
        algorithm: String,
    },
    /// What this one has signed is replaced.
    Taint {
        /// Its id.
        authority: String,
    },
    /// This one leaves every bundle.
    Revoke {
        /// Its id.
        authority: String,
        /// Though it is in use.
        force: bool,
    },
}

impl CaOrder {
    /// A plain rotation of the workloads' authority.
    #[must_use]
    pub fn rotation() -> Self {
        Self::Rotate {
            kind: "x509".to_owned(),
            force: false,
            algorithm: String::new(),
            retire: false,
        }
    }
}

impl AdminClient {
    /// All authorities, and what is under way with them.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn authorities(&mut self) -> anyhow::Result<Answer> {
        Ok(render::shown_authorities(&self.show_authorities().await?))
    }

    /// The certificates of all control authorities.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn anchors(&mut self) -> anyhow::Result<Answer> {
        Ok(render::anchors(&self.show_authorities().await?))
    }

    async fn show_authorities(&mut self) -> anyhow::Result<wire::ShowAuthoritiesResponse> {
        let asked = self.inner.show_authorities(wire::ShowAuthoritiesRequest {}).await;
        Ok(asked.map_err(said)?.into_inner())
    }

    /// Gives an order, and tells how it goes on until it is done; with `waits` false until it is recorded. A server that goes away meanwhile
    /// is looked for again. An admin who `leaves` is told how to come back.
    ///
    /// # Errors
    /// What the server answered, that it has been away for long, or that the admin left; what is recorded goes on there.
    pub async fn order(
        &mut self,
        order: CaOrder,
        waits: bool,
        narration: Narration,
        leaves: impl Future<Output = ()>,
    ) -> anyhow::Result<Answer> {
        let steps = self.ordered(order).await.map_err(|status| match status.code() {
            // The server did not say no: it went away.
            Code::Unknown | Code::Cancelled | Code::Internal => unheard(Some(&status)),
            _ => said(status),
        })?;
        let mut followed = Followed::new(None, narration);
        select! {
            answer = self.follow(steps, waits, &mut followed) => answer,
            () = leaves => Err(followed.left()),
        }
    }

    /// Tells how an operation goes on that was ordered before, until it is done.
    ///
    /// # Errors
    /// As of [`order`](Self::order).
    pub async fn wait_for(
        &mut self,
        operation: String,
        narration: Narration,
        leaves: impl Future<Output = ()>,
    ) -> anyhow::Result<Answer> {
        let request = wire::WatchOperationRequest {
            operation_id: operation.clone(),
        };
        let steps = self.inner.watch_operation(request).await.map_err(said)?;
        let mut followed = Followed::new(Some(operation), narration);
        select! {
            answer = self.follow(steps.into_inner(), true, &mut followed) => answer,
            () = leaves => Err(followed.left()),
        }
    }

    async fn follow(
        &mut self,
        mut steps: Streaming<wire::AuthorityProgress>,
        waits: bool,
        followed: &mut Followed,
    ) -> anyhow::Result<Answer> {
        loop {
            let broke = match steps.message().await {
                Ok(Some(step)) => {
                    followed.heard(&step);
                    if step.done {
                        return render::ordered(&step);
                    }
                    if step.recorded && !waits {
                        return Ok(render::recorded(&step));
                    }
                    continue;
                }
                Ok(None) => None,
                Err(status) => Some(status),
            };
            let Some(id) = &followed.operation else {
                return Err(unheard(broke.as_ref()));
            };
            followed.narration.line(&format!(
                "the server is away; {id} is recorded and goes on with its next start"
            ));
            steps = self.watched_again(id, &mut followed.away).await?;
        }
    }

    async fn ordered(&mut self, order: CaOrder) -> Result<Streaming<wire::AuthorityProgress>, Status> {
        let steps = match order {
            CaOrder::Prepare { kind, algorithm } => {
                let request = wire::PrepareAuthorityRequest { kind, algorithm };
                self.inner.prepare_authority(request).await
            }
            CaOrder::Activate { kind, force } => {
                let request = wire::ActivateAuthorityRequest { kind, force };
                self.inner.activate_authority(request).await
            }
            CaOrder::Rotate {
                kind,
                force,
                algorithm,
                retire,
            } => {
                let request = wire::RotateAuthorityRequest {
                    kind,
                    force,
                    algorithm,
                    retire,
                };
                self.inner.rotate_authority(request).await
            }
            CaOrder::Emergency { kind, algorithm } => {
                let request = wire::StartEmergencyRequest { kind, algorithm };
                self.inner.start_emergency(request).await
            }
            CaOrder::Taint { authority } => {
                let request = wire::TaintAuthorityRequest {
                    authority_id: authority,
                };
                self.inner.taint_authority(request).await
            }
            CaOrder::Revoke { authority, force } => {
                let request = wire::RevokeAuthorityRequest {
                    authority_id: authority,
                    force,
                };
                self.inner.revoke_authority(request).await
            }
        };
        steps.map(tonic::Response::into_inner)
    }

    /// The same operation once more, as soon as a server answers.
    async fn watched_again(
        &mut self,
        id: &str,
        away: &mut Away,
    ) -> anyhow::Result<Streaming<wire::AuthorityProgress>> {
        loop {
            away.pause().await;
            let request = wire::WatchOperationRequest {
                operation_id: id.to_owned(),
            };
            match self.inner.watch_operation(request).await {
                Ok(steps) => return Ok(steps.into_inner()),
                Err(status) if is_an_answer(&status) => return Err(said(status)),
                Err(status) => anyhow::ensure!(
                    away.spent < AWAY,
                    "the server was away for {} minutes since this last came on{}; {id} goes on with its next start: `signet-server ca wait {id}`",
                    AWAY.as_secs() / 60,
                    because(Some(&status))
                ),
            }
        }
    }
}

fn unheard(broke: Option<&Status>) -> anyhow::Error {
    anyhow::anyhow!(
        "the connection broke before the server said that it is recorded{}: see `ca show`, then ask again",
        because(broke)
    )
}

/// A server says no, as opposed to a connection that breaks.
fn is_an_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unimplemented
    )
}

fn because(status: Option<&Status>) -> String {
    let message = status.map(Status::message).filter(|message| !message.is_empty());
    message.map_or_else(String::new, |message| format!(" ({message})"))
}
