use std::fs;
use std::os::unix::fs::PermissionsExt;

use signet_certs::bundle::parse_pem_certificates;
use signet_testkit::{DOMAIN, authority, crl, svid};

use super::*;

#[test]
fn an_identity_is_written_whole_and_its_key_is_private() {
    let parent = signet_testkit::folder();
    let directory = parent.path().join("a/b");
    let authority = authority(DOMAIN);
    let svid = svid(&authority, "/ns/a/sa/b");
    let crl = Some(crl(&authority, 1, &[]));
    let certificate = authority.certificate().clone();
    write(&directory, &svid, &[TrustedAuthority { certificate, crl }]).unwrap();
    let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(NAMES.map(mode), [0o644, 0o600, 0o600, 0o644, 0o644]);
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    assert_eq!(parse_pem_certificates(&read("svid.pem")).unwrap(), svid.chain());
    assert_eq!(parse_pem_certificates(&read("bundle.pem")).unwrap().len(), 1);
    assert!(read("svid_key.pem").starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(read("crl.pem").starts_with("-----BEGIN X509 CRL-----\n"));
    assert_eq!(
        read("svid_with_key.pem"),
        read("svid.pem") + &read("svid_key.pem")
    );
}
