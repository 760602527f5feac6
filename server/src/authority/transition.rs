//! What a step of the machine leads to.

use std::sync::Arc;

use signet_certs::authority::AuthorityId;
use signet_certs::signer::SignatureAlgorithm;

use super::operation::Verb;
use super::state::{Activation, AuthoritySet};

/// What the worker has to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Write the new state. If this fails, the transition has not happened.
    SaveJournal,
    /// Show the new state to issuers and to the publisher.
    Publish,
    /// Drop the key. Its sealed copy goes in the transaction of the journal, so that no crash can leave it behind.
    DeleteKey(AuthorityId),
    /// Ask the ledger for the last leaf of an Old authority; answer with an event.
    CheckLastLeaf(AuthorityId),
    /// Make a key and its material; answer with [`Event::Prepared`](super::state::Event::Prepared).
    GenerateKey {
        /// What the key signs with.
        algorithm: SignatureAlgorithm,
        /// To be handed back.
        activation: Activation,
        /// To be handed back.
        author: Arc<str>,
        /// To be handed back.
        verb: Option<Verb>,
    },
}

/// What an event leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    /// The state after it.
    pub next: AuthoritySet,
    /// What has to be done, in order.
    pub effects: Vec<Effect>,
    /// The operation that an order has begun or joined.
    pub operation: Option<u64>,
}
