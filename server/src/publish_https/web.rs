//! The certificate of the `https_web` profile: PEM files that somebody else renews.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use signet_certs::tls::{Hybrid, provider};
use signet_runtime::drain::Drain;

/// How often the files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(60);

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebCertificateError {
    /// A file is missing, unreadable, or not PEM of the kind expected.
    #[error("cannot read {what} from {path}: {problem}")]
    File {
        /// Certificate chain or private key.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The two do not belong together, or the key is of a kind TLS cannot use.
    #[error("the private key {key} does not fit the certificate {certificate}: {problem}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What TLS says.
        problem: String,
    },
}

/// A certificate chain and its key, read from PEM files and read again every minute: whoever renews the files need not
/// tell us. Files that are not usable leave what was loaded before in use.
#[derive(Debug)]
pub(crate) struct WebCertificate {
    certificate: PathBuf,
    key: PathBuf,
    loaded: ArcSwap<CertifiedKey>,
}

impl WebCertificate {
    /// Reads the files.
    ///
    /// # Errors
    /// [`WebCertificateError`] names the file and the reason.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, WebCertificateError> {
        let loaded = read(certificate, key)?;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Arc::new(Self {
            certificate,
            key,
            loaded: ArcSwap::from_pointee(loaded),
        }))
    }

    /// Whether the chain can be read.
    ///
    /// # Errors
    /// [`WebCertificateError::File`], of the certificate.
    pub(crate) fn check_chain(certificate: &Path) -> Result<(), WebCertificateError> {
        chain_of(certificate).map(drop)
    }

    /// Whether the key can be read, and fits the certificate, if that can be read.
    ///
    /// # Errors
    /// [`WebCertificateError::File`] of the key, or [`WebCertificateError::Mismatch`].
    pub(crate) fn check_key(certificate: &Path, key: &Path) -> Result<(), WebCertificateError> {
        let secret = key_of(key)?;
        match chain_of(certificate) {
            Ok(chain) => together(chain, secret, certificate, key).map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Reads the files again every minute until the drain starts.
    pub(crate) fn keep(self: &Arc<Self>, drain: &Drain) {
        let (kept, ending) = (self.clone(), drain.clone());
        drain.spawn_worker("bundle certificate", async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(RELOAD_EVERY) => {}
                    () = ending.signalled() => return,
                }
                let again = kept.clone();
                match signet_runtime::spans::spawn_blocking(move || again.reload()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "bundle endpoint keeps the certificate it has"),
                    Err(error) => tracing::warn!(%error, "reading the bundle endpoint's certificate stopped"),
                }
            }
        });
    }

    /// Reads the files now.
    ///
    /// # Errors
    /// [`WebCertificateError`]; what was loaded before stays in use.
    pub(crate) fn reload(&self) -> Result<(), WebCertificateError> {
        self.loaded.store(Arc::new(read(&self.certificate, &self.key)?));
        Ok(())
    }
}

impl ResolvesServerCert for WebCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.loaded.load_full())
    }
}

fn chain_of(certificate: &Path) -> Result<Vec<CertificateDer<'static>>, WebCertificateError> {
    let failed = |problem: String| WebCertificateError::File {
        what: "the certificate chain",
        path: certificate.to_owned(),
        problem,
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| failed(error.to_string()))?;
    if chain.is_empty() {
        return Err(failed("it holds no certificate".to_owned()));
    }
    Ok(chain)
}

fn key_of(key: &Path) -> Result<PrivateKeyDer<'static>, WebCertificateError> {
    PrivateKeyDer::from_pem_file(key).map_err(|error| WebCertificateError::File {
        what: "the private key",
        path: key.to_owned(),
        problem: error.to_string(),
    })
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, WebCertificateError> {
    together(chain_of(certificate)?, key_of(key)?, certificate, key)
}

fn together(
    chain: Vec<CertificateDer<'static>>,
    secret: PrivateKeyDer<'static>,
    certificate: &Path,
    key: &Path,
) -> Result<CertifiedKey, WebCertificateError> {
    let provider = provider(Hybrid::default());
    CertifiedKey::from_der(chain, secret, &provider).map_err(|error| WebCertificateError::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        problem: error.to_string(),
    })
}
