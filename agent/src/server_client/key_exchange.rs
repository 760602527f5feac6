//! The key exchange with the server: what is offered, and what the newest connection of this agent has had.

use rustls::{AlertDescription, Error};
use signet_certs::tls::{Hybrid, KeyExchange};
use tokio::sync::watch;

/// What is offered to the server, and where it is told what came of it. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyExchanges {
    offered: Hybrid,
    newest: watch::Sender<Option<KeyExchange>>,
}

impl KeyExchanges {
    /// As the configuration says; told to `newest`.
    pub(crate) const fn new(offered: Hybrid, newest: watch::Sender<Option<KeyExchange>>) -> Self {
        Self { offered, newest }
    }

    pub(super) const fn offered(&self) -> Hybrid {
        self.offered
    }

    /// A connection has had this one.
    pub(super) fn had(&self, group: Option<KeyExchange>) {
        self.newest
            .send_if_modified(|newest| std::mem::replace(newest, group) != group);
    }

    /// What a failed handshake says about the two having none in common; `None` where it may be anything else.
    pub(super) fn words(&self, error: &Error) -> Option<&'static str> {
        if *error != Error::AlertReceived(AlertDescription::HandshakeFailure) {
            return None;
        }
        match self.offered {
            Hybrid::Prefer => None,
            Hybrid::Require => Some(
                "it broke off the TLS handshake, as who lacks X25519MLKEM768 does: this agent offers no other key exchange \
                 (tls.hybrid: require)",
            ),
            Hybrid::Off => Some(
                "it broke off the TLS handshake, as who requires X25519MLKEM768 does: this agent does not offer that key exchange \
                 (tls.hybrid: off)",
            ),
        }
    }
}
