//! What a running process says of its readiness, for people and for programs.

use serde_json::{Value, json};

use super::Answer;
use crate::error::one_line;

/// Both levels, and what stands in the way.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What it gives is true: `/ready`.
    pub ready: bool,
    /// It does all of its work: `/ready/issue`.
    pub ready_issue: bool,
    /// What stands in the way of either.
    pub not_ready: Vec<NotReady>,
}

/// One reason.
#[derive(Clone, Debug)]
pub struct NotReady {
    /// Name from the table in docs/operating.md.
    pub reason: String,
    /// What exactly is the matter; may be empty.
    pub detail: String,
    /// What is given is true all the same.
    pub serves: bool,
}

impl NotReady {
    /// One line, without anything that would move a terminal's cursor: details hold what others wrote.
    fn line(&self) -> String {
        let line = match self.detail.as_str() {
            "" => self.reason.clone(),
            detail => format!("{}: {detail}", self.reason),
        };
        one_line(&line)
    }
}

impl Health {
    /// Each reason as a line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.not_ready.iter().map(NotReady::line).collect()
    }

    /// Each reason as an object, with the first level that it takes away.
    #[must_use]
    pub fn reasons_json(&self) -> Value {
        let reason = |one: &NotReady| {
            let level = if one.serves { "/ready/issue" } else { "/ready" };
            json!({ "reason": one.reason, "detail": one.detail, "level": level })
        };
        self.not_ready.iter().map(reason).collect()
    }

    /// The answer of `healthcheck`: fails while the process does not do all of its work, or with `serving`, while what it
    /// gives is not true.
    #[must_use]
    pub fn answer(&self, serving: bool) -> Answer {
        let is_well = if serving { self.ready } else { self.ready_issue };
        let in_the_way = self.not_ready.iter().filter(|one| !serving || !one.serves);
        let lines: Vec<String> = in_the_way.map(NotReady::line).collect();
        Answer {
            json: json!({
                "ready": self.ready, "ready_issue": self.ready_issue, "not_ready": self.reasons_json(),
            }),
            text: if is_well {
                "ready\n".to_owned()
            } else {
                String::new()
            },
            problem: (!is_well).then(|| format!("not ready: {}", lines.join("; "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_asks_whether_it_serves_and_everybody_else_whether_it_works() {
        let health = Health {
            ready: true,
            ready_issue: false,
            not_ready: vec![NotReady {
                reason: "clusters_away".to_owned(),
                detail: "`dev`: refused\u{1b}[31m".to_owned(),
                serves: true,
            }],
        };
        assert_eq!(health.answer(true).problem, None);
        assert_eq!(
            health.answer(false).problem.as_deref(),
            Some("not ready: clusters_away: `dev`: refused?[31m")
        );
        assert_eq!(health.answer(false).json["not_ready"][0]["level"], "/ready/issue");
    }
}
