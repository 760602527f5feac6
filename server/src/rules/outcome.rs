//! What the rules make of some facts, beyond the verdict: for people who ask why.

use std::fmt;

use signet_certs::id::SpiffeId;

use super::Verdict;

/// What the rules say to some facts, and which of them say nothing though they should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// What they say.
    pub verdict: Verdict,
    /// Rules that match and whose templates give nothing usable for these facts. Nobody misses what he never had: who
    /// wrote them has to be told.
    pub unusable: Vec<Unusable>,
}

/// A rule that matches and gives nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// Its name.
    pub rule: String,
    /// Why.
    pub problem: String,
}

/// What one rule makes of some facts; for people who ask why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleOutcome {
    /// Name of the rule.
    pub rule: String,
    /// What came of it.
    pub outcome: Outcome,
}

impl fmt::Display for RuleOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rule {:?} ", self.rule)?;
        match &self.outcome {
            Outcome::NoMatch(criterion) => write!(formatter, "does not match by {criterion}"),
            Outcome::Denies => formatter.write_str("denies"),
            Outcome::Grants(id) => write!(formatter, "gives {id}"),
            Outcome::Unusable(problem) => write!(formatter, "matches, but {problem}"),
        }
    }
}

/// What came of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It does not match; the first criterion that says so.
    NoMatch(&'static str),
    /// It matches and denies.
    Denies,
    /// It matches and gives this identity.
    Grants(SpiffeId),
    /// It matches, but its templates give nothing usable for these facts.
    Unusable(String),
}
