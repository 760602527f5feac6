//! A line to the server: one connection at a time, each opened by Hello before anything else is said over it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::AlertDescription;
use signet_certs::id::TrustDomain;
use signet_certs::serial::SerialNumber;
use signet_proto::agent::agent_client::AgentClient;
use signet_proto::agent::opening::Agreement;
use tokio::sync::Mutex;
use tonic::{Response, Status};

use super::connect::{Connector, Http2};
use super::trust::Said;
use super::{ServerError, convert};
use crate::time::AgentTime;

/// One call that is not a stream; and opening a connection, with the wait for whoever is doing it.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Connects when it is needed, and again when the connection was lost. What Hello agrees on holds for one connection: the
/// server behind the next one may be another.
pub(super) struct Line {
    connector: Connector,
    trust_domain: TrustDomain,
    time: Arc<AgentTime>,
    /// Of the certificate that is presented.
    presents: Option<SerialNumber>,
    /// Locked while a connection is being opened: one opens it, the others wait.
    open: Mutex<Option<Open>>,
}

/// An open connection.
#[derive(Clone)]
pub(super) struct Open {
    connection: Http2,
    /// What Hello agreed on.
    pub(super) agreed: Arc<Agreement>,
}

impl Open {
    /// Who says what comes over this connection.
    pub(super) fn said(&self) -> Said {
        self.connection.said()
    }

    /// For calls over this connection.
    pub(super) fn client(&self) -> AgentClient<Http2> {
        client(self.connection.clone())
    }
}

fn client(connection: Http2) -> AgentClient<Http2> {
    // The name is never checked: the SPIFFE ID counts.
    AgentClient::with_origin(connection, Uri::from_static("http://signet-server"))
}

impl Line {
    /// Connects to nobody yet. `presents` is the serial of the certificate that is presented, if one is.
    pub(super) fn new(
        connector: Connector,
        trust_domain: TrustDomain,
        time: Arc<AgentTime>,
        presents: Option<SerialNumber>,
    ) -> Self {
        Self {
            connector,
            trust_domain,
            time,
            presents,
            open: Mutex::new(None),
        }
    }

    /// The open connection, or a new one after its Hello.
    pub(super) async fn open(&self) -> Result<Open, ServerError> {
        let opening = async {
            let mut held = self.open.lock().await;
            if let Some(open) = held.as_ref().filter(|open| !open.connection.is_closed()) {
                return Ok(open.clone());
            }
            let open = self.connect().await?;
            *held = Some(open.clone());
            Ok(open)
        };
        tokio::time::timeout(CALL_LIMIT, opening)
            .await
            .unwrap_or_else(|_| Err(no_answer()))
    }

    /// The server has judged the certificate only after the handshake was over on this side.
    fn refused(&self, connection: &Http2, error: ServerError) -> ServerError {
        match (connection.alert(), self.presents) {
            (Some(alert), Some(serial)) => rejected(alert, serial),
            _ => error,
        }
    }

    async fn connect(&self) -> Result<Open, ServerError> {
        let unreachable = |error: std::io::Error| ServerError::unavailable(error.to_string());
        let connection = self.connector.connect().await.map_err(unreachable)?;
        let request = convert::hello_request(self.time.machine());
        let answer = limited(client(connection.clone()).hello(request)).await;
        let hello = convert::hello(answer.map_err(|error| self.refused(&connection, error))?)?;
        if hello.trust_domain != self.trust_domain.as_str() {
            return Err(ServerError::Refused(format!(
                "the server serves trust domain {:?}, this agent belongs to {}",
                hello.trust_domain, self.trust_domain
            )));
        }
        if let Some(date) = hello.clock {
            self.time.tell(date);
        }
        tracing::debug!(server = hello.software, agreed = ?hello.agreed, "connection to the server opened");
        Ok(Open {
            connection,
            agreed: Arc::new(hello.agreed),
        })
    }
}

/// What the alert says that ends a connection right after its handshake.
fn rejected(alert: AlertDescription, presented: SerialNumber) -> ServerError {
    let why = match alert {
        AlertDescription::CertificateRevoked => "it is revoked".to_owned(),
        AlertDescription::CertificateExpired => "by the server's clock it is outside its dates".to_owned(),
        AlertDescription::CertificateUnknown => "the server's audit log says why".to_owned(),
        other => format!("it broke off with the TLS alert {other:?}"),
    };
    let message = format!("the server does not accept the agent's certificate {presented}: {why}");
    match alert {
        AlertDescription::CertificateRevoked => ServerError::Revoked {
            message,
            serial: presented,
        },
        _ => ServerError::Unauthenticated(message),
    }
}

/// What came of a call.
pub(super) async fn limited<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ServerError> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(convert::error(&status)),
        Err(_) => Err(no_answer()),
    }
}

fn no_answer() -> ServerError {
    ServerError::unavailable("the server did not answer in time")
}
