//! What the system lets this process use, and how what it lets others use is told.

mod row;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use self::row::{Limit, bytes, markdown, time};

/// More open files than this are of no use, and some systems allow a billion.
const ENOUGH_FILES: u64 = 1 << 20;

/// Raises the number of files this process may open to what it may raise it to, and says how many that are. Services are
/// often started with 1024, which the connections of one hostile client would use up for everybody.
///
/// # Errors
/// From the kernel; the limit is as it was then.
pub fn raise_open_files() -> std::io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(ENOUGH_FILES);
    if soft >= wanted {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(wanted)
}

/// Keeps the memory of this process, and with it private keys and tokens, out of core files.
///
/// # Errors
/// From the kernel.
pub fn forbid_core_files() -> std::io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, hard)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_is_raised() {
        let allowed = raise_open_files().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, allowed);
        assert!(soft >= hard.min(ENOUGH_FILES));
    }

    #[test]
    fn no_core_files_are_written() {
        forbid_core_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap().0, 0);
    }
}
