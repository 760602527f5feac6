//! A relay of TCP between the server and the API server, which can break.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What becomes of connections, those that stand included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Bytes pass.
    Up,
    /// Connections are accepted and nothing passes.
    Frozen,
    /// Connections are closed.
    Cut,
}

/// A relay; ends when dropped.
pub(crate) struct Relay {
    line: watch::Sender<Line>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// To this URL's host and port.
    pub(crate) async fn to(url: &http::Uri) -> Result<Self> {
        let host = url.host().context("no host")?;
        let upstream = format!("{host}:{}", url.port_u16().unwrap_or(443));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (line, state) = watch::channel(Line::Up);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, upstream.clone(), state.clone()));
            }
        });
        Ok(Self {
            line,
            address,
            accepting,
        })
    }

    /// Its own URL.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Breaks or mends it.
    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn relay(mut client: TcpStream, upstream: String, mut line: watch::Receiver<Line>) {
    let before = *line.borrow_and_update();
    if before == Line::Up {
        let passing = async {
            let mut server = TcpStream::connect(upstream).await?;
            copy_bidirectional(&mut client, &mut server).await
        };
        tokio::select! {
            _ = passing => return,
            _ = line.changed() => {}
        }
    }
    if *line.borrow_and_update() == Line::Frozen {
        // Held open, silent, until something else is set.
        let _ = line.wait_for(|line| *line != Line::Frozen).await;
    }
}
