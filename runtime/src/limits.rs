//! What the system lets this process use, and how what it lets others use is told.

mod row;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use self::row::{Limit, bytes, markdown, time};

/// More open files than this are of no use, and some systems allow a billion.
const ENOUGH_FILES: u64 = 1 << 20;

/// What one kind of connections may have of the files that a process may open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wish {
    /// With fewer its door is of no use.
    pub least: usize,
    /// More than these it never has.
    pub most: usize,
}

/// Divides `files` among these kinds: each its least, and of what is left a part in proportion to what it lacks. `None` where they are
/// not enough for the least of each.
#[must_use]
pub fn divide<const N: usize>(files: usize, wishes: [Wish; N]) -> Option<[usize; N]> {
    let least: usize = wishes.iter().map(|wish| wish.least).sum();
    let lacking: usize = wishes.iter().map(|wish| wish.most - wish.least).sum();
    let left = files.checked_sub(least)?.min(lacking);
    Some(wishes.map(|wish| {
        let more = (wish.most - wish.least).saturating_mul(left);
        wish.least + more.checked_div(lacking).unwrap_or(0)
    }))
}

/// How many files this process may open.
///
/// # Errors
/// From the kernel.
pub fn open_files() -> std::io::Result<usize> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(usize::try_from(soft).unwrap_or(usize::MAX))
}

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
    fn each_kind_has_its_least_and_nobody_more_than_there_is() {
        let wishes = [(4, 4), (10, 100), (20, 1000)].map(|(least, most)| Wish { least, most });
        assert_eq!(divide(33, wishes), None);
        assert_eq!(divide(34, wishes), Some([4, 10, 20]));
        assert_eq!(divide(usize::MAX, wishes), Some([4, 100, 1000]));
        for files in 34..1200 {
            let parts = divide(files, wishes).unwrap();
            assert!(parts.iter().sum::<usize>() <= files, "{files}: {parts:?}");
            let bounds = parts.iter().zip(wishes);
            assert!(
                bounds
                    .into_iter()
                    .all(|(part, wish)| (wish.least..=wish.most).contains(part)),
                "{files}: {parts:?}"
            );
        }
        assert_eq!(divide(3, [Wish { least: 3, most: 3 }]), Some([3]));
    }

    #[test]
    fn no_core_files_are_written() {
        forbid_core_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap().0, 0);
    }
}
