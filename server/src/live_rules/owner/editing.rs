//! What admins set and delete.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::{
        Candidate, Changed, Edited, NotEdited, OfSource, Waiting,
        admins::{AdminRules, Edit},
    },
    Owner,
    merging::WithEdit,
};
use crate::{
    audit_event::{AuditAction, AuditEvent},
    rules::RuleSet,
    store::RulesToKeep,
};

impl Owner {
    /// Carries an edit out: what it makes is kept with what is in force by it, so that after a power cut there is all of it or nothing.
    pub(in super::super) async fn edit(&mut self, edit: &Edit, author: &str) -> Result<Edited, NotEdited> {
        self.can_be_judged()?;
        let WithEdit { admins, rules, file } = self.with(edit, author).await?;
        let was = file.map(|file| std::mem::replace(&mut self.file, Ok(file)));
        let is_due = !matches!((&self.file, &was), (Ok(_), Some(Ok(_))));
        match self.carried_out((edit, author), &admins, &rules).await {
            Ok((changed, waits)) => {
                self.admins = admins;
                self.show_set();
                // What could not be used beside the rules as they were may be of use beside these.
                self.is_due |= is_due;
                Ok(Edited {
                    changed,
                    waits,
                    rules,
                })
            }
            Err(error) => {
                if let Some(was) = was {
                    self.file = was;
                }
                Err(error)
            }
        }
    }

    async fn carried_out(
        &mut self,
        (edit, author): (&Edit, &str),
        admins: &AdminRules,
        rules: &Arc<RuleSet>,
    ) -> Result<(Changed, Option<Arc<Waiting>>), NotEdited> {
        let before = self.in_force().revision();
        let nothing_withdrawn = Changed {
            revision: before,
            withdrawn: 0,
        };
        let line = |waits| self.admins.line_of(edit, author, waits);
        if rules.revision() == before {
            if *admins != self.admins {
                self.keep(admins, line(false)).await?;
            }
            self.moved(rules.clone()).await;
            if self.file.is_ok() {
                self.stands(OfSource::InForce);
            }
            return Ok((nothing_withdrawn, None));
        }
        if let Err(later) = self.edits.take(Instant::now()) {
            return Err(NotEdited::TooOften { later });
        }
        let weighed = self.weigh(rules).await;
        let (weighed, _) = weighed.map_err(|error| NotEdited::NotWeighed(error.to_string()))?;
        let (withdrawn, at_most) = (weighed.withdrawn.count, self.parts.confirm_above);
        if withdrawn <= at_most {
            let edited = line(false).map(|line| (admins.body(), line));
            let changed = self.accept(rules.clone(), withdrawn, author, edited);
            return Ok((changed.await?, None));
        }
        if let Err(unusable) = &self.file {
            return Err(NotEdited::FileFirst {
                withdrawn,
                at_most,
                problem: unusable.problem.clone(),
            });
        }
        if *admins != self.admins {
            self.keep(admins, line(true)).await?;
        }
        self.wait(rules.clone(), weighed);
        Ok((nothing_withdrawn, self.waiting()))
    }

    /// What the rules would be.
    pub(in super::super) async fn tried(&self, edit: &Edit) -> Result<Candidate, NotEdited> {
        self.can_be_judged()?;
        Ok(Candidate {
            in_force: self.in_force(),
            rules: self.with(edit, "").await?.rules,
        })
    }

    /// Of pods that nobody has seen yet it would say that they lose nothing and get nothing.
    fn can_be_judged(&self) -> Result<(), NotEdited> {
        if self.is_weighed() && self.pods_are_known() {
            Ok(())
        } else {
            Err(NotEdited::NotYet)
        }
    }

    async fn keep(&self, admins: &AdminRules, line: Option<AuditAction>) -> Result<(), NotEdited> {
        let kept = RulesToKeep {
            accepted: None,
            of_admins: Some(admins.body()),
        };
        let now = self.parts.clock.now();
        let line = line.map(|action| AuditEvent::new(now, action));
        Ok(self.parts.store.keep_rules(kept, Vec::from_iter(line)).await?)
    }

    fn waiting(&self) -> Option<Arc<Waiting>> {
        match &self.standing.borrow().source {
            OfSource::Waiting(waiting) => Some(waiting.clone()),
            OfSource::InForce | OfSource::NotWeighed | OfSource::Unusable(_) => None,
        }
    }
}
