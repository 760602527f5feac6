//! The whole agent with a way to its server that is no network, and a clock that somebody else moves: for tests that live
//! through days in a moment. Everything else is as in [`build`](super::build).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use signet_runtime::clock::Clock;
use signet_runtime::config::load;
use signet_runtime::drain::Drain;
use signet_runtime::signal::Reread;
use tokio::io::DuplexStream;

use super::{Running, build_with};
use crate::config::Config;
use crate::context::WorkloadSource;
use crate::csi::Driver;
use crate::server_client::dial::{Carrier, Dialer};

/// How often the anchors file is looked at: tests pass years.
const LOOK: Duration = Duration::from_secs(60);

/// Calls a server in memory.
struct Memory<F>(F);

impl<F: Fn() -> io::Result<DuplexStream> + Send + Sync> Dialer for Memory<F> {
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Carrier>>> {
        let dialled = (self.0)().map(|stream| Box::new(stream) as Box<dyn Carrier>);
        Box::pin(ready(dialled))
    }

    fn address(&self) -> &str {
        "in memory"
    }
}

/// An agent that runs until it is stopped.
pub struct InMemory {
    running: Running,
    drain: Drain,
}

impl InMemory {
    /// Starts with this configuration, whose folders are what outlives it. `clock` is the machine's; `dial` calls the
    /// server.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn start(
        config: &Path,
        clock: Arc<dyn Clock>,
        dial: impl Fn() -> io::Result<DuplexStream> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let loaded = load::<Config>(config);
        let (config, _) = loaded.map_err(|report| anyhow::anyhow!("{report}"))?;
        let agent = build_with(config, clock, Arc::new(Memory(dial)), LOOK).await?;
        let drain = Drain::new();
        let running = agent.start(&drain, Reread::never())?;
        Ok(Self { running, drain })
    }

    /// What kubelet calls; `None` where the configuration has no CSI driver.
    #[must_use]
    pub fn driver(&self) -> Option<&Driver> {
        self.running.driver.as_ref()
    }

    /// What workloads are given.
    #[must_use]
    pub fn workloads(&self) -> &dyn WorkloadSource {
        &self.running.manager
    }

    /// Ends in order.
    ///
    /// # Errors
    /// That a part had ended without which it is of no use.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.drain.start();
        self.running.until_the_end(self.drain).await
    }
}
