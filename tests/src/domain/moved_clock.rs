//! A wall clock of one process, moved by Debian's `libfaketime`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use signet_runtime::files::{self, Durability};

/// A process's wall clock, set by hand.
#[derive(Debug)]
pub struct MovedClock {
    file: PathBuf,
}

impl MovedClock {
    /// The machine's clock, until it is set.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let file = folder.join("wall-clock");
        let clock = Self { file };
        clock.set(0)?;
        Ok(clock)
    }

    /// What a process is started with to go by it. Timers and elapsed time go on as they are.
    ///
    /// # Errors
    /// When the library is not installed.
    pub(super) fn environment(&self) -> Result<Vec<(String, String)>> {
        let library = faketime_library().context("Debian's libfaketime is not installed")?;
        let file = self.file.display().to_string();
        let variables = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_NO_CACHE", "1"),
        ];
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(owned.to_vec())
    }

    /// Sets it to so many seconds ahead of the machine's (negative: behind).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // By rename: the process reads it at every look at its clock.
        let text = format!("{seconds:+}\n");
        files::replace(&self.file, text.as_bytes(), 0o600, Durability::Volatile).context("set the wall clock")
    }
}

/// Where Debian keeps the library, if it is installed.
fn faketime_library() -> Option<String> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .map(|library| library.display().to_string())
}
