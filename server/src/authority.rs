//! Authorities: their life cycle and their keys.

pub mod manager;
pub mod state;
