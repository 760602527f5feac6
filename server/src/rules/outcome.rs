//! What the rules say to some facts, and what has to be told to whoever wrote them.

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
