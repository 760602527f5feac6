//! Authorities: their life cycle and their keys.
//!
//! [`state`] and its steps are a pure machine; [`journal`] is its memory; [`manager`] is the task that drives it, and
//! [`view`] is what the rest of the server sees of it.

mod audited;
mod command;
pub(crate) mod departed;
pub(crate) mod journal;
mod lifecycle;
mod links;
pub(crate) mod manager;
pub(crate) mod material;
mod moment;
pub(crate) mod operation;
pub(crate) mod policy;
mod refused;
mod reports;
pub(crate) mod source;
pub(crate) mod spread;
pub(crate) mod state;
mod step;
mod transition;
pub(crate) mod view;
mod worker;

pub(crate) use self::command::OrderRequest;
pub(crate) use self::departed::{DepartedAuthority, Left};
pub(crate) use self::manager::{AuthorityManager, AuthorityManagerParts, OrderError};
#[cfg(test)]
pub(crate) use self::material::Held;
pub(crate) use self::operation::{Order, Stage, Verb};
pub(crate) use self::policy::{EmergencySettings, LifePolicy, LifeSettings, activate_at, prepare_at};
pub(crate) use self::refused::Refused;
pub(crate) use self::reports::{Awaited, OperationReport, OperationSteps, Why};
pub(crate) use self::source::SelfSigned;
pub(crate) use self::spread::{Holds, InUse, SpreadReports};
pub(crate) use self::state::{Activation, AuthorityState, Turn};
pub(crate) use self::view::{AuthorityView, KindView, ViewedAuthority};
