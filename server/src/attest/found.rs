//! Pods that somebody asks about who has no token of them.

use super::AttestedPod;

/// What became of a look for a pod by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is there, or was and is over.
    There(Box<FoundPod>),
    /// Neither the watch nor the API server has it.
    Nowhere,
    /// The watch does not show it, and the API server was not to be asked: why.
    Unknown(String),
}

/// A pod that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPod {
    /// It, without what only a token tells.
    pub pod: AttestedPod,
    /// Its `status.phase`.
    pub phase: &'static str,
    /// It has ended: nobody is attested by it any more.
    pub is_over: bool,
    /// The watch did not show it.
    pub from_api: bool,
}

/// Pods that have all of these; what is `None` may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PodsLike {
    /// Namespace.
    pub namespace: Option<String>,
    /// Service account.
    pub service_account: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// UID.
    pub uid: Option<String>,
    /// Name of the node.
    pub node_name: Option<String>,
}
