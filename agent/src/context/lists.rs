//! Revocation lists as all workloads share them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ring::digest::{Context, SHA256, digest};
use signet_certs::pem;

/// The lists of one moment, in one place however many workloads are told of them.
#[derive(Debug)]
pub struct Lists {
    ders: Vec<Bytes>,
    digest: [u8; 32],
    /// Made when somebody asks for it first.
    pem: OnceLock<Box<[u8]>>,
}

impl Lists {
    /// These lists, without what is empty.
    #[must_use]
    pub fn new(ders: Vec<Bytes>) -> Arc<Self> {
        Self::known(ders.into_iter().map(|der| {
            let sha256 = bytes_of(digest(&SHA256, &der).as_ref());
            (der, sha256)
        }))
    }

    /// Lists whose SHA-256 is known, without what is empty.
    pub(crate) fn known(lists: impl IntoIterator<Item = (Bytes, [u8; 32])>) -> Arc<Self> {
        let mut all = Context::new(&SHA256);
        let mut ders = Vec::new();
        for (der, sha256) in lists.into_iter().filter(|(der, _)| !der.is_empty()) {
            all.update(&sha256);
            ders.push(der);
        }
        let digest = bytes_of(all.finish().as_ref());
        Arc::new(Self {
            ders,
            digest,
            pem: OnceLock::new(),
        })
    }

    /// Each list in DER.
    pub fn ders(&self) -> &[Bytes] {
        &self.ders
    }

    /// All of them in PEM, one behind the other.
    pub(crate) fn pem(&self) -> &[u8] {
        self.pem.get_or_init(|| {
            let each = self.ders.iter().map(|der| pem::encode("X509 CRL", der));
            each.collect::<String>().into_bytes().into_boxed_slice()
        })
    }

    /// Stands for the bytes of all of them.
    pub(crate) const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl PartialEq for Lists {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// A SHA-256, which has 32 bytes.
fn bytes_of(digest: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest);
    bytes
}
