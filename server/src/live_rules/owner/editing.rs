//! What admins set and delete.

use std::sync::Arc;

use super::{
    super::{
        Candidate, Changed, Edited, NotEdited, OfSource, Waiting,
        admins::{AdminRules, Edit},
    },
    Owner,
};
use crate::store::RulesToKeep;

impl Owner {
    /// Carries an edit out: what it makes is kept with what is in force by it, so that after a power cut there is all of it or nothing.
    pub(in super::super) async fn edit(&mut self, edit: &Edit, author: &str) -> Result<Edited, NotEdited> {
        if !self.is_weighed() {
            return Err(NotEdited::NotYet);
        }
        let (admins, rules) = self.with(edit, author).await?;
        let before = self.in_force();
        let nothing_withdrawn = Changed {
            revision: before.revision(),
            withdrawn: 0,
        };
        let edited = |changed, waits| Edited {
            changed,
            waits,
            rules: rules.clone(),
        };
        let edited = if rules.revision() == before.revision() {
            self.keep(&admins).await?;
            self.moved(rules.clone()).await;
            if self.file.is_ok() {
                self.stands(OfSource::InForce);
            }
            edited(nothing_withdrawn, None)
        } else {
            let weighed = self.weigh(&rules).await;
            let (weighed, _) = weighed.map_err(|error| NotEdited::NotWeighed(error.to_string()))?;
            let (withdrawn, at_most) = (weighed.withdrawn.count, self.parts.confirm_above);
            if withdrawn > at_most {
                if let Err(problem) = &self.file {
                    return Err(NotEdited::FileFirst {
                        withdrawn,
                        at_most,
                        problem: problem.clone(),
                    });
                }
                self.keep(&admins).await?;
                self.wait(rules.clone(), weighed);
                edited(nothing_withdrawn, self.waiting())
            } else {
                let changed = self.accept(rules.clone(), withdrawn, author, Some(&admins));
                edited(changed.await?, None)
            }
        };
        self.admins = Ok(admins);
        self.show_set();
        // What could not be used beside the rules as they were may be of use beside these.
        self.is_due |= self.file.is_err();
        Ok(edited)
    }

    /// What the rules would be.
    pub(in super::super) async fn tried(&self, edit: &Edit) -> Result<Candidate, NotEdited> {
        let (_, rules) = self.with(edit, "").await?;
        Ok(Candidate {
            in_force: self.in_force(),
            rules,
        })
    }

    async fn keep(&self, admins: &AdminRules) -> Result<(), NotEdited> {
        let kept = RulesToKeep {
            accepted: None,
            of_admins: Some(admins.body()),
        };
        Ok(self.parts.store.keep_rules(kept, Vec::new()).await?)
    }

    fn waiting(&self) -> Option<Arc<Waiting>> {
        match &self.standing.borrow().source {
            OfSource::Waiting(waiting) => Some(waiting.clone()),
            OfSource::InForce | OfSource::NotWeighed | OfSource::Unusable(_) => None,
        }
    }
}
