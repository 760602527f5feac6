//! A pod's bound token, from kubelet's publish call to the issue request.
//!
//! The agent holds one copy, in [`PodToken`]: shared by reference, wiped when its last user lets go. Besides, the token is
//! in `token.json` of its volume, and passes through memory that cannot be wiped from here: what the gRPC library has
//! received from kubelet and not yet overwritten, and on the way to the server the wire message, which that library
//! consumes, with the buffers of HTTP/2 and TLS below it.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use signet_certs::{json, jws::CompactJws};
use zeroize::Zeroizing;

/// A pod's token for our audience. Has neither `Clone` nor `Debug`.
pub struct PodToken {
    secret: Zeroizing<String>,
    expires: SystemTime,
}

impl PodToken {
    /// Copies the text, into memory of exactly its size; wiping the original is the caller's part.
    #[must_use]
    pub fn new(secret: &str, expires: SystemTime) -> Arc<Self> {
        Arc::new(Self {
            secret: Zeroizing::new(secret.to_owned()),
            expires,
        })
    }

    /// The token, a JWT.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// When it expires, as kubelet said.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Whether it names another pod than this UID: it would get that one's identity.
    #[must_use]
    pub fn is_of_another_pod(&self, uid: &str) -> bool {
        let of = pod_of(&self.secret);
        !of.is_empty() && of != uid
    }
}

/// UID of the pod that a token says it is bound to; empty where it says none. Nothing but the comparison with what the agent
/// knows of the pod rests on it: the server looks for itself.
pub(crate) fn pod_of(token: &str) -> String {
    let jws = CompactJws::parse(token).ok();
    let claims = jws.and_then(|jws| json::parse(jws.payload()).ok());
    let uid = claims
        .as_ref()
        .and_then(|claims| claims.pointer("/kubernetes.io/pod/uid"));
    uid.and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::PodToken;

    /// Two traits with one method: naming it is ambiguous, and does not compile, for a type that can be copied or shown.
    trait Neither<Case> {
        fn holds() {}
    }
    impl<T: ?Sized> Neither<()> for T {}
    impl<T: Clone> Neither<u8> for T {}
    impl<T: Debug + ?Sized> Neither<u16> for T {}

    /// Covers INV-13.
    #[test]
    fn a_token_can_be_neither_copied_nor_shown() {
        <PodToken as Neither<_>>::holds();
    }
}
