use std::fs;
use std::os::unix::fs::PermissionsExt;

use signet_certs::authority::X509Authority;
use signet_certs::bundle::parse_pem_certificates;
use signet_testkit::{DOMAIN, authority, crl, svid};

use super::*;

fn trusted(authority: &X509Authority) -> TrustedAuthority {
    TrustedAuthority {
        certificate: authority.certificate().clone(),
        crl: Some(crl(authority, 1, &[])),
    }
}

#[test]
fn an_identity_is_written_whole_and_its_key_is_private() {
    let parent = signet_testkit::folder();
    let directory = parent.path().join("a/b");
    let authority = authority(DOMAIN);
    let svid = svid(&authority, "/ns/a/sa/b");
    let layout = Layout::default();
    let shown = layout.fill(&svid, &[trusted(&authority)]).write(&directory);
    assert!(matches!(shown, Ok(Shown::Whole)), "{shown:?}");
    let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
    let modes: Vec<u32> = layout.names().into_iter().map(mode).collect();
    assert_eq!(modes, [0o644, 0o600, 0o600, 0o644, 0o644]);
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

#[test]
fn only_the_files_that_are_named_are_written_each_as_it_is_said() {
    let folder = signet_testkit::folder();
    let authority = authority(DOMAIN);
    let svid = svid(&authority, "/ns/a/sa/b");
    let named = [
        "svid=tls.crt,der",
        "key=tls.key,der,mode=0440",
        "bundle+crl=ca.pem,mode=0604",
    ];
    let mut layout = Layout::of(named.iter().map(|text| text.parse().unwrap()).collect()).unwrap();
    layout.owner.gid = Some(nix::unistd::getgid().as_raw());
    let trusted = trusted(&authority);
    let shown = layout
        .fill(&svid, std::slice::from_ref(&trusted))
        .write(folder.path());
    assert!(matches!(shown, Ok(Shown::Whole)), "{shown:?}");
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("tls.crt"), svid.chain_der());
    assert_eq!(read("tls.key"), svid.key().pkcs8_der());
    let both = authority.certificate().pem() + &trusted.crl.unwrap().pem();
    assert_eq!(read("ca.pem"), both.into_bytes());
    assert!(!folder.path().join("svid.pem").exists());
    let mode = |name: &str| {
        fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(["tls.crt", "tls.key", "ca.pem"].map(mode), [0o644, 0o440, 0o604]);
}

#[test]
fn a_certificate_is_written_whatever_lists_there_are_and_another_list_is_another_set() {
    let authority = authority(DOMAIN);
    let svid = svid(&authority, "/ns/a/sa/b");
    let digest = |crl| {
        let certificate = authority.certificate().clone();
        let set = Layout::default().fill(&svid, &[TrustedAuthority { certificate, crl }]);
        (set.digest(), set.files.last().unwrap().1.is_empty())
    };
    let (none, is_empty) = digest(None);
    assert!(is_empty);
    let list = crl(&authority, 1, &[]);
    let first = digest(Some(list.clone())).0;
    assert_eq!(first, digest(Some(list)).0);
    assert!(none != first && first != digest(Some(crl(&authority, 2, &[]))).0);
}
