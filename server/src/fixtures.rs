//! For tests of every room: a moment, names, a running server's core, and what a publisher would show.

mod published;
mod running;

use std::time::{Duration, SystemTime};

use signet_certs::id::TrustDomain;
use signet_certs::serial::SerialNumber;

pub(crate) use self::published::{authority, published, snapshot};
pub(crate) use self::running::{Running, Seams, begin, deny, policy, revoke_serial, revoke_within, start};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const SKEW: Duration = Duration::from_secs(120);
/// 2026-11-22T00:00:00Z.
pub(crate) const START: Duration = Duration::from_secs(1_795_305_600);

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

/// A serial that tells itself apart by `number`.
pub(crate) fn serial(number: u8) -> SerialNumber {
    SerialNumber::generate(SystemTime::UNIX_EPOCH + START, &[number; 13])
}
