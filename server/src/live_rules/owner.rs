//! What becomes of what the sources say.

mod editing;
mod merging;
mod showing;

use std::{sync::Arc, time::Duration};

use signet_runtime::bucket::{Bucket, Rate};
use tokio::{sync::watch, time::Instant};

use super::{
    Changed, LiveRulesParts, NotConfirmed, OfSource, Revision, Source, Standing,
    accepted::{self, Change},
    admins::AdminRules,
    beginning::Beginning,
    holders::{self, NotWeighed},
    source::{Reading, Unusable},
    weigh::Weighed,
};
use crate::{
    audit_event::AuditAction,
    rules::{RuleSet, WrittenRules},
    store::{LiveIdentity, StoreError},
};

/// How often the source is judged: each time may move every agent. What comes faster is judged together.
const JUDGED: Rate = Rate {
    per_second: 0.1,
    burst: 3.0,
};
/// How often edits of admins may change what is in force or waits, for the same reason.
pub(super) const EDITS: Rate = Rate {
    per_second: 1.0,
    burst: 20.0,
};
/// How long a start waits for the pods of its clusters, before it weighs by what the ledger knows.
pub(super) const PODS_KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// In the audit log: a change of the source needed no confirmation.
const SOURCE: &str = "source";

/// The owner of the rules in force.
pub(super) struct Owner {
    parts: LiveRulesParts,
    current: watch::Sender<Arc<RuleSet>>,
    standing: watch::Sender<Standing>,
    /// What was read last, and what was judged last.
    read: Option<Reading>,
    judged: Option<Reading>,
    /// To be judged whatever it is, as soon as that may be.
    is_due: bool,
    /// The rules of the file as it was judged last, or why they cannot be used.
    file: Result<WrittenRules, Unusable>,
    /// What admins have set.
    admins: AdminRules,
    pace: Bucket,
    edits: Bucket,
    /// From then on it goes by what is known of the pods.
    known_by: Instant,
}

impl Owner {
    pub(super) fn new(parts: LiveRulesParts, found: Beginning) -> Self {
        let owner = Self {
            current: watch::Sender::new(found.in_force),
            standing: watch::Sender::new(Standing {
                source: OfSource::NotWeighed,
                restart_for: Vec::new(),
                is_put_off: false,
                set: Arc::default(),
            }),
            read: None,
            judged: None,
            is_due: false,
            file: found.file,
            admins: found.admins,
            pace: Bucket::full(JUDGED, Instant::now()),
            edits: Bucket::full(EDITS, Instant::now()),
            known_by: Instant::now() + PODS_KNOWN_WITHIN,
            parts,
        };
        owner.stands(found.source);
        owner.show_set();
        owner
    }

    pub(super) fn current(&self) -> watch::Receiver<Arc<RuleSet>> {
        self.current.subscribe()
    }

    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(super) fn source(&self) -> Source {
        self.parts.source.clone()
    }

    /// Whether the rules of the source are more than read.
    pub(super) fn is_weighed(&self) -> bool {
        !matches!(self.standing.borrow().source, OfSource::NotWeighed)
    }

    /// Whether every pod is known that can be, so that weighing is no guess. Late is as good as known: what is not known counts as
    /// lost where it may be.
    pub(super) fn pods_are_known(&self) -> bool {
        if Instant::now() >= self.known_by {
            return true;
        }
        let clusters = self.parts.attestor.clusters();
        clusters
            .iter()
            .all(|cluster| cluster.synced || cluster.unreachable_since.is_some())
    }

    fn in_force(&self) -> Arc<RuleSet> {
        self.current.borrow().clone()
    }

    /// Takes in what the source says. It is judged when somebody `asked`, and when it is new and has been the same twice: a
    /// file that is being written says half of it.
    pub(super) async fn take(&mut self, reading: Reading, asked: bool) {
        let stands_still = self.read.replace(reading.clone()).as_ref() == Some(&reading);
        let is_new = self.judged.as_ref() != Some(&reading);
        self.is_due |= asked;
        let is_ripe = is_new && stands_still;
        if !self.is_due && !is_ripe {
            // Taken back meanwhile, or about to stand still.
            self.put_off(false);
            return;
        }
        // Where it may not be judged yet the next look finds it as it is then.
        let may_be = self.pace.take(Instant::now()).is_ok();
        self.put_off(!may_be);
        if !may_be {
            return;
        }
        self.is_due = false;
        self.judged = self.judge(&reading).await.then_some(reading);
    }

