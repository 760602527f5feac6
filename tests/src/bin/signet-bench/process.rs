//! What the kernel says of a process, and what time it is.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{SysconfVar, sysconf},
};

/// As many open files as this process may have; the server inherits it.
pub(crate) fn raise_file_limit() -> Result<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(usize::try_from(hard)?)
}

/// Time on the CPU, user and system, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have spaces, in parentheses.
    let (_, fields) = stat.rsplit_once(") ").context("an odd /proc/<pid>/stat")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<u32>);
    let (user, system) = (ticks.next().context("utime")??, ticks.next().context("stime")??);
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("ticks per second")?;
    Ok(f64::from(user + system) / f64::from(u32::try_from(per_second)?))
}

/// Forgets the most memory that it had.
pub(crate) fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak of memory")
}

/// The most memory that it had at once since then, in MiB.
pub(crate) fn peak_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u32 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmHWM")?
        .parse()?;
    Ok(f64::from(kib) / 1024.0)
}

/// The memory that it has now.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmRSS")?
        .parse()?;
    Ok(kib * 1024)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
