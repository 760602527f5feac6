//! One watch stream of the Workload API: renders what is true for the workload each time it has changed.

use std::time::SystemTime;

use futures_util::stream;
use tonic::Status;

use crate::context::X509Context;
use crate::streams::{Digest, Follower, Message, Messages, Nothing, Sending, guarded};

/// Makes one kind of message; fails when the context cannot be served at that time.
pub(super) type Render = fn(&X509Context, SystemTime) -> Result<Message, Nothing>;

/// Follows one workload for one stream.
pub(super) struct Watcher {
    pub follower: Follower,
    pub render: Render,
    /// Stands for the last message, so that an equal one is not sent again (API-16).
    pub sent: Option<Digest>,
}

impl Watcher {
    /// The stream. It never ends without an error status (EP-21).
    pub(super) fn into_messages(self) -> Messages {
        guarded(stream::unfold(Some(self), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(message) => Some((Ok(message), Some(watcher))),
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    /// The next message that differs from the last one. Only called when the client has taken the last one.
    async fn next(&mut self) -> Result<Sending, Status> {
        loop {
            let context = self.follower.context()?;
            let rendered = context.and_then(|context| (self.render)(&context, self.follower.now()));
            match rendered {
                Ok(message) => {
                    let digest = message.digest();
                    if self.sent == Some(digest) {
                        self.follower.wait(None, None).await?;
                    } else if let Some(sending) = self.follower.send(message).await? {
                        self.sent = Some(digest);
                        return Ok(sending);
                    }
                }
                Err(Nothing { problem, again_in }) => self.follower.wait(again_in, Some(&problem)).await?,
            }
        }
    }
}
