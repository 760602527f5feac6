//! What an admin asks of the machine, and what a successor is to sign with.

use std::sync::Arc;

use signet_certs::signer::SignatureAlgorithm;

use crate::authority::state::{
    Activation, AuthoritySet, AuthorityState, Context, Effect, Refused, Transition,
};

impl AuthoritySet {
    /// What a successor signs with unless an admin says otherwise: what the settings say, else what the one before it does.
    pub(super) fn next_algorithm(&self, context: &Context<'_>) -> SignatureAlgorithm {
        let before = self.active().or_else(|| self.authorities.last());
        let as_before = before.map(|record| record.authority.algorithm);
        context.policy.algorithm().or(as_before).unwrap_or_default()
    }

    /// Prepares a successor, or has the one that is under way take over as soon as is asked for.
    pub(super) fn rotate(
        &self,
        force: bool,
        algorithm: Option<SignatureAlgorithm>,
        author: Arc<str>,
        context: &Context<'_>,
    ) -> Result<Transition, Refused> {
        let wanted = if force {
            Activation::AtOnce
        } else {
            Activation::WhenSpread
        };
        let mut next = self.clone();
        let Some(prepared) = self.prepared() else {
            let algorithm = algorithm.unwrap_or_else(|| self.next_algorithm(context));
            let effects = vec![Effect::GenerateKey {
                algorithm,
                activation: wanted,
                author,
            }];
            return Ok(Transition { next, effects });
        };
        if algorithm.is_some_and(|algorithm| algorithm != prepared.authority.algorithm) {
            return Err(Refused::OtherAlgorithm {
                prepared: prepared.id(),
                algorithm: prepared.authority.algorithm,
            });
        }
        for record in &mut next.authorities {
            if let AuthorityState::Prepared { activation } = &mut record.state {
                *activation = (*activation).max(wanted);
            }
        }
        if next == *self {
            return Ok(Transition {
                next,
                effects: Vec::new(),
            });
        }
        next.set_author(&author);
        Ok(next.changed())
    }

    fn set_author(&mut self, author: &Arc<str>) {
        for record in &mut self.authorities {
            if matches!(record.state, AuthorityState::Prepared { .. }) {
                record.author = author.clone();
            }
        }
    }
}
