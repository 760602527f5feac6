//! A log whose lines a test reads.

use std::io;
use std::sync::Arc;

use tracing::dispatcher::{DefaultGuard, Dispatch, set_default};
use tracing::subscriber::NoSubscriber;

use super::{LogFormat, Rarely, dispatch};
use crate::sync::Mutex;

/// What this thread logs for as long as it lives.
pub(crate) struct Captured {
    text: Arc<Mutex<Vec<u8>>>,
    _here: DefaultGuard,
    /// Where there is one dispatcher alone, tracing asks the default one of whichever thread comes by a line or span first: that of
    /// another test has none, and it would be off for all.
    _second: Dispatch,
}

impl Captured {
    /// Of the lines that `chosen` chooses as `RUST_LOG` does.
    pub(crate) fn new(format: LogFormat, chosen: &str, rarely: Rarely) -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let to = text.clone();
        let log = dispatch(format, chosen, rarely, false, move || Appended(to.clone())).unwrap();
        Self {
            text,
            _here: set_default(&log),
            _second: Dispatch::new(NoSubscriber::new()),
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.text.lock().clone()).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

struct Appended(Arc<Mutex<Vec<u8>>>);

impl io::Write for Appended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
