//! Where the rules of a set come from.

use std::collections::HashSet;

use super::{BUILTIN_RULE, IdentityRuleConfig, RuleSet, WrittenRules};

/// Where a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The configuration file.
    File,
    /// An admin has set it.
    Admin,
    /// It is the built-in one.
    Builtin,
}

impl Origin {
    /// In one word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Admin => "admin",
            Self::Builtin => "builtin",
        }
    }
}

impl RuleSet {
    /// The same rules, of which admins have set those of these names.
    pub(crate) fn with_those_of_admins<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        let names: HashSet<&str> = names.into_iter().collect();
        for rule in &mut self.rules {
            rule.by_admin = names.contains(rule.name.as_str());
        }
        self
    }

    /// Every rule as it is written, in order, with where it comes from.
    pub(crate) fn origins(&self) -> impl Iterator<Item = (&IdentityRuleConfig, Origin)> {
        self.rules.iter().map(|rule| {
            let origin = match rule.by_admin {
                _ if rule.name == BUILTIN_RULE => Origin::Builtin,
                true => Origin::Admin,
                false => Origin::File,
            };
            (&rule.written, origin)
        })
    }

    /// Names of those that admins have set.
    pub(crate) fn names_of_admins(&self) -> Vec<String> {
        let set = self.rules.iter().filter(|rule| rule.by_admin);
        set.map(|rule| rule.name.clone()).collect()
    }

    /// What the file has of it.
    pub(crate) fn written_in_file(&self) -> WrittenRules {
        let of_file = self.origins().filter(|(_, origin)| *origin == Origin::File);
        WrittenRules {
            rules: of_file.map(|(rule, _)| rule.clone()).collect(),
            builtin_rule: self.scope.builtin_rule,
            same_identity: self.scope.same_identity,
        }
    }
}
