//! Paths and addresses of a configuration, tried in the way in which they will be used, before anything is started: what
//! cannot be had is said with its key, and a mistake costs nothing but the message.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::{AccessFlags, faccessat};

use crate::files::{make_dirs, parent};
use crate::uds::{self, UdsError};

/// How something will be used.
pub enum Use<'c> {
    /// A directory of this user alone, made (0700) where it is missing.
    PrivateDir {
        /// One on a disk that is read only does as well.
        may_be_read_only: bool,
        /// It gets that mode when it is used; else one that everybody may write to is refused.
        gets_mode: bool,
    },
    /// A directory of somebody else, in which files are made.
    Dir,
    /// A directory of somebody else, which leads to those in which files are made.
    Way,
    /// A file that is read.
    Read,
    /// The same, which may come later.
    ReadLater,
    /// A file that is read, or made with its directory where there is none.
    ReadOrMade,
    /// A file that is appended to, in a directory of somebody else.
    Appended,
    /// A file that is replaced by rename. Its directory is made (0755) where it is missing.
    Replaced,
    /// A Unix socket. Its directory is made (0755) where it is missing.
    Socket,
    /// An address to listen on.
    Address(SocketAddr),
    /// Something that its user alone can try; an error in his words names the path.
    Own(Box<dyn Fn() -> Result<(), String> + 'c>),
    /// Something that can be used, and may be unwise: the advice, as problem and remedy.
    Advised(Box<dyn Fn() -> Option<Advice> + 'c>),
}

/// Why something that can be used should not be left as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Advice {
    /// What is the matter.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

/// One key, and what it names.
pub struct Trial<'c> {
    key: String,
    path: PathBuf,
    usage: Use<'c>,
}

/// What is the matter.
#[derive(Debug)]
enum Trouble {
    /// It cannot be used.
    Fault { problem: String, remedy: &'static str },
    /// It may be usable when it is used.
    Doubt { problem: String, remedy: &'static str },
    /// It is usable.
    Unwise(Advice),
}

/// How much something matters that a trial has found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weight {
    /// It cannot be used.
    Fault,
    /// Somebody else holds it, or it comes later.
    Doubt,
    /// It can be used, and should be changed all the same.
    Advice,
}

/// What a trial has found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The key that names it.
    pub key: String,
    /// How much it matters.
    pub weight: Weight,
    /// What is the matter.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl<'c> Trial<'c> {
    /// Something at `path` that the key names.
    #[must_use]
    pub fn of(key: impl Into<String>, path: &Path, usage: Use<'c>) -> Self {
        Self {
            key: key.into(),
            path: path.to_owned(),
            usage,
        }
    }

    /// An address that the key names.
    #[must_use]
    pub fn address(key: &str, address: SocketAddr) -> Self {
        Self::of(key, Path::new(""), Use::Address(address))
    }
}

/// Tries all of them in order, and leaves nothing behind: who goes on makes what is missing when it is used.
#[must_use]
pub fn all(trials: &[Trial<'_>]) -> Vec<Found> {
    let mut made = Made(Vec::new());
    let mut found = Vec::new();
    for Trial { key, path, usage } in trials {
        let Err(trouble) = attempt(path, usage, &mut made) else {
            continue;
        };
        let (weight, problem, remedy) = match trouble {
            Trouble::Fault { problem, remedy } => {
                let remedy = format!("{remedy}, or name another in `{key}`");
                (Weight::Fault, problem, remedy)
            }
            Trouble::Doubt { problem, remedy } => (Weight::Doubt, problem, remedy.to_owned()),
            Trouble::Unwise(Advice { problem, remedy }) => (Weight::Advice, problem, remedy.to_owned()),
        };
        found.push(Found {
            key: key.clone(),
            weight,
            problem,
            remedy,
        });
    }
    found
}

/// What was made, in order; removed again when it is dropped.
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // What somebody else has put something into meanwhile stays.
            let _ = fs::remove_dir(path);
        }
    }
}

fn attempt(path: &Path, usage: &Use<'_>, made: &mut Made) -> Result<(), Trouble> {
    match usage {
        Use::PrivateDir {
            may_be_read_only,
            gets_mode,
        } => {
            make_private(path, *gets_mode, made)?;
            match writable(path) {
                Err(_) if *may_be_read_only && is_read_only(path) => Ok(()),
                outcome => outcome,
            }
        }
        Use::Dir => writable(path),
        Use::Way => passable(path, AccessFlags::X_OK),
        Use::Read => readable(path),
        Use::ReadLater => match readable(path) {
            Err(Trouble::Fault { problem, .. }) if !path.exists() => Err(Trouble::Doubt {
                problem,
                remedy: "it is read as soon as it is there",
            }),
            outcome => outcome,
        },
        Use::ReadOrMade if fs::symlink_metadata(path).is_ok() => readable(path),
        Use::ReadOrMade | Use::Replaced => replaceable(path, made),
        Use::Appended => appendable(path),
        Use::Socket => socket(path, made),
        Use::Address(address) => listenable(*address),
        Use::Own(attempt) => attempt().map_err(|problem| Trouble::Fault {
            problem,
            remedy: "put it right",
        }),
        Use::Advised(advice) => advice().map_or(Ok(()), |advice| Err(Trouble::Unwise(advice))),
    }
}

