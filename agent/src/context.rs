//! What a workload is told, and who asks: the seam between the manager, which decides, and the endpoints (Workload
//! API, secret discovery), which only render.
//!
//! The manager keeps one `watch` channel per workload and publishes a [`WorkloadState`] on it. Every stream holds a
//! receiver, so a slow reader keeps no history, and dropping the receiver ends the subscription.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use signet_certs::svid::X509Svid;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub use self::lists::Lists;
pub(crate) use crate::peer::PeerProcess;

mod lists;

/// Longest hint that clients must support, in bytes (API-12).
const MAX_HINT: usize = 1024;

/// An unencrypted PKCS#8 private key, shared by reference and wiped when the last holder lets go.
///
/// It has no readable `Debug`. [`PrivateKey::bytes`] hands out the same memory without copying it.
#[derive(Clone)]
pub struct PrivateKey(Bytes);

/// The owner that `Bytes` keeps alive; wiping happens when it is dropped.
struct KeyMemory(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for KeyMemory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The same, with an SVID as the owner.
struct SvidKey(Arc<X509Svid>);

impl AsRef<[u8]> for SvidKey {
    fn as_ref(&self) -> &[u8] {
        self.0.key().pkcs8_der()
    }
}

impl PrivateKey {
    /// Takes over the DER bytes of an unencrypted PKCS#8 document (version 0, for old Java clients).
    pub fn from_pkcs8(der: Zeroizing<Vec<u8>>) -> Self {
        Self(Bytes::from_owner(KeyMemory(der)))
    }

    /// Shares the key of an SVID.
    pub fn of(svid: Arc<X509Svid>) -> Self {
        Self(Bytes::from_owner(SvidKey(svid)))
    }

    /// The PKCS#8 DER. Clones share the memory; keep them no longer than a response needs them.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey")
    }
}

/// One X.509-SVID granted to a workload, in the form the endpoints need.
#[derive(Clone, Debug)]
pub struct GrantedSvid {
    /// The SPIFFE ID, byte for byte as in the leaf's URI SAN (X5S-07).
    pub spiffe_id: String,
    /// DER certificates one after another, leaf first, root left out (X5S-04).
    pub chain: Bytes,
    /// The key of the leaf.
    pub key: PrivateKey,
    /// Start of the leaf's validity; the leaf is not handed out before.
    pub not_before: SystemTime,
    /// End of the leaf's validity; the leaf is not handed out from here on (X5S-12).
    pub not_after: SystemTime,
    /// Operator's hint as the server gave it, empty when there is none. What clients see: [`X509Context::hints`].
    pub hint: String,
}

impl GrantedSvid {
    /// Takes an SVID over, sharing the memory of its key. An empty hint means none.
    pub fn new(svid: Arc<X509Svid>, hint: String) -> Self {
        Self {
            spiffe_id: svid.spiffe_id().as_str().to_owned(),
            chain: svid.chain_der().into(),
            not_before: svid.not_before(),
            not_after: svid.not_after(),
            key: PrivateKey::of(svid),
            hint,
        }
    }
}

impl PartialEq for GrantedSvid {
    /// A leaf certifies its key, so equal chains mean equal keys and the key is not compared.
    fn eq(&self, other: &Self) -> bool {
        self.spiffe_id == other.spiffe_id && self.chain == other.chain && self.hint == other.hint
    }
}

/// Everything one workload gets: the Workload API's X.509 context. Published as a whole, never as a difference.
///
/// The byte fields are shared by all workloads and streams, so a clone costs a few reference counts.
#[derive(Clone, Debug, PartialEq)]
pub struct X509Context {
    /// Name of the agent's own trust domain, without scheme (`example.org`).
    pub trust_domain: String,
    /// At least one; the first is the default identity and the order is the same on every node (API-13).
    pub svids: Vec<GrantedSvid>,
    /// X.509 authorities of the own trust domain: DER certificates one after another (X5S-06).
    pub bundle: Bytes,
    /// One complete DER CRL for each authority that can appear in a chain.
    pub crls: Arc<Lists>,
    /// Foreign trust domain name → its X.509 authorities, DER one after another. Domains without X.509 authorities are
    /// left out (X5S-13), the own one is never in here (API-17).
    pub federated_bundles: BTreeMap<String, Bytes>,
}

