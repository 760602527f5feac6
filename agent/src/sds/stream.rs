//! One call: what is heard and what is answered, each in its turn.

use std::sync::Arc;

use futures_util::stream;
use tonic::{Code, Status};

use super::answer::Heard;
use super::observed::{Observed, Trust, Watched};
use super::requests::Requests;
use crate::context::X509Context;
use crate::streams::{Follower, Message, Messages, Nothing, Sending, guarded};

/// What a name is kept with, at least.
pub(super) const KEPT: usize = 64;

/// What a request costs of its caller's work, and each secret that is made for it. A frame costs 1.
const REQUEST: u32 = 2;
const SECRET: u32 = 10;

/// What is to be said now.
#[derive(Debug)]
pub(super) enum Said {
    /// This.
    Answer(Message),
    /// Nothing, until something changes. Some of what was asked for may come by time alone.
    Nothing(Option<Nothing>),
    /// Nothing at all of what was asked for, for this reason.
    NotYet(Nothing),
}

/// The rules of one way to ask. Pure.
pub(super) trait Conversation: Send + 'static {
    /// What a proxy sends.
    type Request: prost::Message + Default;

    /// Takes a request.
    ///
    /// # Errors
    /// That it makes no sense, with the status of the call.
    fn hear(&mut self, request: Self::Request) -> Result<Heard, Status>;

    /// What is to be said of this context.
    ///
    /// # Errors
    /// The status of the call.
    fn say(&mut self, context: &Arc<X509Context>, now: std::time::SystemTime) -> Result<Said, Status>;

    /// The trust that the proxy has brought from another stream, once it can be told which.
    fn brought(&mut self) -> Option<Trust>;

    /// What was to be said last is on its way.
    fn sent(&mut self);

    /// Whether what verifies peers is asked for.
    fn wants_trust(&self) -> bool;

    /// Bytes that are kept of what was asked, each name with [`KEPT`].
    fn kept(&self) -> usize;

    /// How many secrets are to be made for what was asked last.
    fn work(&self) -> u32;

    /// Whether anything was asked yet.
    fn has_begun(&self) -> bool;

    /// Who the proxy says it is.
    fn proxy(&self) -> &str;
}

/// See the [module](self).
pub(super) struct Talk<C> {
    follower: Follower,
    requests: Requests,
    conversation: C,
    watched: Watched,
    /// One answer, and the end.
    once: bool,
    over: bool,
}

impl<C: Conversation> Talk<C> {
    pub(super) fn new(
        follower: Follower,
        requests: Requests,
        conversation: C,
        observed: Arc<Observed>,
        once: bool,
    ) -> Self {
        Self {
            follower,
            requests,
            conversation,
            watched: observed.stream(),
            once,
            over: false,
        }
    }

    /// The answers. A watch never ends without an error status.
    pub(super) fn into_messages(self) -> Messages {
        guarded(stream::unfold(Some(self), |talk| async {
            let mut talk = talk?;
            if talk.over {
                return Some((Err(Status::new(Code::Ok, "")), None));
            }
            match talk.next().await {
                Ok(answer) => Some((Ok(answer), Some(talk))),
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    /// The next answer. Only called when the client has taken the last one.
    async fn next(&mut self) -> Result<Sending, Status> {
        loop {
            let said = match self.follower.context()? {
                Ok(context) => self.conversation.say(&context, self.follower.now())?,
                Err(nothing) => Said::NotYet(nothing),
            };
            if let Some(trust) = self.conversation.brought() {
                let (caller, proxy) = (self.follower.caller(), self.conversation.proxy());
                self.watched.brought(&caller, proxy, trust, self.follower.now());
            }
            match said {
                Said::Answer(answer) => {
                    if let Some(sending) = self.follower.send(answer).await? {
                        self.conversation.sent();
                        self.over = self.once;
                        return Ok(sending);
                    }
                }
                Said::Nothing(later) => self.listen(later.and_then(|later| later.again_in), None).await?,
                Said::NotYet(Nothing { problem, again_in }) => {
                    // Whoever has asked for nothing lacks nothing.
                    let problem = self.conversation.has_begun().then_some(problem);
                    self.listen(again_in, problem.as_deref()).await?;
                }
            }
        }
    }

    /// Waits for a request or for news.
    async fn listen(
        &mut self,
        again_in: Option<std::time::Duration>,
        problem: Option<&str>,
    ) -> Result<(), Status> {
        let request = tokio::select! {
            biased;
            waited = self.follower.wait(again_in, problem) => return waited,
            request = self.requests.next(), if self.requests.is_open() => request?,
        };
        let Some(request) = request else {
            if self.conversation.has_begun() {
                return Ok(());
            }
            return Err(Status::invalid_argument("the call ended without a request"));
        };
        let heard = self.conversation.hear(request)?;
        self.note(heard);
        if !self.conversation.wants_trust() {
            self.watched.left();
        }
        self.follower.keep(self.conversation.kept())?;
        let work = REQUEST + SECRET.saturating_mul(self.conversation.work());
        self.follower.pay(work).await
    }

    /// What became of an answer is seen from outside.
    fn note(&self, heard: Heard) {
        match heard {
            Heard::Nothing => {}
            Heard::Took(trust) => {
                if let Some(trust) = trust {
                    self.watched.took(trust, self.follower.now());
                }
            }
            Heard::Refused { code, words } => {
                self.watched
                    .refused(&self.follower.caller(), self.conversation.proxy(), code, &words);
            }
        }
    }
}
