//! One trust stream's part in finding out whether an older store was put in place: what its agent claims, and the question that
//! it is asked.

use std::sync::Arc;

use bytes::Bytes;
use signet_certs::authority::AuthorityId;
use signet_certs::crl::CrlNumber;
use signet_certs::id::SpiffeId;
use tokio::time::sleep_until;

use crate::put_back::{Claim, PutBack, Question};

pub(super) struct Evidence {
    put_back: Arc<PutBack>,
    agent: SpiffeId,
    /// An agent of minor version 0 has no word for a list that it hands over.
    can_be_asked: bool,
    /// Whose certificate does not count is not heard.
    is_guest: bool,
    claims: Vec<Claim>,
    question: Option<Question>,
    /// The last alarm, while what it is about is claimed.
    unproven: String,
}

impl Evidence {
    pub(super) fn new(put_back: &Arc<PutBack>, agent: SpiffeId, can_be_asked: bool, is_guest: bool) -> Self {
        Self {
            put_back: put_back.clone(),
            agent,
            can_be_asked,
            is_guest,
            claims: Vec::new(),
            question: None,
            unproven: String::new(),
        }
    }

    /// Takes a report in: the lists that the agent says it holds, and what it hands over. What was not asked for is not
    /// looked at. Returns the alarm that stands against it; empty when none.
    pub(super) async fn hear(
        &mut self,
        lists: &[(AuthorityId, CrlNumber, [u8; 32])],
        held: &[Bytes],
    ) -> String {
        if self.is_guest {
            return String::new();
        }
        self.claims = self.put_back.claims(lists).await;
        if !held.is_empty()
            && let Some(question) = self.question.take()
        {
            let answered = self
                .put_back
                .answered(&self.agent, question, held, &self.claims)
                .await;
            self.unproven = answered.err().unwrap_or_default();
        }
        if self.claims.is_empty() {
            self.unproven.clear();
        }
        self.unproven.clone()
    }

    /// Waits until there is something to ask the agent for, or until it has not answered for too long: then the alarm.
    /// May be given up at any time.
    pub(super) async fn next(&mut self) -> Result<AuthorityId, String> {
        if let Some(question) = &self.question {
            sleep_until(question.until).await;
            return Err(self.alarm("it was asked for the list, and has not handed it over"));
        }
        if self.claims.is_empty() {
            return std::future::pending().await;
        }
        let question = self.put_back.turn(&self.agent, &self.claims).await;
        let authority = question.claim.authority;
        self.question = Some(question);
        if self.can_be_asked {
            Ok(authority)
        } else {
            Err(self.alarm("its version hands no lists over; upgrade the agent"))
        }
    }

    /// The agent ended the stream: whoever is asked and hangs up has not answered.
    pub(super) fn gone(&mut self) {
        if self.question.is_some() {
            self.alarm("it was asked for the list, and ended the stream");
        }
    }

    fn alarm(&mut self, why: &str) -> String {
        if let Some(question) = self.question.take() {
            self.unproven = self.put_back.unproven(&self.agent, &question.claim, why);
        }
        self.unproven.clone()
    }
}
