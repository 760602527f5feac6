//! The rules that admins set, beside those of the file: what is kept of them, and what an edit makes of them. Pure.

use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use signet_certs::time::{from_unix_millis, unix_millis};
use signet_runtime::config::MAX_BYTES;

use super::{NotEdited, source::Unusable};
use crate::audit_event::AuditAction;
use crate::rules::{
    BUILTIN_RULE, IdentityRuleConfig, RuleError, RuleProblem, RuleScope, RuleSet, WrittenRules,
};

/// A rule that is longer than this, in bytes of JSON, is told by its digest: two fit into a line of the log.
const LONGEST_IN_LINE: usize = 64 << 10;

/// A rule that an admin has set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdminRule {
    /// As it is written.
    pub rule: IdentityRuleConfig,
    /// Who has set it so.
    pub author: String,
    /// When, in Unix milliseconds.
    set_at: i64,
}

impl AdminRule {
    /// When it was set so.
    pub(crate) fn set_at(&self) -> SystemTime {
        from_unix_millis(self.set_at)
    }
}

/// What an admin wants changed.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// This rule is there, and none other of its name.
    Set {
        /// The rule.
        rule: Box<IdentityRuleConfig>,
        /// The admins' rule before which it comes; else where the one of its name was, or last.
        before: Option<String>,
    },
    /// None of this name is there.
    Delete {
        /// The name.
        name: String,
    },
}

/// Why the rules of both sources make no set.
#[derive(Debug)]
pub(super) enum Unfit {
    /// Those of the file do not fit this process.
    File(String),
    /// Those of the admins do not fit it, or those of the file.
    Admins(String),
}

impl Unfit {
    /// What that is for these rules of a file.
    pub(super) fn of(self, file: WrittenRules) -> Unusable {
        match self {
            Self::File(problem) => Unusable::all(problem),
            Self::Admins(problem) => Unusable {
                problem,
                rules: Some(file),
            },
        }
    }
}

impl From<Unfit> for NotEdited {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::File(problem) | Unfit::Admins(problem) => Self::Unfit(problem),
        }
    }
}

/// All of them, in order; they come behind those of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AdminRules {
    rules: Vec<AdminRule>,
}

impl AdminRules {
    /// What a store has.
    pub(super) fn read(body: Option<&str>) -> Result<Self, String> {
        let read = body.map(serde_json::from_str).transpose();
        Ok(read.map_err(|error| error.to_string())?.unwrap_or_default())
    }

    /// As the store keeps it.
    pub(super) fn body(&self) -> String {
        // Plain structs: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn rules(&self) -> &[AdminRule] {
        &self.rules
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.rules.iter().position(|set| set.rule.name == name)
    }

    /// What an edit makes of them, where the file has these rules.
    pub(super) fn edited(
        &self,
        edit: &Edit,
        file: &WrittenRules,
        (author, now): (&str, SystemTime),
    ) -> Result<Self, NotEdited> {
        let mut edited = self.clone();
        match edit {
            Edit::Set { rule, .. } if file.has(&rule.name) => {
                return Err(NotEdited::SetInFile(rule.name.clone()));
            }
            Edit::Set { rule, before } if before.as_ref() == Some(&rule.name) => {
                return Err(NotEdited::BeforeItself(rule.name.clone()));
            }
            Edit::Set { rule, before } => {
                let set = AdminRule {
                    rule: (**rule).clone(),
                    author: author.to_owned(),
                    set_at: unix_millis(now),
                };
                edited.put(set, before.as_deref())?;
            }
            Edit::Delete { name } => match self.place(name) {
                // Also one whose name the file has come to have: that is the way out.
                Some(place) => {
                    edited.rules.remove(place);
                }
                None if file.has(name) => return Err(NotEdited::DeletedInFile(name.clone())),
                None if name == BUILTIN_RULE => return Err(NotEdited::Builtin),
                None => return Err(NotEdited::NotSet(name.clone())),
            },
        }
        if edited.body().len() as u64 > MAX_BYTES && edited.rules.len() >= self.rules.len() {
            return Err(NotEdited::TooMuch);
        }
        Ok(edited)
    }

    /// What the log says of an edit of them; nothing of a deletion of what is not there.
    pub(super) fn line_of(&self, edit: &Edit, author: &str, waits: bool) -> Option<AuditAction> {
        let known = |name: &str| self.place(name).and_then(|place| self.rules.get(place));
        let author = author.to_owned();
        match edit {
            Edit::Set { rule, before } => Some(AuditAction::RuleSet {
                author,
                name: rule.name.clone(),
                rule: for_line(rule),
                replaced: known(&rule.name).map(|replaced| for_line(&replaced.rule)),
                before: before.clone(),
                waits,
            }),
            Edit::Delete { name } => known(name).map(|deleted| AuditAction::RuleDeleted {
                author,
                name: name.clone(),
                rule: for_line(&deleted.rule),
                set_by: deleted.author.clone(),
                waits,
            }),
        }
    }

