//! `fetch x509 --write`: four PEM files, each put in place by rename, so that a reader never sees half of one.

use std::fs;
use std::io;
use std::path::Path;

use signet_certs::pem;
use signet_certs::svid::X509Svid;
use signet_certs::verify::TrustedAuthority;
use signet_runtime::files::{Durability, Staged};
use zeroize::Zeroizing;

/// The files, in the order in which they are put in place: certificate and key last and next to each other, so that
/// whoever sees a new certificate has the bundle that verifies it.
pub(super) const NAMES: [&str; 4] = ["bundle.pem", "crl.pem", "svid_key.pem", "svid.pem"];

/// Writes an identity, its bundle and the CRLs. The directory is made when it is missing.
pub(super) fn write(directory: &Path, svid: &X509Svid, bundle: &[TrustedAuthority]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let chain: String = svid
        .chain()
        .iter()
        .map(|der| pem::encode("CERTIFICATE", der))
        .collect();
    let key = Zeroizing::new(pem::encode("PRIVATE KEY", svid.key().pkcs8_der()));
    let authorities: String = bundle
        .iter()
        .map(|authority| authority.certificate.pem())
        .collect();
    let crls: String = bundle
        .iter()
        .filter_map(|authority| authority.crl.as_ref())
        .map(|crl| crl.pem())
        .collect();
    let contents: [(&str, u32); 4] = [
        (&authorities, 0o644),
        (&crls, 0o644),
        (&key, 0o600),
        (&chain, 0o644),
    ];
    // All are complete before the first is seen.
    let staged: Vec<Staged> = NAMES
        .iter()
        .zip(contents)
        .map(|(name, (text, mode))| {
            Staged::write(&directory.join(name), text.as_bytes(), mode, Durability::Durable)
        })
        .collect::<Result<_, _>>()?;
    for file in staged {
        file.put_in_place()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use signet_certs::bundle::parse_pem_certificates;
    use signet_testkit::{DOMAIN, authority, crl, svid};

    use super::*;

    fn fetched() -> (X509Svid, [TrustedAuthority; 1]) {
        let authority = authority(DOMAIN);
        let svid = svid(&authority, "/ns/a/sa/b");
        let crl = Some(crl(&authority, 1, &[]));
        let certificate = authority.certificate().clone();
        (svid, [TrustedAuthority { certificate, crl }])
    }

    #[test]
    fn the_directory_is_made_and_the_key_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let (svid, bundle) = fetched();
        write(&directory, &svid, &bundle).unwrap();
        let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(NAMES.map(mode), [0o644, 0o644, 0o600, 0o644]);
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(parse_pem_certificates(&read("svid.pem")).unwrap(), svid.chain());
        assert_eq!(parse_pem_certificates(&read("bundle.pem")).unwrap().len(), 1);
        assert!(read("svid_key.pem").starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert!(read("crl.pem").starts_with("-----BEGIN X509 CRL-----\n"));
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            4,
            "no temporary files stay"
        );
    }

    #[test]
    fn files_of_an_earlier_run_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (older, bundle) = fetched();
        write(directory.path(), &older, &bundle).unwrap();
        fs::write(
            directory.path().join(".svid_key.pem.0123456789abcdef.new"),
            "left by a crash",
        )
        .unwrap();
        let (newer, bundle) = fetched();
        write(directory.path(), &newer, &bundle).unwrap();
        let text = fs::read_to_string(directory.path().join("svid.pem")).unwrap();
        assert_eq!(parse_pem_certificates(&text).unwrap(), newer.chain());
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            4,
            "what the crash left is gone"
        );
    }
}
