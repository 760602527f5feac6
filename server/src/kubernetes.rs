//! A Kubernetes cluster as its API server shows it: how it is reached ([`access`]), the calls and what callers may have of them
//! ([`api`], [`budget`]), what is there now ([`pods`] and [`namespaces`], from watches of [`watch`]; [`objects`], read one by one), and what a service
//! account token says of itself ([`claims`]).
//!
//! What any of it proves, and what goes on while an API server is away, is for others to say.

pub(crate) mod access;
pub(crate) mod api;
pub(crate) mod budget;
pub(crate) mod claims;
pub(crate) mod namespaces;
pub(crate) mod objects;
pub(crate) mod pods;
#[cfg(test)]
pub(crate) mod testing;
mod watch;
mod words;