fn fault(path: &Path, action: &str, error: &io::Error, remedy: &'static str) -> Trouble {
    let problem = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => format!("the disk of {} is read only", path.display()),
        _ => format!("{}: cannot {action}: {error}", path.display()),
    };
    Trouble::Fault { problem, remedy }
}

const WRITABLE: &str = "let this user make it and write there";

fn make(path: &Path, mode: u32, made: &mut Made) -> io::Result<()> {
    make_dirs(path, mode, &mut |path| made.0.push(path.to_owned()))
}

/// A look that makes nothing, so that a disk which is full is not taken for one that is read only.
fn may(path: &Path, what: AccessFlags) -> io::Result<()> {
    Ok(faccessat(AT_FDCWD, path, what, AtFlags::AT_EACCESS)?)
}

fn make_private(path: &Path, gets_mode: bool, made: &mut Made) -> Result<(), Trouble> {
    let failed = |error: &io::Error| fault(path, "make the directory", error, WRITABLE);
    make(path, 0o700, made).map_err(|error| failed(&error))?;
    let mode = fs::metadata(path).map_err(|error| failed(&error))?.mode();
    if mode & 0o002 != 0 && !gets_mode {
        return Err(Trouble::Fault {
            problem: format!("{}: everybody may write there", path.display()),
            remedy: "take that permission away",
        });
    }
    Ok(())
}

fn is_read_only(path: &Path) -> bool {
    let outcome = may(path, AccessFlags::W_OK);
    outcome.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

fn writable(path: &Path) -> Result<(), Trouble> {
    passable(path, AccessFlags::W_OK | AccessFlags::X_OK)
}

fn passable(path: &Path, what: AccessFlags) -> Result<(), Trouble> {
    let failed = |error: &io::Error| fault(path, "use it", error, WRITABLE);
    let found = fs::metadata(path).map_err(|error| failed(&error))?;
    if !found.is_dir() {
        return Err(failed(&io::ErrorKind::NotADirectory.into()));
    }
    may(path, what).map_err(|error| failed(&error))
}

fn readable(path: &Path) -> Result<(), Trouble> {
    let opened = OpenOptions::new()
        .read(true)
        // Not to wait for the writer of a pipe.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let outcome = opened.and_then(|file| match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(()),
    });
    let remedy = "put it there, readable for this user";
    outcome.map_err(|error| fault(path, "read it", &error, remedy))
}

fn replaceable(path: &Path, made: &mut Made) -> Result<(), Trouble> {
    let remedy = "let this user write to its folder";
    let folder = parent(path);
    make(folder, 0o755, made).map_err(|error| fault(path, "make its folder", &error, remedy))?;
    if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        let error = io::ErrorKind::IsADirectory.into();
        return Err(fault(path, "write it", &error, remedy));
    }
    may(folder, AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(|error| fault(path, "write it", &error, remedy))
}

/// One that is missing is not made: to remove it again could take it from a process that has begun to write to it.
fn appendable(path: &Path) -> Result<(), Trouble> {
    let opened = OpenOptions::new()
        .read(true)
        .append(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let outcome = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
            may(parent(path), all)
        }
        opened => opened.map(drop),
    };
    let remedy = "make its folder and let this user write there";
    outcome.map_err(|error| fault(path, "write it", &error, remedy))
}

fn socket(path: &Path, made: &mut Made) -> Result<(), Trouble> {
    let remedy = "let this user write to its folder";
    make(parent(path), 0o755, made).map_err(|error| fault(path, "make its folder", &error, remedy))?;
    uds::try_bind(path).map_err(|error| match error {
        UdsError::InUse(_) => Trouble::Doubt {
            problem: error.to_string(),
            remedy: "if it is the process that this one replaces, nothing",
        },
        UdsError::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            fault(path, "listen there", &source, remedy)
        }
        UdsError::Io { .. } => Trouble::Fault {
            problem: error.to_string(),
            remedy,
        },
        UdsError::NotASocket(_) => Trouble::Fault {
            problem: format!("{}: exists and is not a socket", path.display()),
            remedy: "move it away",
        },
        UdsError::TooLong(_) => Trouble::Fault {
            problem: format!("{}: longer than the path of a socket may be", path.display()),
            remedy: "shorten it",
        },
    })
}

fn listenable(address: SocketAddr) -> Result<(), Trouble> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Trouble::Doubt {
            problem: format!("somebody listens on {address}"),
            remedy: "if it is the process that this one replaces, nothing",
        }),
        Err(error) => Err(Trouble::Fault {
            problem: format!("cannot listen on {address}: {error}"),
            remedy: match error.kind() {
                io::ErrorKind::PermissionDenied => "allow this user ports below 1024 (CAP_NET_BIND_SERVICE)",
                _ => "give this machine that address",
            },
        }),
    }
}

#[cfg(test)]
mod tests;
