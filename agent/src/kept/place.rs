//! Where keys may be written.

use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use signet_runtime::files::private_dir;

/// `RAMFS_MAGIC` of linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// What a folder lies on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ground {
    /// tmpfs or ramfs: it ends with the machine's power and is never on a disk.
    Memory,
    /// The root of a container: it ends with that container.
    Overlay,
    /// Anything else.
    Disk,
}

impl Ground {
    /// Of a folder that is there.
    pub(crate) fn of(dir: &Path) -> nix::Result<Self> {
        Ok(match statfs(dir)?.filesystem_type() {
            TMPFS_MAGIC | RAMFS_MAGIC => Self::Memory,
            OVERLAYFS_SUPER_MAGIC => Self::Overlay,
            _ => Self::Disk,
        })
    }
}

/// Which folders may hold keys.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Keeping {
    /// Those on tmpfs or ramfs.
    #[default]
    InMemory,
    /// Any, disks too.
    Anywhere,
    /// None.
    Nowhere,
}

/// Where keys are kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Places {
    /// Those of the agent itself and of processes, root-only; `None` when they stay in memory.
    pub state_dir: Option<PathBuf>,
    /// Those of pods, each in the folder of its volume; false when they stay in memory.
    pub volumes: bool,
    /// Why some stay in memory only, for a person; empty when none do.
    pub problem: String,
}

impl Places {
    /// Makes `state_dir`, which is root-only, and looks at what the folders lie on. What may not be used is no obstacle:
    /// the agent then asks anew after a restart.
    pub(crate) fn open(keeping: Keeping, state_dir: &Path, volumes_dir: Option<&Path>) -> Self {
        if keeping == Keeping::Nowhere {
            return Self {
                problem: "keep_keys is false: after a restart everything is asked for anew".to_owned(),
                ..Self::default()
            };
        }
        let made = private_dir(state_dir).map_err(|error| error.to_string());
        let state = made.and_then(|()| fit(keeping, state_dir));
        let volumes = volumes_dir.map_or(Ok(()), |dir| fit(keeping, dir));
        let problems: Vec<&str> = [&state, &volumes]
            .into_iter()
            .filter_map(|place| place.as_ref().err().map(String::as_str))
            .collect();
        if !problems.is_empty() {
            tracing::warn!(
                problem = problems.join("; "),
                "keys stay in memory only, a restart asks for certificates anew"
            );
        }
        Self {
            state_dir: state.is_ok().then(|| state_dir.to_owned()),
            volumes: volumes.is_ok(),
            problem: problems.join("; "),
        }
    }
}

fn fit(keeping: Keeping, dir: &Path) -> Result<(), String> {
    let ground = Ground::of(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    if ground == Ground::Memory || keeping == Keeping::Anywhere {
        return Ok(());
    }
    Err(format!(
        "{}: not on tmpfs, no key is written there; mount one, or set keep_secrets_on_disk where that is accepted",
        dir.display()
    ))
}
