//! The one place that makes a TLS provider: ring, and X25519MLKEM768 before it (ADR 0018). Whatever of ours speaks TLS has it from here.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use thiserror::Error;

#[cfg(feature = "hybrid")]
use super::hybrid::X25519MlKem768;

/// Whether a key exchange is hybrid: ML-KEM-768 beside X25519, so that a recording of it is of no use to whoever breaks one of the two.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(
    feature = "issue",
    derive(serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Hybrid {
    /// With every peer that knows it. Others are offered X25519 in the same message, so that nobody needs another round trip.
    #[default]
    Prefer,
    /// With every peer, and with no others. Without the feature `hybrid` no configuration can be made.
    Require,
    /// Never: X25519, P-256 or P-384.
    Off,
}

impl Hybrid {
    /// What this says of connections whose peers nobody here configures: they cannot be required to know anything.
    #[must_use]
    pub const fn with_anybody(self) -> Self {
        match self {
            Self::Prefer | Self::Require => Self::Prefer,
            Self::Off => Self::Off,
        }
    }
}

/// What ring lacks.
#[cfg(feature = "hybrid")]
fn hybrid_groups() -> Vec<&'static dyn SupportedKxGroup> {
    static GROUP: LazyLock<X25519MlKem768> =
        LazyLock::new(|| X25519MlKem768(ring::default_provider().secure_random));
    vec![&*GROUP]
}

#[cfg(not(feature = "hybrid"))]
const fn hybrid_groups() -> Vec<&'static dyn SupportedKxGroup> {
    Vec::new()
}

/// The provider of every client and server of ours. Made once; cheap.
#[must_use]
pub fn provider(hybrid: Hybrid) -> Arc<CryptoProvider> {
    static MADE: LazyLock<[Arc<CryptoProvider>; 3]> =
        LazyLock::new(|| [Hybrid::Prefer, Hybrid::Require, Hybrid::Off].map(|hybrid| Arc::new(made(hybrid))));
    let [prefer, require, off] = &*MADE;
    Arc::clone(match hybrid {
        Hybrid::Prefer => prefer,
        Hybrid::Require => require,
        Hybrid::Off => off,
    })
}

fn made(hybrid: Hybrid) -> CryptoProvider {
    let classical = ring::default_provider();
    let kx_groups = match hybrid {
        // First: a client's second share is X25519 only then, and a rustls server takes what its client names first.
        Hybrid::Prefer => [hybrid_groups(), classical.kx_groups].concat(),
        Hybrid::Require => hybrid_groups(),
        Hybrid::Off => classical.kx_groups,
    };
    CryptoProvider {
        kx_groups,
        ..classical
    }
}

/// The process has another provider already.
#[derive(Debug, Error)]
#[error("this process has another TLS provider already")]
pub struct AlreadyInstalled;

/// Makes it what clients of libraries get in this process that name no provider. For a program's start, once its configuration is read.
///
/// # Errors
/// When the process has one that offers other key exchanges.
pub fn install(hybrid: Hybrid) -> Result<(), AlreadyInstalled> {
    let ours = provider(hybrid);
    // Fails where there is one, which is then looked at.
    let _ = CryptoProvider::clone(&ours).install_default();
    let groups = |of: &CryptoProvider| of.kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>();
    match CryptoProvider::get_default() {
        Some(held) if groups(held) == groups(&ours) => Ok(()),
        _ => Err(AlreadyInstalled),
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls::version::TLS13;

    use super::*;

    #[test]
    fn a_process_has_one_default_and_keeps_it() {
        install(Hybrid::Prefer).unwrap();
        install(Hybrid::Prefer).unwrap();
        install(Hybrid::Require).unwrap_err();
        let held = CryptoProvider::get_default().unwrap();
        assert_eq!(held.kx_groups.len(), provider(Hybrid::Prefer).kx_groups.len());
    }

    /// Run without it by `.ci/step package`.
    #[test]
    fn without_the_feature_nothing_is_preferred_and_requiring_it_refuses_to_begin() {
        let len = |hybrid| provider(hybrid).kx_groups.len();
        let more = usize::from(cfg!(feature = "hybrid"));
        assert_eq!(len(Hybrid::Prefer), len(Hybrid::Off) + more);
        assert_eq!(len(Hybrid::Require), more);
        let begun = ServerConfig::builder_with_provider(provider(Hybrid::Require));
        assert_eq!(
            begun.with_protocol_versions(&[&TLS13]).is_ok(),
            cfg!(feature = "hybrid")
        );
    }
}