    /// False where it is to be judged once more, though it stays as it is.
    async fn judge(&mut self, reading: &Reading) -> bool {
        let checked = match reading {
            Ok(text) => self.check(text.clone()).await,
            Err(problem) => Err(Unusable::all(problem.clone())),
        };
        let (file, rules, restart_for) = match checked {
            Ok(checked) => checked,
            Err(unusable) => {
                self.unusable(unusable.problem.clone());
                self.file = Err(unusable);
                return true;
            }
        };
        self.file = Ok(file);
        self.needs_restart(restart_for);
        if rules.revision() == self.in_force().revision() {
            if !matches!(self.standing.borrow().source, OfSource::InForce) {
                tracing::info!("the rules of the configuration and of admins are those in force");
            }
            self.moved(rules).await;
            self.stands(OfSource::InForce);
            return true;
        }
        let weighed = match self.weigh(&rules).await {
            Ok((weighed, _)) => weighed,
            Err(error) => {
                self.unusable(format!("it is not known what they would withdraw: {error}"));
                return false;
            }
        };
        if weighed.withdrawn.count > self.parts.confirm_above {
            self.wait(rules, weighed);
            return true;
        }
        let accepted = self.accept(rules, weighed.withdrawn.count, SOURCE, None).await;
        if let Err(error) = &accepted {
            self.unusable(format!("the store does not take them: {error}"));
        }
        accepted.is_ok()
    }

    async fn weigh(&self, rules: &Arc<RuleSet>) -> Result<(Weighed, Vec<LiveIdentity>), NotWeighed> {
        let parts = &self.parts;
        holders::compare(
            (parts.store.as_ref(), parts.attestor.clone()),
            (self.in_force(), rules.clone()),
            parts.clock.time().earliest,
        )
        .await
    }

    /// Stored first, then in force, then told: whoever is issued to in between is found among those who hold something, or finds
    /// the new rules when his row is written.
    async fn accept(
        &mut self,
        rules: Arc<RuleSet>,
        withdrawn: u64,
        author: &str,
        edited: Option<(String, AuditAction)>,
    ) -> Result<Changed, StoreError> {
        let before = self.in_force();
        let now = self.parts.clock.now();
        let change = Change {
            author,
            previous: Some(Revision(before.revision()).to_string()),
            withdrawn,
            untold_since: Some(now),
            edited,
        };
        let store = self.parts.store.clone();
        accepted::keep(store.as_ref(), &rules, change, now).await?;
        let changed = Changed {
            revision: rules.revision(),
            withdrawn,
        };
        self.current.send_replace(rules.clone());
        self.stands(match &self.file {
            Ok(_) => OfSource::InForce,
            Err(unusable) => OfSource::Unusable(unusable.problem.clone()),
        });
        let compared = holders::compare(
            (store.as_ref(), self.parts.attestor.clone()),
            (before.clone(), rules.clone()),
            self.parts.clock.time().earliest,
        );
        let concerned = match compared.await {
            Ok((_, concerned)) => {
                holders::name(&concerned, &self.parts.agents);
                Some(concerned.len())
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "it is not known whom other rules concern, so every agent asks about all of its workloads; nothing has to be done"
                );
                self.parts.agents.all_affected();
                None
            }
        };
        if let Err(error) = accepted::told(store.as_ref(), &rules).await {
            tracing::warn!(
                %error,
                "that agents were told of other rules is not stored, so after a restart they ask about all of their workloads again; nothing has to be done"
            );
        }
        tracing::info!(
            author,
            before = %Revision(before.revision()),
            revision = %Revision(changed.revision),
            withdrawn,
            concerned,
            "other rules are in force"
        );
        Ok(changed)
    }

    /// Puts the rules of this revision in force, which wait for it.
    pub(super) async fn confirm(&mut self, revision: u64, author: &str) -> Result<Changed, NotConfirmed> {
        let waiting = match &self.standing.borrow().source {
            OfSource::Waiting(waiting) => waiting.clone(),
            _ => return Err(NotConfirmed::NothingWaits),
        };
        let waits = waiting.rules.revision();
        if waits != revision {
            return Err(NotConfirmed::Others {
                waiting: Revision(waits),
            });
        }
        // By now it may be others. Where that cannot be told, what was told before stands.
        let withdrawn = match self.weigh(&waiting.rules).await {
            Ok((weighed, _)) => weighed.withdrawn.count,
            Err(_) => waiting.withdrawn.count,
        };
        let confirmed = self.accept(waiting.rules.clone(), withdrawn, author, None);
        Ok(confirmed.await?)
    }
}
