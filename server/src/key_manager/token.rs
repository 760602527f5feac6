//! Keys in a token of the tests: found by id, gone with the token, nothing of them in the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use futures_util::FutureExt as _;
use ring::rand::SystemRandom;
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::signer::{AuthoritySigner, KeyError, LocalSigner, SignError, SignatureAlgorithm};
use signet_runtime::sync::Mutex;

use super::{KeyFuture, KeyManager, KeyManagerError, NewKey};

/// The token. Outlives the server that uses it.
pub(crate) struct Token {
    keys: Mutex<BTreeMap<AuthorityId, Arc<dyn AuthoritySigner>>>,
    /// It does not answer.
    pub(crate) away: AtomicBool,
    serving: ThreadId,
    /// Signatures that were asked for on the thread that serves.
    pub(crate) signed_on_the_serving_thread: Arc<AtomicUsize>,
}

impl Token {
    /// An empty token, used by a server that serves on this thread.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            keys: Mutex::default(),
            away: AtomicBool::new(false),
            serving: thread::current().id(),
            signed_on_the_serving_thread: Arc::default(),
        })
    }

    /// The ids of its keys.
    pub(crate) fn ids(&self) -> Vec<AuthorityId> {
        self.keys.lock().keys().copied().collect()
    }

    fn answer<T>(&self, answer: impl FnOnce() -> T) -> Result<T, KeyManagerError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(KeyError::Malformed("the token does not answer".to_owned()).into());
        }
        Ok(answer())
    }
}

impl KeyManager for Token {
    fn generate(&self, _: AuthorityKind, algorithm: SignatureAlgorithm) -> KeyFuture<'_, NewKey> {
        async move {
            tokio::task::yield_now().await;
            let (key, _) = LocalSigner::generate(algorithm, &SystemRandom::new())?;
            let authority_id = AuthorityId::of_spki(&key.spki());
            let signer: Arc<dyn AuthoritySigner> = Arc::new(InToken {
                key,
                serving: self.serving,
                on_it: self.signed_on_the_serving_thread.clone(),
            });
            self.answer(|| self.keys.lock().insert(authority_id, signer.clone()))?;
            Ok(NewKey {
                authority_id,
                signer,
                sealed: None,
            })
        }
        .boxed()
    }

    fn open<'a>(
        &'a self,
        _: AuthorityKind,
        authority: AuthorityId,
        _: Option<&'a crate::store::SealedKey>,
    ) -> KeyFuture<'a, Option<Arc<dyn AuthoritySigner>>> {
        async move { self.answer(|| self.keys.lock().get(&authority).cloned()) }.boxed()
    }

    fn destroy(&self, authority: AuthorityId) -> KeyFuture<'_, ()> {
        async move { self.answer(|| drop(self.keys.lock().remove(&authority))) }.boxed()
    }
}

/// A key of the token.
struct InToken {
    key: LocalSigner,
    serving: ThreadId,
    on_it: Arc<AtomicUsize>,
}

impl AuthoritySigner for InToken {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn public_point(&self) -> &[u8] {
        self.key.public_point()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        if thread::current().id() == self.serving {
            self.on_it.fetch_add(1, Ordering::SeqCst);
        }
        self.key.sign(message)
    }
}
