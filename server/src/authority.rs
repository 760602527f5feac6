//! Authorities: their life cycle and their keys.
//!
//! [`state`] and its steps are a pure machine; [`journal`] is its memory; [`manager`] is the task that drives it, and
//! [`view`] is what the rest of the server sees of it.

mod command;
pub mod journal;
mod lifecycle;
pub mod manager;
pub mod policy;
mod rotation;
pub mod spread;
pub mod state;
mod step;
#[cfg(test)]
pub(crate) mod testing;
pub mod view;
mod worker;

pub use self::command::RotateRequest;
pub use self::lifecycle::LifecycleError;
pub use self::manager::{AuthorityManager, AuthorityManagerParts, RotateError};
pub use self::policy::{LifePolicy, LifePolicyError, LifeSettings, activate_at, check_leaf_ttl, prepare_at};
pub use self::rotation::RotationProgress;
pub use self::spread::{SpreadReports, SpreadStatus};
pub use self::state::{Activation, AuthorityState, Introduced};
pub use self::view::{AuthorityView, KindView, ViewedAuthority};
