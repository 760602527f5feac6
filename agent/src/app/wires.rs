//! The channels between the parts.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::serial::SerialNumber;
use signet_certs::tls::KeyExchange;
use tokio::sync::watch;

use crate::node::NodeState;
use crate::server_client::TrustReport;
use crate::server_client::objections::Objections;
use crate::server_client::sync::Connection;
use crate::server_client::trust::TrustState;

/// What each part tells the others.
pub(super) struct Wires {
    pub(super) node: watch::Sender<NodeState>,
    pub(super) certificate: watch::Sender<Option<SerialNumber>>,
    pub(super) trust: watch::Sender<Option<Arc<TrustState>>>,
    pub(super) connection: watch::Sender<Connection>,
    pub(super) key_exchange: watch::Sender<Option<KeyExchange>>,
    pub(super) outage: watch::Sender<Option<SystemTime>>,
    pub(super) reports: watch::Sender<TrustReport>,
    pub(super) objections: Arc<Objections>,
}

impl Wires {
    /// Of an agent that starts.
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            node: watch::Sender::default(),
            certificate: watch::Sender::default(),
            trust: watch::Sender::default(),
            connection: watch::Sender::new(Connection::none_since(now)),
            key_exchange: watch::Sender::default(),
            outage: watch::Sender::default(),
            reports: watch::Sender::default(),
            objections: Arc::default(),
        }
    }
}
