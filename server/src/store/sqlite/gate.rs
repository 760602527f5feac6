//! For tests: holds one command in front of the writer's queue.

use signet_runtime::sync::Mutex;
use tokio::sync::oneshot;

/// Everything passes but the one command that is held.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<Hold>>);

#[derive(Debug)]
struct Hold {
    /// Commands that pass before it.
    before: usize,
    reached: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

/// A command that is held, or will be.
#[derive(Debug)]
pub(super) struct Held {
    /// It is there.
    pub(super) reached: oneshot::Receiver<()>,
    /// Lets it pass; dropped, too.
    pub(super) release: oneshot::Sender<()>,
}

impl Gate {
    /// Holds the command that follows this many.
    pub(super) fn hold_after(&self, before: usize) -> Held {
        let ((arrives, reached), (release, released)) = (oneshot::channel(), oneshot::channel());
        *self.0.lock() = Some(Hold {
            before,
            reached: arrives,
            released,
        });
        Held { reached, release }
    }

    pub(super) async fn pass(&self) {
        let held = {
            let mut hold = self.0.lock();
            match hold.as_mut() {
                Some(held) if held.before > 0 => {
                    held.before -= 1;
                    None
                }
                _ => hold.take(),
            }
        };
        if let Some(hold) = held {
            // Whoever held it may have lost interest in either.
            let _ = hold.reached.send(());
            let _ = hold.released.await;
        }
    }
}
