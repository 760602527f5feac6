//! The CSI driver: one socket directory per pod.

pub mod mount;
pub mod registration;
pub mod volumes;
