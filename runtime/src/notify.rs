//! How a service tells systemd how it is (`sd_notify`): that it serves, what stands in the way, that it ends.
//!
//! Nothing here holds the program up or ends it. A message waits on a task of its own for room in the socket, and one that nobody
//! takes is sent again later as it is by then.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::{sleep, timeout};

use crate::environment::{self, NOTIFY_SOCKET};
use crate::error::one_line;
use crate::ready::{Level, Readiness, Standing, names};

/// The name of the reason that stands from the moment on in which a program is told to end. The same in each program's table.
const STOPPING: &str = "stopping";

/// systemd shows one line; it cuts a message at 4 kB.
const MAX_STATUS: usize = 400;
/// So long a message waits for room before it is given up as stale.
const ROOM: Duration = Duration::from_secs(5);
/// Between two tries at a socket that takes nothing.
const AGAIN: Duration = Duration::from_secs(5);

/// Whom a service tells how it is: systemd, where that asked for it. Clones tell the same one.
#[derive(Clone, Debug, Default)]
pub struct Notify(Option<Arc<SocketAddr>>);

impl Notify {
    /// For a program that nobody asked.
    #[must_use]
    pub const fn nobody() -> Self {
        Self(None)
    }

    /// Who the environment names. A name that cannot be one is said in the log, and then it is nobody.
    #[must_use]
    pub fn of_environment() -> Self {
        let Some(name) = environment::text(NOTIFY_SOCKET).filter(|name| !name.is_empty()) else {
            return Self::nobody();
        };
        Self::at(&name).unwrap_or_else(|error| {
            tracing::warn!(socket = %name, %error, "NOTIFY_SOCKET names no socket: systemd is told nothing");
            Self::nobody()
        })
    }

    /// The socket of this name: an absolute path, or behind an `@` what is in no file system.
    fn at(name: &str) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name),
            [b'@', abstract_name @ ..] if !abstract_name.is_empty() => {
                SocketAddr::from_abstract_name(abstract_name)
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it begins neither with / nor with @",
            )),
        };
        Ok(Self(Some(Arc::new(address?))))
    }

    /// From here on the program serves: says so, then what stands in its way as it changes, and last that it ends.
    ///
    /// Returns when that has been said; at once where nobody asked.
    pub async fn follow(self, readiness: Readiness) {
        self.follow_behind(readiness, "").await;
    }

    /// As [`follow`](Self::follow), for a program that serves from the moment on in which the reason of this name stands no more. Until
    /// then systemd hears what is waited for.
    pub async fn follow_behind(self, readiness: Readiness, first: &str) {
        let Some(address) = self.0 else { return };
        let (mut unheard, mut serves) = (false, false);
        loop {
            let standing = readiness.standing(Level::Issue);
            let named = names(&standing);
            serves |= !named.contains(&first);
            let message = message(&standing, serves);
            let sent = timeout(ROOM, send(&address, &message)).await;
            match sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(()) if named.contains(&STOPPING) => return,
                Ok(()) => {
                    unheard = false;
                    readiness.differs(Level::Issue, &named).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut unheard, true) {
                        tracing::warn!(%error, "systemd does not hear how this program is; trying again");
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// A socket of its own for each message: the one that listens may be another by the next.
async fn send(address: &SocketAddr, message: &str) -> io::Result<()> {
    let socket = StdDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(address)?;
    UnixDatagram::from_std(socket)?.send(message.as_bytes()).await?;
    Ok(())
}

/// All that is to be known, whatever was said before: a message that was lost is no loss.
fn message(standing: &[Standing], serves: bool) -> String {
    let is_over = standing.iter().any(|standing| standing.reason.name == STOPPING);
    let state = match (is_over, serves) {
        (true, _) => "STOPPING=1\n",
        (false, true) => "READY=1\n",
        (false, false) => "",
    };
    format!("{state}STATUS={}", status(standing, serves))
}

/// One line for people. What comes from elsewhere in it must not begin another one: each line is an order to systemd.
fn status(standing: &[Standing], serves: bool) -> String {
    let of = |level| standing.iter().find(|standing| standing.reason.level == level);
    let line = match (of(Level::Serve), of(Level::Issue)) {
        (Some(reason), _) if reason.reason.name == STOPPING => STOPPING.to_owned(),
        // What is missing is known; what it waits for is said by whoever has a detail.
        (Some(reason), _) if !serves => {
            let detailed = standing.iter().find(|standing| !standing.detail.is_empty());
            format!("starts, and waits: {}", detailed.unwrap_or(reason))
        }
        (Some(reason), _) => format!("not ready: {reason}"),
        (None, Some(reason)) => format!("serves, not ready to issue: {reason}"),
        (None, None) => "ready".to_owned(),
    };
    let others = standing.len().saturating_sub(1);
    let mut line: String = one_line(&line).chars().take(MAX_STATUS).collect();
    if others > 0 && !line.starts_with(STOPPING) {
        line.push_str(&format!(" (and {others} more)"));
    }
    line
}

#[cfg(test)]
mod tests;
