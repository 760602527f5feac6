//! What can be wrong with a rule.

use std::fmt;

/// Every faulty rule of a set, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleErrors {
    /// The first.
    pub first: RuleError,
    /// The others.
    pub more: Vec<RuleError>,
}

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.more.iter().try_for_each(|error| write!(f, "; {error}"))
    }
}

impl std::error::Error for RuleErrors {}

/// A faulty rule: which, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule `{rule}`: {problem}")]
pub(crate) struct RuleError {
    /// Its place in the list, from 0; nothing for the built-in rule and for the list as a whole.
    pub index: Option<usize>,
    /// Name of the rule, or its place in the list (`#3`) where it has none.
    pub rule: String,
    /// What is wrong with it.
    pub problem: RuleProblem,
}

/// What is wrong with a rule, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RuleProblem {
    /// Empty, too long, or with other characters.
    #[error("a name has 1 to 128 of the characters a-z A-Z 0-9 . _ -; give it one")]
    Name,
    /// The built-in rule's.
    #[error(
        "the name belongs to the built-in rule; choose another, or set `builtin_rule: false` to remove that rule"
    )]
    ReservedName,
    /// An earlier rule has it.
    #[error("an earlier rule has this name; choose another")]
    DuplicateName,
    /// More than the server takes.
    #[error("there are more than {0} rules; merge some")]
    TooMany(usize),
    /// Neither grants nor denies.
    #[error("it has no `spiffe_id`; give it one, or `deny: true`")]
    NoSpiffeId,
    /// Denies and grants at once.
    #[error("it denies, so `{0}` has no meaning; remove one of the two")]
    DenyGrants(&'static str),
    /// Would deny everyone.
    #[error("it would deny every workload; add at least one criterion to `match`")]
    DenyEveryone,
    /// A template is wrong.
    #[error("`{template}` is not a template for {what}: {problem}")]
    Template {
        /// "a SPIFFE ID" or "a DNS name".
        what: &'static str,
        /// The template.
        template: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// Labels without namespaces.
    #[error(
        "it uses pod labels, which whoever creates a pod can set; name the `namespaces` where they may count, or `namespace_labels`"
    )]
    LabelsNeedNamespaces,
    /// Not configured.
    #[error("no cluster `{cluster}` is configured; known: {known}")]
    UnknownCluster {
        /// The name.
        cluster: String,
        /// The configured ones.
        known: String,
    },
    /// Equal names of several clusters would be one identity.
    #[error(
        "with several clusters equal names would be one identity; put {{cluster}} into `spiffe_id`, name one cluster \
         under `clusters`, or set `same_identity: true` if that is meant"
    )]
    NeedsCluster,
    /// The same for the built-in rule.
    #[error(
        "with several clusters equal names would be one identity; set `builtin_rule: false` and write a rule with \
         {{cluster}} in its `spiffe_id`, or set `same_identity: true` if that is meant"
    )]
    BuiltinNeedsCluster,
    /// A criterion has an impossible value.
    #[error("`{value}` is no {what}; {remedy}")]
    Value {
        /// What it should be.
        what: &'static str,
        /// The value, shortened.
        value: String,
        /// What to write.
        remedy: &'static str,
    },
    /// `unix` criteria on a rule that does not accept such evidence.
    #[error("it has `unix` criteria but accepts pod tokens only; add `unix` to `evidence`")]
    UnixNotAccepted,
    /// `unix` evidence without users would give the identity to any process that makes itself look right.
    #[error(
        "it accepts any process that claims it, for group, path and SHA-256 are the process's own choice; \
         name the `uids` under `match.unix`, which the others then narrow"
    )]
    UnixAnyone,
    /// A template uses what the claimant chooses.
    #[error("`{template}` uses {fact}, {why}; {remedy}")]
    Unpinned {
        /// The template.
        template: String,
        /// The placeholder.
        fact: String,
        /// Who chooses it.
        why: &'static str,
        /// How it is pinned.
        remedy: &'static str,
    },
    /// Criteria that no accepted evidence can fulfil.
    #[error(
        "its criteria on {0} can never be met by the evidence it accepts; remove them or widen `evidence`"
    )]
    NeverMatches(&'static str),
    /// Out of bounds.
    #[error("`ttl` is {0}; write at least 1m and at most 30d")]
    Ttl(String),
    /// Too long, or with control characters.
    #[error("a hint has at most {0} bytes and no control characters; shorten it")]
    Hint(usize),
    /// More than a certificate should hold.
    #[error("it has more than {0} DNS names; split the rule")]
    TooManyDnsNames(usize),
}
