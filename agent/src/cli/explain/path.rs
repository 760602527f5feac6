//! The steps up to a connection: the address, what is at the path, who may open it, and whether anybody listens.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{getegid, geteuid};
use signet_workload::{Endpoint, VARIABLE};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::story::{Checked, Fault};
use crate::SOCKET_NAME;

/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What to do where nothing is where it should be.
const WHERE: &str = "in a pod: mount a volume of the CSI driver there (docs/kubernetes.md shows one); outside pods: name the socket of the \
                     agent's `shared_socket.path`, and see that the agent runs";

/// Whose a socket is.
pub(super) struct Owner {
    path: PathBuf,
    uid: u32,
    gid: u32,
    mode: u32,
}

/// Whether the address is well formed, and of a kind that is called.
pub(super) fn address(text: Option<&str>) -> Checked<PathBuf> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Err(Fault::new(
            format!("no socket is named, and {VARIABLE} is not set"),
            format!(
                "set {VARIABLE}, or --socket, to unix:// and the path of the socket: unix:///spiffe/{SOCKET_NAME}"
            ),
        ));
    };
    match text.parse::<Endpoint>() {
        Ok(Endpoint::Unix(path)) => {
            let says = path.display().to_string();
            Ok((path, says))
        }
        Ok(Endpoint::Tcp(address)) => Err(Fault::new(
            format!("tcp://{address} is not called: over TCP nobody can tell who calls"),
            "write unix:// and the path of the agent's socket",
        )),
        Err(error) => Err(Fault::new(
            error.to_string(),
            "write unix:// and an absolute path",
        )),
    }
}

/// Whether there is a socket.
pub(super) fn socket(path: &Path) -> Checked<Owner> {
    let found = fs::metadata(path).map_err(|error| absent(path, &error))?;
    if !found.file_type().is_socket() {
        return Err(no_socket(path, &found));
    }
    let owner = Owner {
        path: path.to_owned(),
        uid: found.uid(),
        gid: found.gid(),
        mode: found.mode() & 0o7777,
    };
    let says = format!(
        "a socket of user {} and group {}, mode {:04o}",
        owner.uid, owner.gid, owner.mode
    );
    Ok((owner, says))
}

/// The first part of the path that is not there, or that this user may not look into.
fn absent(path: &Path, error: &io::Error) -> Fault {
    let parts: Vec<_> = path.ancestors().collect();
    for part in parts.into_iter().rev() {
        match fs::metadata(part) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(part).is_ok() => {
                return Fault::new(
                    format!("{} is a link to what does not exist", part.display()),
                    WHERE,
                );
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Fault::new(format!("{} does not exist", part.display()), WHERE);
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let folder = part.parent().unwrap_or(part).display().to_string();
                return Fault::new(
                    format!("user {} may not look into {folder}", geteuid()),
                    format!("let this user search {folder} (the x of its mode), or run as one who may"),
                );
            }
            Err(error) => return Fault::new(format!("{}: {error}", part.display()), WHERE),
        }
    }
    Fault::new(format!("{}: {error}", path.display()), WHERE)
}

fn no_socket(path: &Path, found: &Metadata) -> Fault {
    let inside = path.join(SOCKET_NAME);
    if found.is_dir() {
        let remedy = if inside.exists() {
            format!("name the socket in it: unix://{}", inside.display())
        } else {
            WHERE.to_owned()
        };
        return Fault::new(format!("{} is a folder", path.display()), remedy);
    }
    Fault::new(format!("{} is no socket", path.display()), WHERE)
}

/// Opens a connection, and closes it again.
pub(super) async fn connect(path: &Path) -> io::Result<()> {
    match timeout(CONNECT_LIMIT, UnixStream::connect(path)).await {
        Ok(connected) => connected.map(drop),
        Err(late) => Err(late.into()),
    }
}

/// Whether this user may open it: the kernel says so on connecting.
pub(super) fn permission(owner: &Owner, connected: &io::Result<()>) -> Checked<()> {
    let (uid, gid) = (geteuid(), getegid());
    match connected {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Fault::new(
            format!(
                "user {uid} of group {gid} may not open it: it is of user {} and group {}, mode {:04o}",
                owner.uid, owner.gid, owner.mode
            ),
            format!(
                "let this user write to {}: by its mode (`shared_socket.mode` of the agent, 0666 for everybody: rules say who gets what), or by a security module's policy",
                owner.path.display()
            ),
        )),
        _ => Ok(((), format!("user {uid} of group {gid} may open it"))),
    }
}

/// Whether anybody listens.
pub(super) fn connection(connected: io::Result<()>) -> Checked<()> {
    let error = match connected {
        Ok(()) => return Ok(((), "somebody listens".to_owned())),
        Err(error) => error,
    };
    Err(match error.kind() {
        ErrorKind::ConnectionRefused => Fault::new(
            "nobody listens: the agent that made this socket is gone",
            "start the agent: its pod on this node (`kubectl get pods -A -o wide`), or `systemctl status signet-agent`; its log says why it ended",
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Fault::new(
            "the agent takes no connection: it hangs, or more callers wait than it takes",
            "look at the agent's log, and whether its process gets any CPU",
        ),
        _ => Fault::new(format!("it does not connect: {error}"), "look at the agent's log"),
    })
}
