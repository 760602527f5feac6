//! What the worker is asked: to let a process in, and how things stand.

use tokio::sync::watch;

use super::super::Question;
use super::super::account::account;
use super::super::admission::Room;
use super::super::status::status;
use super::Worker;
use crate::cache::UnixFacts;
use crate::context::{AttachError, PeerProcess, WorkloadState};

impl Worker {
    pub(super) fn answer(&mut self, question: Question) {
        match question {
            // A receiver that is dropped because nobody waits for the reply any more is unsubscribed by that.
            Question::AttachProcess {
                facts,
                peer,
                reply,
                turn,
            } => {
                let _ = reply.send(self.attach_process(facts, peer));
                drop(turn);
            }
            Question::Account { id, reply } => {
                let now = self.moment();
                let _ = reply.send(account(&self.cache, &self.admitted, &id, now));
            }
            Question::Status { reply } => {
                let now = self.moment();
                let _ = reply.send(status(&self.cache, &self.admitted, now));
            }
        }
    }

    fn attach_process(
        &mut self,
        facts: UnixFacts,
        peer: PeerProcess,
    ) -> Result<watch::Receiver<WorkloadState>, AttachError> {
        match self.admitted.room_for(&facts) {
            Room::Free => {}
            Room::Instead(id) => self.forget(&id),
            Room::Full => {
                self.requests.no_room();
                let message = "the agent serves as many different programs as it can";
                return Err(AttachError::Unavailable(message.to_owned()));
            }
        }
        Ok(self.admitted.attach_process(facts, peer))
    }
}
