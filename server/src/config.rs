//! The server's configuration: one YAML file, unknown keys refused, every key but the trust domain with a working default.
//!
//! What is written is read as it stands; what leaves this module is a [`Config`], whose values are known to fit
//! together.

mod check;
mod raw;
mod rule_file;
#[cfg(test)]
mod tests;
mod valid;

pub(crate) use self::raw::MAX_LIVE;
pub(crate) use self::rule_file::RuleFile;
pub(crate) use self::valid::{Config, Listen};
