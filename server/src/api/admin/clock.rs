//! What admins are told of clocks, and what they say of them.

use std::time::SystemTime;

use signet_certs::time::rfc3339;
use signet_proto::admin as wire;
use tonic::Status;

use super::{AdminService, convert};
use crate::{
    audit::{AuditAction, AuditEvent},
    clock::dates::say,
};

impl AdminService {
    pub(super) fn shown_clock(&self) -> wire::Clock {
        convert::clock(&self.clock.show(), self.store.info().mark)
    }

    /// An admin says that it is this time.
    pub(super) fn confirmed_clock(
        &self,
        said: SystemTime,
        force: bool,
        author: String,
    ) -> Result<wire::Clock, Status> {
        let before = self.clock.now();
        let confirmed = self
            .clock
            .confirm(said, force)
            .map_err(|refused| convert::not_confirmed(&refused, said))?;
        if confirmed.went_back {
            self.attestor.forget_reviews();
        }
        let (now, against) = (self.clock.now(), say(&confirmed.against));
        tracing::warn!(
            author,
            time = rfc3339(now),
            before = rfc3339(before),
            against,
            "an admin confirmed the time"
        );
        let confirmed = AuditAction::ClockConfirmed {
            author,
            wall: rfc3339(now),
            steady: rfc3339(before),
            against,
        };
        self.audit.record(AuditEvent::new(now, confirmed));
        Ok(self.shown_clock())
    }
}
