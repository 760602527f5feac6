//! A client that never stops sending.

use std::{sync::Arc, time::Duration};

use signet_runtime::sync::Mutex;
use signet_tests::http;
use tokio::task::JoinSet;

/// Pause between requests of one client.
const PAUSE: Duration = Duration::from_millis(5);

/// Requests to some URLs, each one after the other, until this is dropped.
pub(crate) struct Traffic {
    seen: Arc<Mutex<Seen>>,
    _clients: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answered: u64,
    /// The first few that failed, and why.
    pub(crate) failed: Vec<String>,
}

impl Seen {
    fn count(&mut self, url: &str, outcome: anyhow::Result<http::Answer>) {
        let failure = match outcome {
            Ok(answer) if answer.status == 200 => {
                self.answered += 1;
                return;
            }
            Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
            Err(error) => format!("{error:#}"),
        };
        if self.failed.len() < 20 {
            self.failed.push(format!("{url}: {failure}"));
        }
    }
}

impl Traffic {
    pub(crate) fn to(urls: &[String]) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let mut clients = JoinSet::new();
        for url in urls {
            let (url, seen) = (url.clone(), seen.clone());
            clients.spawn(async move {
                loop {
                    let outcome = http::get(&url).await;
                    seen.lock().count(&url, outcome);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self {
            seen,
            _clients: clients,
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }
}
