//! An identity as files, for programs that read files. They belong together and are published as one
//! [set](signet_runtime::files::publish); `svid_with_key.pem` holds what has to fit for programs that open one file.

use std::path::Path;

use signet_certs::pem;
use signet_certs::svid::X509Svid;
use signet_certs::verify::TrustedAuthority;
use signet_runtime::files::{FileError, NewFile, publish};
use zeroize::Zeroizing;

/// What others may read.
const PUBLIC: u32 = 0o644;
/// What holds the key.
const PRIVATE: u32 = 0o600;

/// The files of an identity, by the names that they have.
pub(crate) const NAMES: [&str; 5] = [
    "svid.pem",
    "svid_key.pem",
    "svid_with_key.pem",
    "bundle.pem",
    "crl.pem",
];

/// Writes an identity, its bundle and the CRLs into `directory`, which is made when it is missing. Any number of processes
/// may do so at once: each publishes a whole set, and the last one stays. Blocks for as long as others write.
///
/// # Errors
/// [`FileError`]; then readers find what they found before.
pub(crate) fn write(directory: &Path, svid: &X509Svid, bundle: &[TrustedAuthority]) -> Result<(), FileError> {
    let chain: String = svid
        .chain()
        .iter()
        .map(|der| pem::encode("CERTIFICATE", der))
        .collect();
    let key = Zeroizing::new(pem::encode("PRIVATE KEY", svid.key().pkcs8_der()));
    let both = Zeroizing::new([chain.as_str(), key.as_str()].concat());
    let authorities: String = bundle
        .iter()
        .map(|authority| authority.certificate.pem())
        .collect();
    let crls: String = bundle
        .iter()
        .filter_map(|authority| authority.crl.as_ref())
        .map(|crl| crl.pem())
        .collect();
    let contents: [(&str, u32); 5] = [
        (&chain, PUBLIC),
        (&key, PRIVATE),
        (&both, PRIVATE),
        (&authorities, PUBLIC),
        (&crls, PUBLIC),
    ];
    let files: Vec<NewFile<'_>> = NAMES
        .into_iter()
        .zip(contents)
        .map(|(name, (text, mode))| NewFile {
            name,
            bytes: text.as_bytes(),
            mode,
        })
        .collect();
    publish(directory, &files)
}

#[cfg(test)]
mod tests;
