//! The key that signs the heads of the log.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use signet_certs::signer::{AuthoritySigner, SignError};

use super::AuditCursor;

/// Signs heads: statements that the log has a line of this hash at this position.
#[derive(Clone)]
pub(crate) struct AuditKey(Arc<dyn AuthoritySigner>);

impl AuditKey {
    /// Takes over a P-256 key.
    pub(crate) fn new(signer: Arc<dyn AuthoritySigner>) -> Self {
        Self(signer)
    }

    /// The uncompressed point in base64, as heads carry it. Keep it elsewhere to verify the log by.
    pub(crate) fn public_key(&self) -> String {
        BASE64.encode(self.0.public_point())
    }

    /// A head line, without newline.
    pub(crate) fn head(&self, server_id: &str, end: &AuditCursor, time: &str) -> Result<String, SignError> {
        let head = Head {
            event: "head".to_owned(),
            server: server_id.to_owned(),
            sequence: end.sequence,
            hash: hex::encode(end.hash),
            time: time.to_owned(),
            public_key: self.public_key(),
            signature: String::new(),
        };
        let signature = BASE64.encode(self.0.sign(&head.statement())?);
        serde_json::to_string(&Head { signature, ..head }).map_err(|error| SignError(error.to_string()))
    }
}

/// A head line as read and written.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Head {
    pub(crate) event: String,
    pub(crate) server: String,
    pub(crate) sequence: u64,
    pub(crate) hash: String,
    pub(crate) time: String,
    pub(crate) public_key: String,
    pub(crate) signature: String,
}

impl Head {
    /// What is signed. The first line keeps the signature from meaning anything elsewhere.
    pub(super) fn statement(&self) -> Vec<u8> {
        format!(
            "signet audit head v1\n{}\n{}\n{}\n{}\n",
            self.server, self.sequence, self.hash, self.time
        )
        .into_bytes()
    }
}
