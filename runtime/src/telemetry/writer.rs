//! The way of log lines into their queue.

use std::io;

use tracing_subscriber::fmt::MakeWriter;

use crate::output::Lines;

/// Each write is one whole line: the layer renders it first.
pub(super) struct Writer(pub(super) Lines);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Entry<'a>;

    fn make_writer(&'a self) -> Entry<'a> {
        Entry(&self.0)
    }
}

pub(super) struct Entry<'a>(&'a Lines);

impl io::Write for Entry<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
