//! A line to an agent that can be made to stand still, as when the agent is stopped.

use std::path::{Path, PathBuf};

use signet_runtime::uds;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub struct Line {
    directory: TempDir,
    frozen: watch::Sender<bool>,
    task: AbortHandle,
}

impl Line {
    pub fn to(agent: &Path) -> Self {
        let directory = signet_testkit::folder();
        let listener = uds::bind(&directory.path().join("line.sock"), 0o600, None, None).unwrap();
        let frozen = watch::Sender::new(false);
        let (agent, heard) = (agent.to_path_buf(), frozen.clone());
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = UnixStream::connect(&agent).await.unwrap();
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(pump(near_read, far_write, heard.subscribe()));
                tokio::spawn(pump(far_read, near_write, heard.subscribe()));
            }
        });
        Self {
            directory,
            frozen,
            task: task.abort_handle(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("line.sock")
    }

    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
