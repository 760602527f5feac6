//! What admins ask of the machine about successors, and what a successor is to sign with.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::signer::SignatureAlgorithm;

use crate::authority::operation::{Operation, Order, Stage, Verb};
use crate::authority::state::{Activation, AuthorityRecord, AuthoritySet, AuthorityState, Context, Refused};
use crate::authority::transition::{Effect, Transition};

impl AuthoritySet {
    /// What a successor signs with unless an admin says otherwise: what the settings say, else what the one before it does.
    pub(super) fn next_algorithm(&self, context: &Context<'_>) -> SignatureAlgorithm {
        let before = self.active().or_else(|| self.authorities.last());
        let as_before = before.map(|record| record.authority.algorithm);
        context.policy.algorithm().or(as_before).unwrap_or_default()
    }

    /// Takes an order, or joins what is under way for the same.
    pub(super) fn ordered(
        &self,
        order: Order,
        author: Arc<str>,
        context: &Context<'_>,
    ) -> Result<Transition, Refused> {
        match order {
            Order::Prepare { algorithm } => {
                self.succeed(Verb::Prepare, Activation::OnSchedule, algorithm, author, context)
            }
            Order::Activate { force } => self.activate(force, author, context),
            Order::Rotate {
                force,
                algorithm,
                retire,
            } => {
                let activation = if force {
                    Activation::AtOnce
                } else {
                    Activation::WhenSpread
                };
                let verb = if retire { Verb::Retire } else { Verb::Rotate };
                if retire && let Some(retiring) = self.retiring() {
                    self.check_algorithm(retiring.target, algorithm)?;
                    return Ok(self.joined(retiring.number));
                }
                if retire && self.active().is_none() {
                    return Err(Refused::NothingToRetire);
                }
                self.succeed(verb, activation, algorithm, author, context)
            }
            Order::Emergency { algorithm } => self.emergency(algorithm, author, context),
            Order::Taint { authority } => self.tainted(authority, author, context.at.now),
            Order::Revoke { authority, force } => self.revoked(authority, force, author, context),
        }
    }

    /// Prepares a successor, or has the one that is under way take over as soon as is asked for.
    fn succeed(
        &self,
        verb: Verb,
        wanted: Activation,
        algorithm: Option<SignatureAlgorithm>,
        author: Arc<str>,
        context: &Context<'_>,
    ) -> Result<Transition, Refused> {
        let Some(prepared) = self.prepared() else {
            let algorithm = algorithm.unwrap_or_else(|| self.next_algorithm(context));
            let effects = vec![Effect::GenerateKey {
                algorithm,
                activation: wanted,
                author,
                verb: Some(verb),
            }];
            return Ok(self.clone().does(effects));
        };
        self.check_algorithm(prepared.id(), algorithm)?;
        self.raised(verb, wanted, author, context.at.now)
    }

    /// What is under way with a successor is joined by whoever wants the same of its key.
    fn check_algorithm(
        &self,
        successor: AuthorityId,
        wanted: Option<SignatureAlgorithm>,
    ) -> Result<(), Refused> {
        let algorithm = self.get(successor).map(|record| record.authority.algorithm);
        match (algorithm, wanted) {
            (Some(algorithm), Some(wanted)) if algorithm != wanted => Err(Refused::OtherAlgorithm {
                prepared: successor,
                algorithm,
            }),
            _ => Ok(()),
        }
    }

    /// Always with a key of its own: whoever has one of this kind may have the prepared one too.
    fn emergency(
        &self,
        algorithm: Option<SignatureAlgorithm>,
        author: Arc<str>,
        context: &Context<'_>,
    ) -> Result<Transition, Refused> {
        if self.active().is_none() {
            return Err(Refused::NothingToReplace);
        }
        let mut running = self.operations.running();
        let same = running.find(|one| one.verb == Verb::Emergency && one.stage != Stage::Telling);
        if let Some(same) = same {
            self.check_algorithm(same.target, algorithm)?;
            return Ok(self.joined(same.number));
        }
        let effects = vec![Effect::GenerateKey {
            algorithm: algorithm.unwrap_or_else(|| self.next_algorithm(context)),
            activation: Activation::InEmergency,
            author,
            verb: Some(Verb::Emergency),
        }];
        Ok(self.clone().does(effects))
    }

    fn activate(&self, force: bool, author: Arc<str>, context: &Context<'_>) -> Result<Transition, Refused> {
        let prepared = self.prepared().ok_or(Refused::NothingPrepared)?;
        if force {
            return self.raised(Verb::Activate, Activation::AtOnce, author, context.at.now);
        }
        let status = self.spread_status(context);
        if !status.is_some_and(|status| status.is_open(context.at.now)) {
            return Err(Refused::NotSpread {
                authority: prepared.id(),
                confirmed: status.map_or(0, |status| status.confirmed),
                live: context.reports.live(),
                not_before: status.map(|status| status.not_before),
            });
        }
        self.raised(Verb::Activate, Activation::WhenSpread, author, context.at.now)
    }

    /// The prepared one takes over no later than is wanted.
    fn raised(
        &self,
        verb: Verb,
        wanted: Activation,
        author: Arc<str>,
        now: SystemTime,
    ) -> Result<Transition, Refused> {
        let mut next = self.clone();
        let mut target = None;
        for record in &mut next.authorities {
            let AuthorityState::Prepared { activation } = &mut record.state else {
                continue;
            };
            if wanted > *activation {
                *activation = wanted;
                record.author = author.clone();
            }
            target = Some(record.id());
        }
        let target = target.ok_or(Refused::NothingPrepared)?;
        let operation = next.begin(verb, target, author, now)?;
        Ok(next.joined(operation).from(self))
    }

    /// Records an operation, or joins the one under way over the same authority, which is then for whichever goes further, and of whoever
    /// asked for that.
    pub(super) fn begin(
        &mut self,
        verb: Verb,
        target: AuthorityId,
        author: Arc<str>,
        now: SystemTime,
    ) -> Result<u64, Refused> {
        let is_same = |other: Verb| other.has_successor() == verb.has_successor();
        for operation in self.operations.running_mut() {
            if operation.target == target && is_same(operation.verb) {
                if verb > operation.verb {
                    operation.verb = verb;
                    operation.author = author;
                }
                return Ok(operation.number);
            }
        }
        let previous = verb.has_successor().then(|| self.active()).flatten();
        let operation = Operation {
            number: 0,
            verb,
            target,
            previous: previous.map(AuthorityRecord::id),
            author,
            begun: now,
            stage: if verb.has_successor() {
                Stage::Spreading
            } else {
                Stage::Telling
            },
            ended: None,
            told: None,
        };
        self.operations.begin(operation).map_err(|_| Refused::TooMany)
    }

    /// The retirement under way whose successor has taken over.
    fn retiring(&self) -> Option<&Operation> {
        let mut running = self.operations.running();
        running.find(|one| one.verb == Verb::Retire && one.stage != Stage::Spreading)
    }

    /// As it stands, with the operation that an order has begun or joined.
    pub(super) fn joined(&self, operation: u64) -> Transition {
        Transition {
            operation: Some(operation),
            ..self.clone().does(Vec::new())
        }
    }
}

impl Transition {
    /// With what has to be done if anything has changed since `before`.
    pub(super) fn from(mut self, before: &AuthoritySet) -> Self {
        if self.next != *before {
            self.effects = vec![Effect::SaveJournal, Effect::Publish];
        }
        self
    }
}
