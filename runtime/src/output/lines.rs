//! Lines on their way to a descriptor that somebody else reads, or does not.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prometheus_client::metrics::counter::Counter;

use crate::sync::{Condvar, Mutex};

/// Bytes that may wait to be written; what comes then is lost. As much again may be in the writer's hands.
pub const MAX_BYTES: usize = 1 << 20;

/// A bounded queue and the one thread that writes what is in it: whoever has something to say never waits for a reader.
/// Clones are the same queue; the thread ends with the process.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Lines that were ever lost.
    lost: Counter,
    /// The thread that writes. What it says itself, how many were lost, always has room: nobody says it again.
    writer: OnceLock<ThreadId>,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    lines: u64,
    /// The thread has some in hand.
    writing: bool,
    /// Lines lost since that was told.
    untold: u64,
    /// The last write came to nothing.
    failing: bool,
}

impl Lines {
    /// Starts the thread. Lost lines are counted in `lost`; once lines are taken again `tell` hears how many were lost
    /// since it last did, on that thread.
    ///
    /// The descriptor is duplicated, so that no lock of the standard library is held while a write waits.
    ///
    /// # Errors
    /// There is no descriptor or no thread to be had.
    pub fn to(
        descriptor: BorrowedFd<'_>,
        lost: Counter,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let file = File::from(descriptor.try_clone_to_owned()?);
        let lines = Self(Arc::new(Queue {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            lost,
            writer: OnceLock::new(),
        }));
        let queue = Arc::clone(&lines.0);
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || queue.run(&file, tell))?;
        Ok(lines)
    }

    /// Has a line written, whose end it brings. It is lost where too many wait.
    pub fn push(&self, line: &[u8]) {
        let mut waiting = self.0.waiting.lock();
        let is_writer = || self.0.writer.get() == Some(&thread::current().id());
        if waiting.text.len() + line.len() > MAX_BYTES && !is_writer() {
            waiting.untold += 1;
            self.0.lost.inc();
            return;
        }
        waiting.text.extend_from_slice(line);
        waiting.lines += 1;
        self.0.changed.notify_all();
    }

    /// Waits until all of it is written, at most so long. False: some is not, and ends with the process.
    pub fn flush(&self, limit: Duration) -> bool {
        let mut waiting = self.0.waiting.lock();
        let is_pending = |waiting: &mut Waiting| waiting.writing || !waiting.text.is_empty();
        let waited = self.0.changed.wait_while_for(&mut waiting, is_pending, limit);
        !waited.timed_out()
    }
}

impl Queue {
    fn run(&self, file: &File, tell: impl Fn(u64)) {
        let _ = self.writer.set(thread::current().id());
        loop {
            let (text, lines) = self.take();
            self.tell_lost(&tell);
            let outcome = write_all(file, &text);
            self.put_down(outcome.is_ok(), lines);
            self.tell_lost(&tell);
        }
    }

    fn take(&self) -> (Vec<u8>, u64) {
        let mut waiting = self.waiting.lock();
        self.changed
            .wait_while(&mut waiting, |waiting| waiting.text.is_empty());
        waiting.writing = true;
        (
            std::mem::take(&mut waiting.text),
            std::mem::take(&mut waiting.lines),
        )
    }

    fn put_down(&self, written: bool, lines: u64) {
        let mut waiting = self.waiting.lock();
        waiting.writing = false;
        waiting.failing = !written;
        if !written {
            waiting.untold += lines;
            self.lost.inc_by(lines);
        }
        self.changed.notify_all();
    }

    /// Tells how many lines were lost where there is room for one that says so.
    fn tell_lost(&self, tell: &impl Fn(u64)) {
        let mut waiting = self.waiting.lock();
        if waiting.failing || !waiting.text.is_empty() {
            return;
        }
        let untold = std::mem::take(&mut waiting.untold);
        drop(waiting);
        if untold > 0 {
            tell(untold);
        }
    }
}

/// Whoever shares the descriptor may have made it one that does not wait.
fn write_all(mut file: &File, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match file.write(text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut room = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                poll(&mut room, PollTimeout::NONE)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn line(number: usize) -> Vec<u8> {
        format!("{number:0>99}\n").into_bytes()
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up_and_learns_what_it_missed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (told, heard) = mpsc::channel();
        let lost = Counter::default();
        let lines = Lines::to(writer.as_fd(), lost.clone(), move |lines| {
            told.send(lines).unwrap();
        })
        .unwrap();
        drop(writer);
        let all = 3 * MAX_BYTES / 100;
        (0..all).for_each(|number| lines.push(&line(number)));
        assert!(!lines.flush(Duration::from_millis(10)));
        let missing = lost.get();
        assert!(missing > 0);

        let expected = (all - usize::try_from(missing).unwrap()) * 100;
        let mut read = vec![0; expected];
        reader.read_exact(&mut read).unwrap();
        assert!(lines.flush(SOON));
        let mut known = 0;
        while known < missing {
            known += heard.recv_timeout(SOON).unwrap();
        }
        assert_eq!(known, missing);
        // What was kept is whole lines in their order, from the first on.
        assert!(read.starts_with(&line(0)));
        assert!(read.chunks(100).is_sorted());
        lines.push(b"taken again\n");
        assert!(lines.flush(SOON));
        assert_eq!(lost.get(), missing);
        assert!(heard.try_recv().is_err(), "it is told once");
    }

    /// Whoever tells it logs, and the log is these very lines.
    #[test]
    fn how_much_was_lost_is_in_the_log_itself() {
        let (reader, writer) = io::pipe().unwrap();
        let lost = Counter::default();
        let own: Arc<OnceLock<Lines>> = Arc::default();
        let log = Arc::clone(&own);
        let lines = Lines::to(writer.as_fd(), lost.clone(), move |lost| {
            log.get().unwrap().push(format!("lost {lost}\n").as_bytes());
        })
        .unwrap();
        drop(writer);
        own.set(lines.clone()).unwrap();
        (0..3 * MAX_BYTES / 100).for_each(|number| lines.push(&line(number)));
        let missing = lost.get();
        assert!(missing > 0);
        // It may be told in parts: lines are lost for as long as there is more to say.
        let told = BufReader::new(reader).lines().filter_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("lost ")
                .map(|lost| lost.parse::<u64>().unwrap())
        });
        let mut sum = 0;
        assert!(
            told.map(|lost| {
                sum += lost;
                sum
            })
            .any(|sum| sum == missing)
        );
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let lost = Counter::default();
        let lines = Lines::to(full.as_fd(), lost.clone(), |_| {}).unwrap();
        lines.push(b"one\n");
        assert!(lines.flush(SOON));
        lines.push(b"two\n");
        assert!(lines.flush(SOON));
        assert_eq!(lost.get(), 2);
    }

    #[test]
    fn a_pipe_that_does_not_wait_is_waited_for() {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};

        let (mut reader, writer) = io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let lost = Counter::default();
        let lines = Lines::to(writer.as_fd(), lost.clone(), |_| {}).unwrap();
        let all = 2 * 65_536 / 100;
        (0..all).for_each(|number| lines.push(&line(number)));
        let mut read = vec![0; all * 100];
        reader.read_exact(&mut read).unwrap();
        assert!(lines.flush(SOON));
        assert_eq!(lost.get(), 0);
    }
}
