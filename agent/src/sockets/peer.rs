//! Who is at the other end of a Unix socket, as the kernel noted it when they connected.

use std::io;
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;

use crate::context::PeerProcess;

/// Credentials and a pidfd of the peer. Needs Linux 6.5 or later for the pidfd.
///
/// # Errors
/// When the kernel does not say, for instance because the peer has ended and been reaped, or lives outside the agent's
/// PID namespace.
pub(super) fn of(stream: &UnixStream) -> io::Result<PeerProcess> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
    let pidfd = getsockopt(stream, sockopt::PeerPidfd)?;
    if credentials.pid() <= 0 {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the peer is outside the agent's PID namespace",
        ));
    }
    Ok(PeerProcess {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid(),
        pidfd: Arc::new(pidfd),
    })
}
