//! A program behind a proxy, and a client that never stops sending.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use axum::{Router, routing::get};
use signet_runtime::sync::Mutex;
use tokio::{net::TcpListener, task::JoinSet};

use crate::http;

/// Pause between requests of one client.
const PAUSE: Duration = Duration::from_millis(5);

/// A program that answers every request with `answered`, on this port, until the process ends.
///
/// # Errors
/// There is no port.
pub async fn app() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let answers = Router::new().fallback(get(|| async { "answered" }));
    tokio::spawn(async move { axum::serve(listener, answers).await });
    Ok(port)
}

/// Requests to some URLs, each one after the other, until this is dropped.
pub struct Traffic {
    seen: Arc<Mutex<Seen>>,
    _clients: JoinSet<()>,
}

/// What has come of them.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests that were answered.
    pub answered: u64,
    /// The first few that failed, and why.
    pub failed: Vec<String>,
}

impl Seen {
    fn count(&mut self, url: &str, outcome: Result<http::Answer>) {
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
    /// Begins.
    pub fn to(urls: &[String]) -> Self {
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

    /// What has come of them so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }
}
