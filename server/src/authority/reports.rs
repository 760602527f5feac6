//! What an operation has come to and whom it waits for, for admins who look at it. It does not depend on anyone looking.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::AuthorityKind;
use signet_certs::id::SpiffeId;
use tokio::sync::watch;

use super::operation::{Operation, Stage, Verb};
use super::policy::EMERGENCY_SPREAD;
use super::spread::{SpreadReports, Use};
use super::state::{AuthoritySet, Context};

/// Agents that are waited for and named; of others only the number is told.
const NAMED: usize = 20;

/// Why an agent is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It has not reported the bundle.
    NotReported,
    /// So many certificates of the old authority are current there.
    Uses(u32),
    /// It has not said whether any are.
    HasNotSaid,
    /// Its own certificate is of an authority that is distrusted.
    NotAttested,
}

/// An agent that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// Which.
    pub agent: SpiffeId,
    /// Why.
    pub why: Why,
}

/// How an operation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationReport {
    /// Of which kind of authority.
    pub kind: AuthorityKind,
    /// The operation.
    pub operation: Operation,
    /// What it waits for is in the bundle that readers are served.
    pub is_published: bool,
    /// Live agents, and while something is being replaced those whose own pod is gone; of one that has ended, then.
    pub agents: usize,
    /// Those of them that are not waited for; of one that has ended, that had reported it.
    pub reported: usize,
    /// Some of the others, by name.
    pub awaited: Vec<Awaited>,
    /// While a successor spreads: it does not take over before this, unless forced.
    pub not_before: Option<SystemTime>,
    /// From then on silence no longer delays it.
    pub at_latest: Option<SystemTime>,
}

impl OperationReport {
    /// Every operation of a kind that is remembered.
    pub(super) fn all(kind: AuthorityKind, set: &AuthoritySet, context: &Context<'_>) -> Vec<Self> {
        let operations = set.operations().iter();
        operations
            .map(|operation| Self::of(kind, operation, set, context))
            .collect()
    }

    fn of(kind: AuthorityKind, operation: &Operation, set: &AuthoritySet, context: &Context<'_>) -> Self {
        let (mut not_before, mut at_latest) = (None, None);
        let mut sequence = None;
        let behind = match operation.stage {
            Stage::Done | Stage::Superseded => Vec::new(),
            Stage::Draining | Stage::Telling if operation.verb == Verb::Emergency => {
                sequence = set
                    .told_by(operation)
                    .or_else(|| set.shown_tainted(operation.previous?));
                not_replaced(operation, set, context)
            }
            Stage::Draining => {
                let tainted = operation
                    .previous
                    .map(|previous| (previous, set.shown_tainted(previous)));
                sequence = tainted.and_then(|(_, shown)| shown);
                tainted.map_or_else(Vec::new, |(previous, shown)| {
                    let users = context.reports.users(previous, shown);
                    users.map(|(agent, usage)| (agent, why(usage))).collect()
                })
            }
            Stage::Spreading if operation.verb == Verb::Emergency => {
                let introduced = set.prepared().and_then(|prepared| prepared.introduced);
                sequence = introduced.map(|introduced| introduced.sequence);
                at_latest = introduced.map(|introduced| introduced.at + EMERGENCY_SPREAD);
                let without = context.reports.connected_without(sequence.unwrap_or(u64::MAX));
                without.map(|agent| (agent, Why::NotReported)).collect()
            }
            Stage::Spreading => {
                if let Some(status) = set.spread_status(context) {
                    sequence = Some(status.sequence);
                    (not_before, at_latest) = (Some(status.not_before), Some(status.at_latest));
                }
                not_reported(context.reports, sequence)
            }
            Stage::Telling => {
                sequence = set.told_by(operation);
                not_reported(context.reports, sequence)
            }
        };
        let agents = match operation.stage {
            Stage::Draining => context.reports.holders(),
            _ => context.reports.live(),
        };
        let reported = agents.saturating_sub(behind.len());
        let told = operation.told.unwrap_or_default();
        let (agents, reported) = if operation.stage.is_end() {
            (told.agents, told.reported)
        } else {
            (agents, reported)
        };
        Self {
            kind,
            operation: operation.clone(),
            is_published: sequence.is_some(),
            agents,
            reported,
            awaited: first(behind),
            not_before,
            at_latest,
        }
    }

    /// Agents that are waited for, named or not.
    pub(crate) const fn awaited_total(&self) -> usize {
        if self.operation.stage.is_end() {
            return 0;
        }
        self.agents.saturating_sub(self.reported)
    }
}

/// Who has yet to replace what those before have signed: where the bundle comes first, for workloads; else for itself.
fn not_replaced<'a>(
    operation: &Operation,
    set: &AuthoritySet,
    context: &'a Context<'_>,
) -> Vec<(&'a SpiffeId, Why)> {
    let reports = context.reports;
    if !context.policy.emergency().bundle_first {
        let trusted = set.ids();
        let others = reports.not_of(&trusted);
        return others.map(|agent| (agent, Why::NotAttested)).collect();
    }
    let previous = operation.previous.filter(|previous| set.get(*previous).is_some());
    previous.map_or_else(Vec::new, |previous| {
        let users = reports.users(previous, set.shown_tainted(previous));
        users.map(|(agent, usage)| (agent, why(usage))).collect()
    })
}

fn not_reported(reports: &SpreadReports, sequence: Option<u64>) -> Vec<(&SpiffeId, Why)> {
    let behind = reports.waited_for(sequence.unwrap_or(u64::MAX));
    behind.map(|agent| (agent, Why::NotReported)).collect()
}

const fn why(usage: Use) -> Why {
    match usage {
        Use::Certificates(count) => Why::Uses(count),
        Use::Unknown => Why::HasNotSaid,
    }
}

fn first(mut behind: Vec<(&SpiffeId, Why)>) -> Vec<Awaited> {
    behind.sort_unstable_by_key(|(agent, _)| *agent);
    let named = behind.into_iter().take(NAMED);
    named
        .map(|(agent, why)| Awaited {
            agent: agent.clone(),
            why,
        })
        .collect()
}

/// Follows one operation. What happens between two looks is seen as its outcome.
#[derive(Debug)]
pub(crate) struct OperationSteps {
    reports: watch::Receiver<Arc<[OperationReport]>>,
    kind: AuthorityKind,
    number: u64,
    last: Option<OperationReport>,
}

impl OperationSteps {
    pub(super) const fn new(
        reports: watch::Receiver<Arc<[OperationReport]>>,
        kind: AuthorityKind,
        number: u64,
    ) -> Self {
        Self {
            reports,
            kind,
            number,
            last: None,
        }
    }

    /// How it stands now, or the next change. Nothing after its end, or when the server stops before: it goes on with the next start.
    pub(crate) async fn next(&mut self) -> Option<OperationReport> {
        if self
            .last
            .as_ref()
            .is_some_and(|last| last.operation.stage.is_end())
        {
            return None;
        }
        loop {
            let found = {
                let all = self.reports.borrow_and_update();
                let mut all = all.iter();
                all.find(|one| one.kind == self.kind && one.operation.number == self.number)
                    .cloned()
            };
            if found.is_some() && found != self.last {
                self.last.clone_from(&found);
                return found;
            }
            self.reports.changed().await.ok()?;
        }
    }
}