    fn put(&mut self, set: AdminRule, before: Option<&str>) -> Result<(), NotEdited> {
        let was = self.place(&set.rule.name);
        // Who sets what is there has set nothing.
        let is_same = |known: &&AdminRule| known.rule == set.rule;
        let known = was.and_then(|place| self.rules.get(place));
        let set = known.filter(is_same).cloned().unwrap_or(set);
        if let Some(was) = was {
            self.rules.remove(was);
        }
        let place = match before {
            Some(before) => self
                .place(before)
                .ok_or_else(|| NotEdited::NotSet(before.to_owned()))?,
            None => was.unwrap_or(self.rules.len()),
        };
        self.rules.insert(place, set);
        Ok(())
    }

    /// Those of the file, then these.
    pub(super) fn merged(
        &self,
        scope: &RuleScope,
        file: &WrittenRules,
        longest_ttl: Duration,
    ) -> Result<RuleSet, Unfit> {
        let scope = RuleScope {
            builtin_rule: file.builtin_rule,
            same_identity: file.same_identity,
            ..scope.clone()
        };
        let of_file = file.rules.len();
        let own = self.rules.iter().map(|set| set.rule.clone());
        let rules = file.rules.iter().cloned().chain(own).collect();
        let compiled = RuleSet::compile(&scope, rules).map_err(|errors| {
            let all = || std::iter::once(&errors.first).chain(&errors.more);
            let is_own = |error: &&RuleError| error.index.is_some_and(|index| index >= of_file);
            if all().any(|error| !is_own(&error)) && !self.is_one_too_many(of_file) {
                return Unfit::File(errors.to_string());
            }
            let told: Vec<_> = all().map(own_problem).collect();
            Unfit::Admins(told.join("; "))
        })?;
        let compiled = compiled.with_those_of_admins(self.rules.iter().map(|set| set.rule.name.as_str()));
        if let Some(long) = too_long(&compiled, longest_ttl) {
            let problem = format!(
                "rule `{long}`: its `ttl` is longer than {} s, for which the authorities of this process were made: it needs a restart with such a `ttl` in the file, of a rule or of `svid`",
                longest_ttl.as_secs()
            );
            return Err(match self.place(&long) {
                Some(_) => Unfit::Admins(problem),
                None => Unfit::File(problem),
            });
        }
        Ok(compiled)
    }

    /// The file alone has no more than there may be.
    fn is_one_too_many(&self, of_file: usize) -> bool {
        use crate::rules::MAX_RULES;
        of_file <= MAX_RULES && of_file + self.rules.len() > MAX_RULES
    }
}

/// A rule as a line of the log has it.
fn for_line(rule: &IdentityRuleConfig) -> Value {
    // Plain structs: this cannot fail.
    let text = serde_json::to_string(rule).unwrap_or_default();
    if text.len() > LONGEST_IN_LINE {
        return json!({ "bytes": text.len(), "sha256": hex::encode(digest(&SHA256, text.as_bytes())) });
    }
    serde_json::from_str(&text).unwrap_or_default()
}

/// What is wrong with a rule of the admins.
fn own_problem(error: &RuleError) -> String {
    match error.problem {
        RuleProblem::DuplicateName => format!(
            "rule `{0}`: the file has a rule of this name, and an admin has set one; rename that of the file, or let it count by `signet-server rule delete {0}`",
            error.rule
        ),
        _ => error.to_string(),
    }
}

/// Why the rules that a store has of admins do not stand beside those of a file, for people; `None` where they do.
pub(crate) fn clash(kept: &str, file: &RuleSet, longest_ttl: Duration) -> Option<String> {
    let read =
        AdminRules::read(Some(kept)).map_err(|error| format!("what admins have set cannot be read: {error}"));
    let merged = read.and_then(|admins| {
        let merged = admins.merged(file.scope(), &file.written(), longest_ttl);
        merged.map_err(|unfit| unfit.of(file.written()).problem)
    });
    merged.err()
}

/// The first rule whose certificates would live longer than this.
fn too_long(rules: &RuleSet, longest: Duration) -> Option<String> {
    let is_long = |rule: &&IdentityRuleConfig| rule.ttl.is_some_and(|ttl| ttl.get() > longest);
    rules.rules().find(is_long).map(|rule| rule.name.clone())
}
