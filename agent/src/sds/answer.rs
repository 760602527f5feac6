//! An answer, and what its proxy makes of it. Pure.

use std::sync::{Arc, Weak};

use signet_proto::google::rpc::Status as Why;

use super::observed::Trust;
use crate::context::X509Context;

/// What a request says of the last answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// Nothing.
    Nothing,
    /// It is in use, and this with it.
    Took(Option<Trust>),
    /// It is not, and why.
    Refused {
        /// gRPC's number.
        code: i32,
        /// The proxy's own words.
        words: String,
    },
}

/// See the [module](self).
pub(super) struct Answer {
    nonce: String,
    trust: Option<Trust>,
    of: Weak<X509Context>,
    /// The proxy has said what became of it.
    settled: bool,
}

impl Answer {
    /// One with the next nonce of its stream that is made of this context; with the trust that it tells, if it tells any.
    pub(super) fn new(nonce: String, context: &Arc<X509Context>, tells_trust: bool) -> Self {
        Self {
            nonce,
            trust: tells_trust.then(|| Trust::of(context)),
            of: Arc::downgrade(context),
            settled: false,
        }
    }

    pub(super) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// What it was made of.
    pub(super) const fn of(&self) -> &Weak<X509Context> {
        &self.of
    }

    /// Takes what a request with this nonce says of it; with `why` it is refused. Each answer is spoken of once, and what is of another
    /// says nothing.
    pub(super) fn settle(&mut self, nonce: &str, why: Option<Why>) -> Heard {
        if self.nonce != nonce || std::mem::replace(&mut self.settled, true) {
            return Heard::Nothing;
        }
        match why {
            Some(why) => Heard::Refused {
                code: why.code,
                words: why.message,
            },
            None => Heard::Took(self.trust),
        }
    }
}
