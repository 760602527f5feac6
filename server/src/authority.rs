//! Authorities: their life cycle and their keys.
//!
//! [`state`] and its steps are a pure machine; [`journal`] is its memory; [`manager`] is the task that drives it, and
//! [`view`] is what the rest of the server sees of it.

mod audited;
mod command;
pub(crate) mod journal;
mod lifecycle;
mod links;
pub(crate) mod manager;
pub(crate) mod material;
pub(crate) mod policy;
mod rotation;
pub(crate) mod source;
pub(crate) mod spread;
pub(crate) mod state;
mod step;
pub(crate) mod view;
mod worker;

pub(crate) use self::command::RotateRequest;
pub(crate) use self::manager::{AuthorityManager, AuthorityManagerParts, RotateError};
#[cfg(test)]
pub(crate) use self::material::Held;
pub(crate) use self::policy::{LifePolicy, LifeSettings, activate_at, prepare_at};
pub(crate) use self::rotation::RotationProgress;
pub(crate) use self::source::SelfSigned;
pub(crate) use self::spread::SpreadReports;
pub(crate) use self::state::AuthorityState;
pub(crate) use self::view::{AuthorityView, KindView, ViewedAuthority};
