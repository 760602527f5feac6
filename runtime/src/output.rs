//! What a program prints: the only place that writes to standard output and standard error. Nothing here panics.
//!
//! A command [`print()`]s its answer and waits for its reader, as every tool does. What goes on working says what it has to
//! say through [`Lines`], which wait for nobody.

mod lines;
mod narration;

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::lines::{Lines, MAX_BYTES};
pub use self::narration::Narration;

/// Prints an answer to standard output. A reader that has gone has what it wanted, so its pipe is no error; a descriptor
/// that was closed before the program began counts as `/dev/null`.
///
/// # Errors
/// The answer was not taken: the disk is full, for instance.
pub fn print(text: &str) -> io::Result<()> {
    write(io::stdout().lock(), text)
}

/// Says something on standard error. Where that is not taken there is nobody else to tell.
pub fn complain(text: &str) {
    let _ = write(io::stderr().lock(), text);
}

/// Whether the reader of standard output has gone, where that is a pipe.
#[must_use]
pub fn is_unread() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let seen = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    let [fd] = &fds;
    seen && fd
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLERR))
}

fn write(mut to: impl Write, text: &str) -> io::Result<()> {
    match to.write_all(printable(text).as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Without control characters but the ends of lines: much of what is printed somebody else has written, and nothing of that may
/// move the cursor of a terminal.
fn printable(text: &str) -> Cow<'_, str> {
    let moves = |c: char| c.is_control() && c != '\n';
    if text.contains(moves) {
        Cow::Owned(text.replace(moves, "?"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refusing(io::ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is() {
        write(Refusing(io::ErrorKind::BrokenPipe), "answer").unwrap();
        write(Refusing(io::ErrorKind::StorageFull), "answer").unwrap_err();
        let mut taken = Vec::new();
        write(&mut taken, "answer").unwrap();
        assert_eq!(taken, b"answer");
    }

    #[test]
    fn nothing_that_is_printed_moves_the_cursor() {
        let mut taken = Vec::new();
        write(&mut taken, "server \u{1b}[2J\r\u{9b}x\nend\n").unwrap();
        assert_eq!(taken, b"server ?[2J??x\nend\n");
    }
}
