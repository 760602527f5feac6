//! What the watch streams of all services on the workload sockets have in common: following one workload, room for what it is sent, and
//! bodies that are made piece by piece.

mod body;
mod follower;
mod message;
mod nothing;
mod readings;
pub(crate) mod status;

use std::time::Duration;

pub(crate) use self::body::Messages;
pub(crate) use self::follower::{Follower, Following, guarded};
pub(crate) use self::message::{Digest, Message, Sending};
pub(crate) use self::nothing::{Nothing, is_servable};
pub(crate) use self::readings::limit;

/// How long a stream may have nothing to serve before it ends with Unavailable.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