impl X509Context {
    /// The hint to show with each of [`svids`](Self::svids), in their order. One is left out (empty) when it is longer
    /// than clients must support (API-12), or when a former identity carries it already (API-11): the identity itself is
    /// not lost.
    pub fn hints(&self) -> Vec<&str> {
        let mut taken = HashSet::new();
        let hints = self.svids.iter().map(|svid| svid.hint.as_str());
        hints
            .map(|hint| {
                let shown = hint.len() <= MAX_HINT && taken.insert(hint);
                if shown { hint } else { "" }
            })
            .collect()
    }
}

/// What is true for one workload now.
#[derive(Clone, Debug)]
pub enum WorkloadState {
    /// Not known yet: before the first sync, or the server could not be asked. Streams wait a bounded time.
    Pending {
        /// Why it takes long, for the status message of a stream that has waited long enough. No secrets.
        problem: Option<String>,
    },
    /// The server granted at least one identity.
    Ready(Arc<X509Context>),
    /// The server looked and granted nothing (`no_match` or `denied`). Never used before the first sync (EP-18).
    Refused {
        /// Why, in one short line for the workload's owner.
        message: String,
    },
    /// The workload's volume is gone, or the agent ends. Streams end with Unavailable.
    Gone,
}

/// Who calls, as the socket knows it. Nothing in it comes from the caller itself.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The socket of one CSI volume: whoever reaches it lives in that pod.
    Volume {
        /// CSI volume id, as kubelet gave it.
        volume_id: String,
        /// UID of the pod that the volume is pinned to.
        pod_uid: String,
    },
    /// The shared socket: the peer process itself is attested.
    Peer(PeerProcess),
}

/// Why a caller cannot be subscribed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AttachError {
    /// A synchronised agent knows that this caller gets nothing; ends in PermissionDenied.
    #[error("{0}")]
    Refused(String),
    /// Attestation failed or could not be done (caller vanished, not synchronised, overloaded); ends in Unavailable.
    #[error("{0}")]
    Unavailable(String),
}

/// Where the endpoints get workload states from. The manager implements it, tests script it.
pub trait WorkloadSource: Send + Sync {
    /// Subscribes a caller. Called once per stream, again for each; dropping the receiver is unsubscribing.
    ///
    /// Answers quickly: what takes time is expressed by [`WorkloadState::Pending`]. A sender that is dropped means the
    /// same as [`WorkloadState::Gone`].
    ///
    /// # Errors
    /// [`AttachError`] when the caller cannot be attested or is known to get nothing.
    fn attach<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<watch::Receiver<WorkloadState>, AttachError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svid(key: PrivateKey) -> GrantedSvid {
        GrantedSvid {
            spiffe_id: "spiffe://example.org/a".to_owned(),
            chain: Bytes::from_static(b"chain"),
            key,
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            hint: String::new(),
        }
    }

    /// Covers INV-13.
    #[test]
    fn debug_output_holds_no_key() {
        let key = PrivateKey::from_pkcs8(Zeroizing::new(b"SECRET".to_vec()));
        let text = format!("{:?}", svid(key));
        assert!(!text.contains("SECRET") && !text.contains("83, 69"), "{text}");
    }

    #[test]
    fn the_memory_of_a_key_is_shared_and_equality_does_not_read_it() {
        let key = PrivateKey::from_pkcs8(Zeroizing::new(b"one".to_vec()));
        assert_eq!(key.bytes().as_ptr(), key.clone().bytes().as_ptr());
        let other = PrivateKey::from_pkcs8(Zeroizing::new(b"two".to_vec()));
        assert_eq!(svid(key), svid(other));
    }
}
