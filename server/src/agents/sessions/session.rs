//! A trust stream, as whoever serves it has it.

use std::{sync::Arc, time::SystemTime};

use signet_certs::{id::SpiffeId, tls::KeyExchange};

use super::{Entry, Sessions};
use crate::{
    agents::report::{Affected, Report},
    authority::InUse,
};

/// One open trust stream.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) sessions: Arc<Sessions>,
    pub(super) agent: SpiffeId,
    pub(super) entry: Arc<Entry>,
}

impl Session {
    /// Says which key exchange its connection had.
    #[must_use]
    pub(crate) fn over(self, key_exchange: Option<KeyExchange>) -> Self {
        self.entry.said.lock().key_exchange = key_exchange;
        self
    }

    /// Takes a report in.
    pub(crate) fn report(&self, report: Report) {
        let Some(spread) = &self.sessions.spread else {
            return;
        };
        let mut said = self.entry.said.lock();
        if said.is_over {
            return;
        }
        if report.clock_is_off() && !said.report.clock_is_off() {
            tracing::warn!(agent = %self.agent, skew_ms = report.clock_skew_ms, "an agent's clock is off");
        }
        // Under the lock, so that reports are kept in the order in which they came.
        spread.reported(&self.agent, report.confirmed);
        let in_use = report.in_use.clone().map(|authorities| InUse {
            sequence: report.confirmed,
            authorities,
        });
        spread.uses(&self.agent, in_use);
        said.report = report;
    }

    /// Shows that the agent reports a list that it does not prove.
    pub(crate) fn unproven(&self, alarm: &str) {
        let mut said = self.entry.said.lock();
        if !said.is_over {
            alarm.clone_into(&mut said.report.unproven);
        }
    }

    /// Waits for workloads to ask about again; `None` once a newer stream or certificate of the same agent has taken over, or
    /// it was revoked.
    pub(crate) async fn next_affected(&self) -> Option<Affected> {
        loop {
            {
                let mut said = self.entry.said.lock();
                if said.is_over {
                    return None;
                }
                let affected = std::mem::take(&mut said.affected);
                if affected != Affected::Nothing {
                    return Some(affected);
                }
            }
            self.entry.wake.notified().await;
        }
    }

    /// Marks the stream as broken at `now`. Without it, dropping forgets the agent at once.
    pub(crate) fn end(self, now: SystemTime) {
        let mut state = self.sessions.state.lock();
        let mut said = self.entry.said.lock();
        if !said.is_over && said.gone_at.is_none() {
            said.gone_at = Some(now);
            state.connected -= 1;
            self.sessions.touch();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.sessions.state.lock();
        let is_open = {
            let said = self.entry.said.lock();
            !said.is_over && said.gone_at.is_none()
        };
        if is_open {
            state.leave(&self.agent);
            self.sessions.touch();
        }
    }
}
