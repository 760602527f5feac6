//! Who signs the certificate of an authority: itself, or somebody above it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use signet_certs::authority::{AuthorityChain, AuthorityError, AuthorityProfile, create_authority};
use signet_certs::signer::AuthoritySigner;

use crate::key_manager::{Stopped, off_thread};

/// Why there is no certificate over a new key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// None was made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Nothing signs.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Gets a key certified. What comes back is checked against `profile` by whoever asked, and nobody waits longer than he likes.
pub(crate) trait AuthoritySource: Send + Sync {
    /// A certificate over `signer`'s key that says what `profile` asks for, with those above it.
    fn certify<'a>(
        &'a self,
        profile: &'a AuthorityProfile,
        signer: &'a Arc<dyn AuthoritySigner>,
    ) -> BoxFuture<'a, Result<AuthorityChain, SourceError>>;
}

/// The authority is a root: its own key signs.
pub(crate) struct SelfSigned;

impl AuthoritySource for SelfSigned {
    fn certify<'a>(
        &'a self,
        profile: &'a AuthorityProfile,
        signer: &'a Arc<dyn AuthoritySigner>,
    ) -> BoxFuture<'a, Result<AuthorityChain, SourceError>> {
        async move {
            let (profile, key) = (profile.clone(), signer.clone());
            let made = off_thread(signer.as_ref(), false, move || {
                create_authority(&profile, key.as_ref())
            });
            Ok(made.await??.into())
        }
        .boxed()
    }
}
