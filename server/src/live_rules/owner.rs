//! What becomes of what the source says.

use std::sync::Arc;

use signet_runtime::bucket::{Bucket, Rate};
use tokio::{sync::watch, time::Instant};

use super::{
    Changed, LiveRulesParts, NotConfirmed, OfSource, Revision, Source, Standing, Waiting,
    accepted::{self, Change},
    holders::{self, NotWeighed},
    source::{Checked, Reading},
    weigh::Weighed,
};
use crate::{
    rules::{RuleScope, RuleSet, WrittenRules},
    store::{LiveIdentity, StoreError},
};

/// How often the source is judged: each time may move every agent. What comes faster is judged together.
const JUDGED: Rate = Rate {
    per_second: 0.1,
    burst: 3.0,
};
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
    pace: Bucket,
}

impl Owner {
    pub(super) fn new(parts: LiveRulesParts, in_force: Arc<RuleSet>) -> Self {
        let source = if Arc::ptr_eq(&in_force, &parts.first) {
            OfSource::InForce
        } else {
            OfSource::NotWeighed
        };
        Self {
            parts,
            current: watch::Sender::new(in_force),
            standing: watch::Sender::new(Standing {
                source,
                restart_for: Vec::new(),
                is_put_off: false,
            }),
            read: None,
            judged: None,
            is_due: false,
            pace: Bucket::full(JUDGED, Instant::now()),
        }
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

    /// Whether every pod is known that can be, so that weighing is no guess.
    pub(super) fn pods_are_known(&self) -> bool {
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
            Err(problem) => Err(problem.clone()),
        };
        let (rules, restart_for) = match checked {
            Ok((rules, restart_for)) => (rules, restart_for),
            Err(problem) => {
                self.unusable(problem);
                return true;
            }
        };
        self.needs_restart(restart_for);
        if rules.revision() == self.in_force().revision() {
            if !matches!(self.standing.borrow().source, OfSource::InForce) {
                tracing::info!("the rules of the configuration are those in force");
            }
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
        let accepted = self.accept(rules, weighed.withdrawn.count, SOURCE).await;
        if let Err(error) = &accepted {
            self.unusable(format!("the store does not take them: {error}"));
        }
        accepted.is_ok()
    }

    /// The rules of a text, for the clusters of this process.
    async fn check(&self, text: Arc<str>) -> Result<(Arc<RuleSet>, Vec<String>), String> {
        let (source, scope) = (self.source(), self.parts.first.scope().clone());
        let (longest, in_force) = (self.parts.longest_ttl, self.in_force().revision());
        let work = move || {
            let Checked {
                rules:
                    WrittenRules {
                        rules,
                        builtin_rule,
                        same_identity,
                    },
                restart_for,
                warnings,
            } = source.check(&text)?;
            let scope = RuleScope {
                builtin_rule,
                same_identity,
                ..scope
            };
            let rules = RuleSet::compile(&scope, rules).map_err(|errors| {
                format!("they need a restart, for the clusters of the configuration have changed: {errors}")
            })?;
            if rules.longest_ttl().is_some_and(|ttl| ttl > longest) {
                return Err(format!(
                    "a rule's `ttl` is longer than {} s, for which the authorities of this process were made: it needs a restart",
                    longest.as_secs()
                ));
            }
            if rules.revision() != in_force {
                for warning in warnings {
                    tracing::warn!(warning, "configuration");
                }
            }
            Ok((Arc::new(rules), restart_for))
        };
        let checked = signet_runtime::spans::spawn_blocking(work).await;
        checked.unwrap_or_else(|error| Err(error.to_string()))
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
    ) -> Result<Changed, StoreError> {
        let before = self.in_force();
        let now = self.parts.clock.now();
        let change = Change {
            author,
            previous: Some(Revision(before.revision()).to_string()),
            withdrawn,
            untold_since: Some(now),
        };
        let store = self.parts.store.clone();
        accepted::keep(store.as_ref(), &rules, change, now).await?;
        let changed = Changed {
            revision: rules.revision(),
            withdrawn,
        };
        self.current.send_replace(rules.clone());
        self.stands(OfSource::InForce);
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
        Ok(self.accept(waiting.rules.clone(), withdrawn, author).await?)
    }

    fn wait(&self, rules: Arc<RuleSet>, weighed: Weighed) {
        let revision = Revision(rules.revision());
        let since = match &self.standing.borrow().source {
            OfSource::Waiting(waiting) if waiting.rules.revision() == rules.revision() => waiting.since,
            _ => self.parts.clock.now(),
        };
        tracing::warn!(
            withdrawn = weighed.withdrawn.count,
            at_most = self.parts.confirm_above,
            %revision,
            "other rules wait: they would withdraw live identities; look at `signet-server rule list`, then confirm them with `signet-server rule confirm` and their revision"
        );
        self.stands(OfSource::Waiting(Arc::new(Waiting {
            rules,
            since,
            withdrawn: weighed.withdrawn,
        })));
    }

    fn unusable(&self, problem: String) {
        let is_known =
            matches!(&self.standing.borrow().source, OfSource::Unusable(known) if *known == problem);
        if !is_known {
            tracing::warn!(
                problem,
                "the rules of the configuration cannot be used, those in force stay until the file is mended, which is seen by itself"
            );
        }
        self.stands(OfSource::Unusable(problem));
    }

    fn needs_restart(&self, keys: Vec<String>) {
        self.standing.send_if_modified(|standing| {
            if standing.restart_for == keys {
                return false;
            }
            if !keys.is_empty() {
                let keys = keys.join(", ");
                tracing::warn!(
                    keys,
                    "the configuration has changed in more than its rules: that needs a restart"
                );
            }
            standing.restart_for = keys;
            true
        });
    }

    fn put_off(&self, is_put_off: bool) {
        let changed = self.standing.send_if_modified(|standing| {
            std::mem::replace(&mut standing.is_put_off, is_put_off) != is_put_off
        });
        if changed && is_put_off {
            tracing::info!("the configuration was looked at as often as it may be, and is again in a moment");
        }
    }

    fn stands(&self, source: OfSource) {
        let (waiting, unusable) = match &source {
            OfSource::Waiting(waiting) => (waiting.withdrawn.count, false),
            OfSource::Unusable(_) => (0, true),
            OfSource::InForce | OfSource::NotWeighed => (0, false),
        };
        self.parts.metrics.set_rules(waiting, unusable);
        self.standing.send_modify(|standing| standing.source = source);
    }
}
