//! What a client knows of an operation that it follows, and how long it has looked for a server that is away.

use std::time::Duration;

use signet_proto::admin as wire;
use signet_runtime::{backoff::Backoff, output::Narration};
use tokio::time::sleep;

use super::render;

/// Between attempts to reach a server that is away.
const RETRIES: Backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(2));
/// What is known here of an operation.
pub(super) struct Followed {
    pub(super) operation: Option<String>,
    pub(super) narration: Narration,
    pub(super) away: Away,
    /// How far it had come: at which step, and how many agents had reported.
    come: (String, u32),
}

impl Followed {
    pub(super) fn new(operation: Option<String>, narration: Narration) -> Self {
        Self {
            operation,
            narration,
            away: Away::default(),
            come: (String::new(), 0),
        }
    }

    /// A server that starts again and again says each time what it said before: that is no progress.
    pub(super) fn heard(&mut self, step: &wire::AuthorityProgress) {
        render::tell(step, &mut self.narration);
        // What each connection begins with.
        let is_progress =
            step.step != "prepared" && (self.come.0 != step.step || self.come.1 < step.agents_reported);
        if is_progress {
            self.come = (step.step.clone(), step.agents_reported);
            self.away = Away::default();
        }
        self.operation = Some(step.operation_id.clone());
    }

    /// What an admin is told who goes before the end.
    pub(super) fn left(&self) -> anyhow::Error {
        match &self.operation {
            Some(id) => {
                anyhow::anyhow!("{id} is recorded and goes on; `signet-server ca wait {id}` follows it")
            }
            None => anyhow::anyhow!("the server has not said that it is recorded: see `ca show`"),
        }
    }
}

/// How long the server was looked for in vain since an operation last came on.
pub(super) struct Away {
    pub(super) spent: Duration,
    retry: Backoff,
}

impl Default for Away {
    fn default() -> Self {
        Self {
            spent: Duration::ZERO,
            retry: RETRIES,
        }
    }
}

impl Away {
    pub(super) async fn pause(&mut self) {
        let pause = self.retry.next(0.0);
        self.spent += pause;
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: &str, reported: u32) -> wire::AuthorityProgress {
        wire::AuthorityProgress {
            step: step.to_owned(),
            agents_reported: reported,
            operation_id: "x509-3".to_owned(),
            ..wire::AuthorityProgress::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_starts_again_and_again_is_waited_for_no_longer_than_one_that_is_away() {
        let mut followed = Followed::new(None, Narration::untold());
        assert!(followed.left().to_string().contains("`ca show`"));
        for _ in 0..3 {
            for heard in [step("prepared", 0), step("spreading", 2)] {
                followed.heard(&heard);
            }
            followed.away.pause().await;
        }
        assert_eq!(followed.away.spent, Duration::from_millis(100 + 200 + 400));
        followed.heard(&step("spreading", 3));
        assert_eq!(followed.away.spent, Duration::ZERO, "it came on");
        assert!(
            followed
                .left()
                .to_string()
                .contains("`signet-server ca wait x509-3`")
        );
    }
}
