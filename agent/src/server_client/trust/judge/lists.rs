//! Which lists of an update are believed. One that is not holds up nothing: the older one stays, and where there is none its authority is held
//! without.

use std::time::SystemTime;

use signet_certs::authority::AuthorityCertificate;
use signet_certs::crl::{Crl, CrlError};

use super::{Judge, TrustError};
use crate::server_client::OfferedAuthority;
use crate::server_client::trust::{HeldAuthority, LeftLists};

impl Judge<'_> {
    /// The offered CRL, or the held one when the offered one may not replace it.
    pub(super) fn crl(
        &mut self,
        issuer: &AuthorityCertificate,
        offered: &OfferedAuthority,
    ) -> Result<Option<Crl>, TrustError> {
        let held = self.held.and_then(|held| held.find(&issuer.id()));
        let held = held.and_then(|held| held.crl.as_ref());
        if let Some(same) = held.filter(|held| *held.der() == offered.crl) {
            return Ok(Some(same.clone()));
        }
        // Kept of an authority that has none.
        if self.now.is_none() && offered.crl.is_empty() {
            return Ok(None);
        }
        let judged = Crl::verify(&offered.crl, issuer).and_then(|crl| match (held, self.now) {
            (Some(held), Some(now)) => self.may_replace(&crl, held, now).map(|()| crl),
            (None, Some(now)) => self.may_begin(&crl, now).map(|()| crl),
            (_, None) => Ok(crl),
        });
        // One that was named and is not held is no bad one: it was asked for, and comes with the next update.
        let is_awaited = held.is_none() && offered.crl.is_empty() && offered.named.is_some();
        match judged {
            Ok(crl) => Ok(Some(crl)),
            Err(problem) if self.now.is_none() || is_awaited => Err(TrustError::Crl {
                authority: issuer.id(),
                problem,
            }),
            Err(error) => {
                self.refused.push((issuer.id(), error));
                Ok(held.cloned())
            }
        }
    }

    /// The server's store was restored since what is held was pushed.
    fn is_restored(&self) -> bool {
        let before = self.held.map_or(0, |held| held.epoch);
        before > 0 && self.epoch > before
    }

    /// In a later epoch a list with a lower number may follow, but none of an earlier time.
    fn may_replace(&self, offered: &Crl, held: &Crl, now: SystemTime) -> Result<(), CrlError> {
        match offered.may_replace(held, now) {
            Err(CrlError::Rollback { .. })
                if self.is_restored() && offered.this_update() >= held.this_update() =>
            {
                offered.check_not_ahead(now)
            }
            outcome => outcome,
        }
    }

    /// Whether a list is taken of an authority of which none is held, but may have been.
    fn may_begin(&self, offered: &Crl, now: SystemTime) -> Result<(), CrlError> {
        if let Some(held) = self.held.filter(|_| !self.is_restored()) {
            held.left.check(offered)?;
        }
        offered.check_not_ahead(now)
    }

    pub(super) fn left(&self, x509: &[HeldAuthority], control: &[HeldAuthority]) -> LeftLists {
        let Some(held) = self.held.filter(|_| !self.is_restored()) else {
            return LeftLists::default();
        };
        held.left
            .after(held.x509.iter().chain(&held.control), x509.iter().chain(control))
    }
}
