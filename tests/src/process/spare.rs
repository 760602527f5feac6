//! What a process is given that nobody else has: a port, a pipe.

use std::{
    collections::BTreeSet,
    io::{PipeReader, PipeWriter, Write as _},
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, fcntl};
use ring::rand::{SecureRandom, SystemRandom};
use signet_runtime::sync::Mutex;

/// A pipe of 4 KiB, the least there is, whose reader does not read; `full` from the first byte on.
///
/// # Errors
/// When there is none to be had.
pub fn unread_pipe(full: bool) -> Result<(PipeReader, PipeWriter)> {
    const LEAST: i32 = 4096;
    let (reader, mut writer) = std::io::pipe().context("make a pipe")?;
    let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(LEAST)).context("shrink a pipe")?;
    if full {
        let filling = vec![b'.'; usize::try_from(size)?];
        writer.write_all(&filling).context("fill a pipe")?;
    }
    Ok((reader, writer))
}

/// A port on the loopback address that nobody holds, for a setting that must be the same after a restart.
///
/// It lies below the range from which the system serves outgoing connections, so none of those takes it later.
///
/// # Errors
/// When no such port can be bound.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock();
    let rng = SystemRandom::new();
    for _ in 0..1000 {
        let mut random = [0; 2];
        rng.fill(&mut random).ok().context("no randomness for a port")?;
        let port = 10_000 + u16::from_be_bytes(random) % 20_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return Ok(port);
        }
    }
    bail!("no free port between 10000 and 30000")
}
